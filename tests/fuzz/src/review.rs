//! Reviews: their file, and hostile texts.

use s0_review::{Body, Observed, Part, Review, Selection, State, Write};
use s0_tree::{Actor, Content, New, Seq, Time, TreePath};

use crate::joined;

/// A review as it was stored: read, or refused; and then nothing breaks it.
pub(crate) fn stored(data: &[u8]) {
    let Ok(mut review) = serde_json::from_slice::<Review>(data) else { return };
    let json = serde_json::to_vec(&review).unwrap();
    assert_eq!(serde_json::from_slice::<Review>(&json).unwrap(), review);
    let paths: Vec<TreePath> = review.items().map(|item| item.path.clone()).collect();
    for path in &paths {
        let _ = (review.hunks(path), review.baseline(path));
        let seen = observed("x\n");
        review.edited(path, Some(&seen));
    }
    let part = Part::All { version: review.version() };
    let _ = review.revert(&Selection::of(part.clone()));
    let _ = review.keep(&Selection::of(part));
}

fn observed(text: &str) -> Observed<'_> {
    let what = New::File { content: Content::of(text.as_bytes()) };
    Observed { state: State { what, mode: 0o644 }, bytes: Some(text.as_bytes()) }
}

fn write(seq: u64) -> Write {
    let actor = Actor { sandbox: Some("sb".into()), ..Actor::default() };
    Write { seq: Seq(seq), actor, time: Time(0) }
}

fn of_texts(all: &[&str]) -> (Review, TreePath) {
    let path = TreePath::new("f").unwrap();
    let mut review = Review::default();
    for (at, pair) in all.windows(2).enumerate() {
        if at % 2 == 0 {
            let (before, after) = (observed(pair[0]), observed(pair[1]));
            review.applied(&path, Some(&before), Some(&after), &write(at as u64 + 1));
        } else {
            review.edited(&path, Some(&observed(pair[1])));
        }
    }
    (review, path)
}

/// Texts, which an agent and the user write by turns. When only the agent wrote, Revert is the
/// text before; Keep leaves nothing to review.
pub(crate) fn texts(data: &[u8]) {
    let all: Vec<&str> = crate::texts(data).take(6).collect();
    if all.len() < 2 {
        return;
    }
    let (mut review, path) = of_texts(&all);
    let json = serde_json::to_vec(&review).unwrap();
    assert_eq!(serde_json::from_slice::<Review>(&json).unwrap(), review);
    for hunk in review.hunks(&path) {
        let _ = review
            .clone()
            .revert(&Selection::of(Part::Hunks { path: path.clone(), hunks: vec![hunk.id] }));
    }
    let selection = Selection::of(Part::All { version: review.version() });
    if all.len() == 2 && review.item(&path).is_some() {
        let done = review.clone().revert(&selection).unwrap();
        let back = done.actions.iter().any(|action| match action {
            s0_review::Action::Write { body: Body::Text(text), .. } => text == all[0],
            s0_review::Action::Write { body: Body::File(content), .. } => {
                *content == Content::of(all[0].as_bytes())
            }
            _ => false,
        });
        assert!(back, "{:?} -> {:?}: {done:?}", all[0], all[1]);
    }
    review.keep(&selection).unwrap();
    assert!(review.item(&path).is_none(), "what was kept is under review");
}

pub(crate) fn text_seeds() -> Vec<Vec<u8>> {
    vec![
        joined(["a\nb\nc\n", "a\nB\nc\nd\n"]),
        joined(["a\nb\n", "x\na\nb", "x\na\nuser\nb", "x\nb\r\n"]),
        joined(["", "a\n", "", "a\n\n\n"]),
    ]
}

pub(crate) fn stored_seeds() -> Vec<Vec<u8>> {
    let all = [&["a\nb\n", "a\nB\n"][..], &["a\nb\n", "x\na\nb", "x\na\nuser\nb"]];
    all.iter().map(|all| serde_json::to_vec(&of_texts(all).0).unwrap()).collect()
}

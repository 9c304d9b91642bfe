//! What a Volume has done to its users when it judged by paths alone, or by the
//! rules of the wrong machine. `tests/deck.md` says which is which.

use s0_tree::{
    Action, AttributeChange, Batch, Change, Content, Expected, New, News, Origin, Policy, Quota,
    Reason, RenameHow, Seq, Tree, TreePath, Verdict, admit_batch,
};

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn write(at: &str, text: &str) -> Action {
    let (content, set) = (Content::of(text.as_bytes()), AttributeChange::default());
    Action::Write { path: path(at), content, set }
}

fn rename(from: &str, to: &str) -> Action {
    Action::Rename { from: path(from), to: path(to), how: RenameHow::NoReplace }
}

fn remove(at: &str) -> Action {
    Action::Remove { path: path(at) }
}

/// An action of one who expects what this tree holds at its path.
fn seen(tree: &Tree, action: Action) -> Change {
    let mut change = Change::unstated(action);
    let found = |at: &TreePath| match tree.at(at) {
        Some((id, node)) => Expected::Node { id, version: node.version },
        None => Expected::Absent,
    };
    if let Action::Rename { from, to, .. } = &change.action {
        (change.expect, change.expect_to) = (Some(found(from)), Some(found(to)));
    } else {
        change.expect = Some(found(change.path()));
    }
    change
}

fn judge(tree: &mut Tree, policy: Policy, changes: &[Change]) -> Vec<Option<Reason>> {
    let (origin, news) = (Origin::default(), News::default());
    let batch = Batch { origin: &origin, policy, quota: Quota::default(), news: &news, changes };
    let (_, verdicts) = admit_batch(tree, &batch).unwrap();
    let reason = |verdict| match verdict {
        Verdict::Conflict { reason, .. } => Some(reason),
        Verdict::Refused { .. } | Verdict::NoRoom => panic!("it is no conflict"),
        Verdict::Accepted { .. } | Verdict::Held { .. } => None,
    };
    verdicts.into_iter().map(reason).collect()
}

/// A Volume with these files, whose directories are made.
fn volume(files: &[&str]) -> Tree {
    let mut tree = Tree::default();
    for file in files {
        let mut change = Change::unstated(write(file, "1"));
        change.make_parents = true;
        assert_eq!(judge(&mut tree, Policy::default(), &[change]), [None]);
    }
    tree
}

const FOLDING: Policy = Policy { case_insensitive: true, ..LINUX };
const LINUX: Policy =
    Policy { case_insensitive: false, unicode_insensitive: false, windows_names: false };

#[test]
fn removing_a_directory_removes_no_newer_children_and_holds_up_nothing() {
    let known = volume(&["d/old", "other"]);
    let mut tree = known.clone();
    // The agent makes a file in it, and another directory that is empty.
    let new = Change::new(
        Action::Create {
            path: path("d/new"),
            what: New::File { content: Content::of(b"the agent's") },
            set: AttributeChange::default(),
        },
        Expected::Absent,
    );
    assert_eq!(judge(&mut tree, LINUX, &[new]), [None]);
    let removal = [
        seen(&known, remove("d/old")),
        seen(&known, write("other", "2")),
        seen(&known, remove("d")),
        seen(&known, write("more", "2")),
    ];
    let verdicts = judge(&mut tree, LINUX, &removal);
    assert_eq!(verdicts, [None, None, Some(Reason::DirectoryNotEmpty), None]);
    assert!(tree.lookup(&path("d/new")).is_some() && tree.lookup(&path("d/old")).is_none());
    assert!(tree.lookup(&path("more")).is_some());
}

#[test]
fn an_edit_below_a_directory_that_another_moved_or_removed_conflicts() {
    let known = volume(&["a/b/file", "x/y/file"]);
    let mut tree = known.clone();
    // All of these are by others, and none is at the path of an edit.
    let moved = [
        seen(&known, rename("a", "elsewhere")),
        seen(&known, remove("x/y/file")),
        seen(&known, remove("x/y")),
    ];
    assert_eq!(judge(&mut tree, LINUX, &moved[..1]), [None]);
    for change in &moved[1..] {
        assert_eq!(judge(&mut tree, LINUX, std::slice::from_ref(change)), [None]);
    }
    for edit in [write("a/b/file", "mine"), write("x/y/new", "mine"), rename("a/b/file", "mine")] {
        let before = tree.clone();
        let edit = seen(&known, edit);
        let verdict = judge(&mut tree, LINUX, std::slice::from_ref(&edit)).remove(0);
        let known = [Some(Reason::ConcurrentUpdate), Some(Reason::ParentChanged)];
        assert!(known.contains(&verdict), "{edit:?}: {verdict:?}");
        assert!(tree == before && tree.lookup(&path("elsewhere/b/file")).is_some());
    }
}

#[test]
fn a_create_where_something_else_is_conflicts_and_what_is_equal_is_held() {
    let mut tree = volume(&["a"]);
    let create = |text: &str| {
        let what = New::File { content: Content::of(text.as_bytes()) };
        let action = Action::Create { path: path("a"), what, set: AttributeChange::default() };
        Change::new(action, Expected::Absent)
    };
    let verdicts = judge(&mut tree, LINUX, &[create("mine")]);
    assert_eq!(verdicts, [Some(Reason::ConcurrentUpdate)]);
    assert_eq!(judge(&mut tree, LINUX, &[create("1")]), [None]);
    assert_eq!(tree.head(), Seq(1));
}

#[test]
fn a_file_is_no_collision_with_itself_and_with_nothing_that_is_gone() {
    let mut tree = volume(&["Dir/a.txt", "Dir/gone"]);
    let edit = seen(&tree, write("Dir/a.txt", "2"));
    assert_eq!(judge(&mut tree, FOLDING, &[edit]), [None]);
    let gone = seen(&tree, remove("Dir/gone"));
    assert_eq!(judge(&mut tree, FOLDING, &[gone]), [None]);
    let again = seen(&tree, write("Dir/GONE", "2"));
    assert_eq!(judge(&mut tree, FOLDING, &[again]), [None]);
    let own = seen(&tree, rename("Dir/a.txt", "Dir/A.txt"));
    assert_eq!(judge(&mut tree, FOLDING, &[own]), [None]);
}

#[test]
fn names_collide_only_where_a_machine_folds_them() {
    // ẞ and ss are one name by full case folding, and not by lower case.
    for (one, two) in [("Foo", "foo"), ("stra\u{1e9e}e", "STRASSE")] {
        let known = volume(&[one]);
        let change = [seen(&known, write(two, "2"))];
        assert_eq!(judge(&mut known.clone(), LINUX, &change), [None], "{two}");
        let verdict = judge(&mut known.clone(), FOLDING, &change);
        assert_eq!(verdict, [Some(Reason::CasefoldCollision)], "{two}");
    }
}

#[test]
fn names_are_known_however_little_of_the_journal_is() {
    let tree = volume(&["old/Name"]);
    // All that is left is a checkpoint.
    let mut tree = Tree::decode(&tree.encode()).unwrap();
    let other = seen(&tree, write("old/name", "2"));
    assert_eq!(judge(&mut tree, FOLDING, &[other]), [Some(Reason::CasefoldCollision)]);
}

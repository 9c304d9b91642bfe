//! Names, entries, changes, recipes, trees.

use s0_tree::{
    Action, AttributeChange, Batch, Change, Content, Entry, Expected, MAX_NAME_BYTES,
    MAX_PATH_BYTES, Name, New, News, Origin, Past, Policy, Quota, Recipe, Seq, Tree, TreePath,
    admit_batch, comparison_key, describe, diff, digest, fold, portable_issues, restore,
};

use crate::{joined, parts, texts};

const STRICT: Policy =
    Policy { case_insensitive: true, unicode_insensitive: true, windows_names: true };

/// Paths and names: as the rules say them in one line, and keys that stay as they are.
pub(crate) fn paths(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let is_name = |part: &str| {
        !matches!(part, "" | "." | "..") && !part.contains('\0') && part.len() <= MAX_NAME_BYTES
    };
    let legal = text.len() <= MAX_PATH_BYTES && (text.is_empty() || text.split('/').all(is_name));
    let read = TreePath::new(text);
    assert_eq!(read.is_ok(), legal, "{text:?}");
    assert_eq!(Name::new(text).is_ok(), is_name(text) && !text.contains('/'), "{text:?}");
    let json = serde_json::to_string(text).unwrap();
    assert_eq!(serde_json::from_str::<TreePath>(&json).is_ok(), legal);
    assert!(TreePath::of_request(text).is_err() || legal);
    let Ok(path) = read else { return };
    assert_eq!(path.as_str(), text);
    assert_eq!(path.names().count(), path.depth());
    let again = path.names().fold(TreePath::root(), |above, name| above.join(&name));
    assert_eq!(again, path);
    let key = comparison_key(text);
    assert_eq!(comparison_key(&key), key, "the key of {text:?} has another key");
    for name in path.names() {
        assert!(STRICT.same_name(name.as_str(), name.as_str()));
        assert!(portable_issues(name.as_str(), Policy::default()).is_empty());
        let _ = portable_issues(name.as_str(), STRICT);
    }
}

pub(crate) fn path_seeds() -> Vec<Vec<u8>> {
    let long = "x".repeat(300);
    ["a", "a/b/c", "..", "a/../b", "/a", "C:/x", "CON.txt", "ÄΣΐ/ǰ\u{345}", "a\0b", &long]
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .collect()
}

/// A journal: whatever does not fit changes nothing, the tree stays one, and the past of it can
/// be walked back to the beginning.
pub(crate) fn entries(data: &[u8]) {
    let mut tree = Tree::default();
    let mut taken: Vec<Entry> = Vec::new();
    for text in texts(data) {
        let Ok(entry) = serde_json::from_str::<Entry>(text) else { continue };
        let json = serde_json::to_string(&entry).unwrap();
        assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), entry);
        let before = tree.clone();
        match fold(&mut tree, &entry) {
            Ok(()) => {
                assert_eq!(tree.head(), entry.seq);
                taken.push(entry);
            }
            Err(_) => assert_eq!(tree, before, "what does not fit has changed the tree"),
        }
    }
    whole(&tree);
    let mut past = Past::new(tree.clone());
    for entry in taken.iter().rev() {
        past.take_back(entry).unwrap();
    }
    assert_eq!(past.seq(), Seq(0));
    for (path, ..) in tree.walk() {
        assert!(path.is_root() || past.lookup(&path).is_none(), "{path} was there before all");
    }
}

/// A tree can be written and read, and every node is found at its paths.
fn whole(tree: &Tree) {
    let again = Tree::decode(&tree.encode()).expect("a tree that was written can be read");
    assert_eq!(&again, tree);
    assert_eq!(digest(&again), digest(tree));
    for (path, id, _) in tree.walk() {
        assert_eq!(tree.lookup(&path), Some(id), "{path}");
    }
}

fn create(path: &str, what: New) -> Change {
    let path = TreePath::new(path).unwrap();
    Change::new(Action::Create { path, what, set: AttributeChange::default() }, Expected::Absent)
}

fn some_changes() -> Vec<Change> {
    let path = |text| TreePath::new(text).unwrap();
    let rename = |how| Action::Rename { from: path("d"), to: path("e/f"), how };
    let plain = [
        Action::Write {
            path: path("d/file"),
            content: Content::of(b"more"),
            set: AttributeChange::mode(0o600),
        },
        Action::Append { path: path("d/file"), added: 1, content: Content::of(b"more!") },
        Action::Truncate { path: path("d/file"), content: Content::empty() },
        Action::Attributes { path: path("d"), set: AttributeChange::mode(0o700) },
        Action::Link { path: path("hard"), existing: path("d/file") },
        rename(s0_tree::RenameHow::Replace),
        rename(s0_tree::RenameHow::Exchange),
        Action::Remove { path: path("d/link") },
    ];
    let mut all = vec![
        create("d", New::Directory),
        create("e", New::Directory),
        create("d/file", New::File { content: Content::of(b"text") }),
        create("d/link", New::Symlink { target: "file".into() }),
        create("pipe", New::Fifo),
    ];
    all.extend(plain.map(Change::unstated));
    all
}

fn admitted(tree: &mut Tree, policy: Policy, changes: &[Change]) -> Option<Vec<Entry>> {
    let origin = Origin::default();
    let (news, quota) = (&News::default(), Quota::default());
    let batch = Batch { origin: &origin, policy, quota, news, changes };
    admit_batch(tree, &batch).ok().map(|(entries, _)| entries)
}

pub(crate) fn entry_seeds() -> Vec<Vec<u8>> {
    let mut tree = Tree::default();
    let entries = admitted(&mut tree, Policy::default(), &some_changes()).unwrap();
    let all: Vec<Vec<u8>> =
        entries.iter().map(|entry| serde_json::to_vec(entry).unwrap()).collect();
    vec![joined(&all), joined(&all[..3])]
}

/// Changes, a part for each request: what is admitted is just what its entries fold to, whole or
/// not at all, and the difference of before and after leads back.
pub(crate) fn changes(data: &[u8]) {
    let mut tree = Tree::default();
    for (at, part) in parts(data).enumerate() {
        let Ok(changes) = serde_json::from_slice::<Vec<Change>>(part) else { continue };
        let policy = if at % 2 == 1 { STRICT } else { Policy::default() };
        let before = tree.clone();
        let Some(entries) = admitted(&mut tree, policy, &changes) else {
            assert_eq!(tree, before, "an invalid request has changed the tree");
            continue;
        };
        let mut folded = before.clone();
        entries.iter().for_each(|entry| fold(&mut folded, entry).expect("what is admitted fits"));
        assert_eq!(folded, tree);
        assert_eq!(diff(&before, &tree).is_empty(), digest(&before) == digest(&tree));
        for change in &changes {
            assert!(change.paths().all(|path| path.as_str().len() <= MAX_PATH_BYTES));
        }
    }
    whole(&tree);
    let back = restore(&tree, &Tree::default());
    admitted(&mut tree, Policy::default(), &back).expect("a restore is legal");
    assert_eq!(digest(&tree), digest(&Tree::default()), "a restore does not lead back");
}

pub(crate) fn change_seeds() -> Vec<Vec<u8>> {
    let all = some_changes();
    let one = serde_json::to_vec(&all).unwrap();
    let (a, b) = all.split_at(5);
    let two = joined([serde_json::to_vec(a).unwrap(), serde_json::to_vec(b).unwrap()]);
    vec![one, two]
}

/// Recipes, and contents: what is read is written alike, and a reader sees what memory does.
pub(crate) fn recipes(data: &[u8]) {
    if let Ok(recipe) = Recipe::decode(data) {
        assert_eq!(recipe.encode(), data);
        let sizes: u64 = recipe.chunks.iter().map(|chunk| u64::from(chunk.size)).sum();
        assert_eq!(recipe.content().size, sizes);
    }
    let (content, recipe) = describe(data).unwrap();
    assert_eq!(content, Content::of(data));
    assert_eq!(recipe.content(), content);
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(id) = s0_tree::ContentId::parse(text)
    {
        assert!(id.to_string().eq_ignore_ascii_case(text), "{text:?} is read as {id}");
    }
}

pub(crate) fn recipe_seeds() -> Vec<Vec<u8>> {
    let bytes: Vec<u8> =
        (0..600_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    let (_, recipe) = describe(&bytes[..]).unwrap();
    let id = Content::of(b"x").id.to_string();
    vec![recipe.encode(), id.into_bytes(), b"recipe:".to_vec()]
}

/// A tree as a service sends it.
pub(crate) fn trees(data: &[u8]) {
    if let Ok(tree) = Tree::decode(data) {
        whole(&tree);
        let _ = tree.usage();
        for (path, id, _) in tree.walk() {
            assert!(tree.path_of(id).is_some(), "{path} has no path");
        }
    }
}

pub(crate) fn tree_seeds() -> Vec<Vec<u8>> {
    let mut tree = Tree::default();
    let empty = tree.encode();
    admitted(&mut tree, Policy::default(), &some_changes()).unwrap();
    vec![empty, tree.encode()]
}

//! What is too long, too large or too deep: by tables.

use std::collections::BTreeMap;

use s0_tree::{
    Action, AttributeChange, Change, Content, Entry, Expected, FORMAT, MAX_PATH_BYTES,
    MAX_XATTR_BYTES, Name, New, NodeId, Op, Origin, Place, Policy, Reason, RenameHow, Seq, Time,
    Tree, TreePath, Verdict, diff, digest, fold, restore,
};

use crate::history::admit_all;

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

/// `text/nnn…/nnn…`, of `length` bytes in all.
fn long(text: &str, length: usize) -> String {
    let mut long = String::from(text);
    while long.len() < length {
        let left = length - long.len() - 1;
        // The last part must have a byte at least.
        let part = if left > 200 { 198 } else { left };
        long.push('/');
        long.push_str(&"n".repeat(part));
    }
    long
}

pub(crate) fn make_directory(at: &str) -> Change {
    Change { make_parents: false, ..make(path(at)) }
}

fn make(path: TreePath) -> Change {
    let action = Action::Create { path, what: New::Directory, set: AttributeChange::default() };
    Change { make_parents: true, ..Change::unstated(action) }
}

fn rename(from: &str, to: &str, how: RenameHow) -> Change {
    Change::unstated(Action::Rename { from: path(from), to: path(to), how })
}

fn judge(tree: &mut Tree, change: Change) -> Verdict {
    admit_all(tree, &[change], Policy::default(), Time(0)).unwrap().1.remove(0)
}

fn is_too_long(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Conflict { reason: Reason::PathTooLong, .. })
}

#[test]
fn nothing_moves_to_where_its_path_would_be_too_long() {
    let mut tree = Tree::default();
    judge(&mut tree, make(path(&long("a", MAX_PATH_BYTES - 2))));
    judge(&mut tree, make(path("deep/er")));
    let before = tree.clone();
    let plain = RenameHow::NoReplace;
    for (to, how) in [("deep/a", plain), ("aaaa", plain), ("deep/er", RenameHow::Exchange)] {
        let verdict = judge(&mut tree, rename("a", to, how));
        assert!(is_too_long(&verdict), "{to}: {verdict:?}");
        assert_eq!(tree, before);
    }
    // The other way round it is the other side that becomes too long.
    assert!(is_too_long(&judge(&mut tree, rename("deep/er", "a", RenameHow::Exchange))));
    // Two bytes more fit, and what becomes shorter always does.
    assert!(matches!(judge(&mut tree, rename("a", "aaa", plain)), Verdict::Accepted { .. }));
    assert!(tree.walk().any(|(path, ..)| path.as_str().len() == MAX_PATH_BYTES));
    assert!(matches!(judge(&mut tree, rename("aaa", "b", plain)), Verdict::Accepted { .. }));
    // The other changes of the request are not held up.
    let request = [rename("b", "deep/a", plain), make(path("fine"))];
    let (_, verdicts) = admit_all(&mut tree, &request, Policy::default(), Time(0)).unwrap();
    assert!(is_too_long(&verdicts[0]) && matches!(verdicts[1], Verdict::Accepted { .. }));
}

/// A directory in a directory, `depth` times, as no admission would make it.
fn nested(depth: u64, name: &str) -> Tree {
    let mut tree = Tree::default();
    let (name, attributes) =
        (Name::new(name).unwrap(), tree.node(NodeId::ROOT).unwrap().attributes.clone());
    for at in 0..depth {
        let at = Place { parent: NodeId(at), name: name.clone() };
        let op = Op::Create { at, what: New::Directory, attributes: attributes.clone() };
        let entry = entry(&tree, op, TreePath::root());
        fold(&mut tree, &entry).unwrap();
    }
    tree
}

fn entry(tree: &Tree, op: Op, path: TreePath) -> Entry {
    let Origin { source, actor, request, time, .. } = Origin::default();
    let seq = tree.head().next();
    Entry { format: FORMAT, seq, time, source, actor, request, op, path, old_path: None }
}

#[test]
fn a_journal_that_has_too_long_paths_is_read_and_mended() {
    let mut tree = nested(40, &"n".repeat(200));
    let deepest = tree.path_of(NodeId(40)).unwrap();
    assert!(deepest.as_str().len() > MAX_PATH_BYTES);
    // Requests cannot name it, but what is in the tree can be removed.
    let asked = serde_json::to_string(&deepest).unwrap();
    assert!(serde_json::from_str::<TreePath>(&asked).is_err());
    let remove = Change::unstated(Action::Remove { path: deepest });
    let (entries, _) = admit_all(&mut tree, &[remove], Policy::default(), Time(0)).unwrap();
    let written = serde_json::to_string(&entries[0]).unwrap();
    assert_eq!(serde_json::from_str::<Entry>(&written).unwrap(), entries[0]);
    // What is no path at all is still none.
    let hostile = written.replace("/nn", "/../");
    assert!(serde_json::from_str::<Entry>(&hostile).is_err());

    // A restore does what it can.
    let then = nested(40, &"n".repeat(200));
    let (_, verdicts) = admit_all(
        &mut Tree::default(),
        &restore(&Tree::default(), &then),
        Policy::default(),
        Time(0),
    )
    .unwrap();
    assert!(matches!(verdicts[0], Verdict::Accepted { .. }));
    assert!(verdicts.iter().any(is_too_long));
}

#[test]
fn deep_trees_take_no_stack() {
    let deep = || {
        let id = NodeId(40_000);
        assert_eq!(nested(id.0, "d").path_of(id).unwrap().depth(), 40_000);
        let tree = nested(4000, "d");
        let id = NodeId(4000);
        assert_eq!(tree.path_of(id).unwrap().depth(), 4000);
        assert_eq!(Tree::decode(&tree.encode()).unwrap(), tree);
        assert_eq!(digest(&tree), digest(&tree.clone()));
        let mut other = tree.clone();
        let op = Op::Attributes { node: id, set: AttributeChange::mode(0o700) };
        fold(&mut other, &entry(&tree, op, TreePath::root())).unwrap();
        assert_eq!(diff(&tree, &other).len(), 1);
        assert_eq!(diff(&Tree::default(), &tree).len(), 4000);
        assert_eq!(restore(&other, &tree).len(), 1);
    };
    let small = std::thread::Builder::new().stack_size(256 * 1024);
    small.spawn(deep).unwrap().join().unwrap();
}

fn xattrs(size: usize) -> AttributeChange {
    let xattrs = BTreeMap::from([("user.x".to_owned(), Some(vec![0; size - "user.x".len()]))]);
    AttributeChange { xattrs, ..AttributeChange::default() }
}

#[test]
fn links_and_extended_attributes_have_limits() {
    let link = |length| Action::Create {
        path: path("link"),
        what: New::Symlink { target: "t".repeat(length).into() },
        set: AttributeChange::default(),
    };
    let file =
        |size| Action::Write { path: path("f"), content: Content::empty(), set: xattrs(size) };
    let set = |size| Action::Attributes { path: path("f"), set: xattrs(size) };
    let mut tree = Tree::default();
    let mut judge = |action| {
        let changes = [Change::unstated(action)];
        admit_all(&mut tree, &changes, Policy::default(), Time(0)).map(|(_, mut all)| all.remove(0))
    };
    for bad in [link(MAX_PATH_BYTES + 1), file(MAX_XATTR_BYTES + 1)] {
        assert!(judge(bad.clone()).is_err());
    }
    for good in [link(MAX_PATH_BYTES), file(100), set(MAX_XATTR_BYTES)] {
        assert!(matches!(judge(good), Ok(Verdict::Accepted { .. })));
    }
    assert!(judge(set(MAX_XATTR_BYTES + 1)).is_err());
    // Together with what others have set it is too much: of this file, today.
    let xattrs = BTreeMap::from([("user.y".to_owned(), Some(vec![]))]);
    let more = AttributeChange { xattrs, ..AttributeChange::default() };
    let more = Action::Attributes { path: path("f"), set: more };
    assert!(matches!(judge(more), Ok(Verdict::Conflict { .. })));
}

#[test]
fn equal_content_with_other_attributes_is_not_held() {
    let mut tree = Tree::default();
    let write =
        |set| Change::unstated(Action::Write { path: path("f"), content: Content::empty(), set });
    judge(&mut tree, write(AttributeChange::default()));
    let owner = AttributeChange { uid: Some(7), ..AttributeChange::default() };
    for set in [owner, xattrs(20), AttributeChange::mode(0o600)] {
        assert!(
            matches!(judge(&mut tree, write(set.clone())), Verdict::Accepted { .. }),
            "{set:?}"
        );
        assert!(matches!(judge(&mut tree, write(set)), Verdict::Held { .. }));
    }
    let node = tree.at(&path("f")).unwrap().1;
    assert_eq!((node.attributes.uid, node.attributes.mode), (7, 0o600));
    assert!(node.attributes.xattrs.is_some());
    // A time alone is not worth an entry.
    let touched = AttributeChange { mtime: Some(Time(9)), ..AttributeChange::default() };
    assert!(matches!(judge(&mut tree, write(touched)), Verdict::Held { .. }));
}

#[test]
fn many_refused_changes_are_judged_quickly() {
    let mut tree = Tree::default();
    let expect = Expected::Node { id: NodeId(9), version: Seq(9) };
    let remove = |path| Change::new(Action::Remove { path }, expect);
    let set = AttributeChange::default();
    let file = New::File { content: Content::empty() };
    let changes: Vec<Change> = (0..20_000)
        .map(|at| {
            let path = path(&format!("d{at}/f"));
            Change::new(Action::Create { path, what: file.clone(), set: set.clone() }, expect)
        })
        .chain((0..20_000).map(|at| remove(path(&format!("d{at}")))))
        .collect();
    let start = std::time::Instant::now();
    let (_, verdicts) = admit_all(&mut tree, &changes, Policy::default(), Time(0)).unwrap();
    assert_eq!(verdicts[20_000], Verdict::Refused { by: 0 });
    assert_eq!(verdicts[39_999], Verdict::Refused { by: 19_999 });
    // Unoptimised on a busy machine; each against each takes minutes.
    assert!(start.elapsed() < std::time::Duration::from_secs(10), "{:?}", start.elapsed());
}

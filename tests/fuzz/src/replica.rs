//! What a workspace brings: Git's index, ignore rules; and the replica's own memory, damaged.

use std::cell::RefCell;
use std::path::PathBuf;

use s0_replica::shell::fuzzing;
use s0_replica::shell::guarded::{GUARDED, Guarded};
use s0_replica::shell::store::SqliteStore;
use s0_replica::state::{Facts, Record, Row, Store as _, What};
use s0_tree::{Content, Name, NodeId, Place, Seq};

use crate::{joined, parts, texts};

/// An index: no more names than there are entries, and none longer than a path.
pub(crate) fn git_index(data: &[u8]) {
    let Some(names) = fuzzing::git_index(data) else { return };
    assert!(names.len() <= data.len() / 62 + 1);
    for name in names {
        assert!(!name.contains('\0'));
        assert!(name.len() <= s0_tree::MAX_PATH_BYTES + 1, "a name of {} bytes", name.len());
    }
}

pub(crate) fn index_seeds() -> Vec<Vec<u8>> {
    let entry = |version: u32, name: &str, strip: u8| {
        let mut entry = vec![0; 40];
        entry[24..28].copy_from_slice(&0o100_644_u32.to_be_bytes());
        entry.extend([7; 20]);
        entry.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
        match version {
            4 => {
                entry.push(strip);
                entry.extend(name.as_bytes());
                entry.push(0);
            }
            _ => {
                entry.extend(name.as_bytes());
                entry.resize((entry.len() + 8) & !7, 0);
            }
        }
        entry
    };
    [2_u32, 4]
        .map(|version| {
            let mut index = b"DIRC".to_vec();
            index.extend(version.to_be_bytes());
            index.extend(2_u32.to_be_bytes());
            index.extend(entry(version, "a", 0));
            index.extend(entry(version, "b/c.txt", 1));
            index.extend(b"TREE\0\0\0\x02xx");
            index.extend([0; 20]);
            index
        })
        .into()
}

/// Rules and a path: a path that is named literally is ignored, and again when it is let in.
pub(crate) fn ignore_rules(data: &[u8]) {
    let mut all = texts(data);
    let (Some(rules), Some(path)) = (all.next(), all.next()) else { return };
    let Some(path) = fuzzing::path(path) else { return };
    let path = path.as_str();
    for (fold, directory) in [(false, false), (true, true)] {
        let said = fuzzing::ignores(rules, fold, path, directory);
        assert_eq!(fuzzing::ignores(rules, fold, path, directory), said);
        if path.contains(['\n', '\r']) {
            continue;
        }
        let mut literal = String::from("/");
        for c in path.chars() {
            if "\\*?[]{}!# ".contains(c) {
                literal.push('\\');
            }
            literal.push(c);
        }
        assert_eq!(
            fuzzing::ignores(&format!("{rules}\n{literal}"), fold, path, directory),
            Some(true),
            "{literal:?}"
        );
        assert_eq!(
            fuzzing::ignores(&format!("{rules}\n!{literal}"), fold, path, directory),
            Some(false),
            "!{literal:?}"
        );
    }
}

pub(crate) fn rule_seeds() -> Vec<Vec<u8>> {
    [
        ("*.log\n!keep.log\n", "a/keep.log"),
        ("/build/\n**/x/**\na/**/b\n", "build/x"),
        ("[[:digit:]-z]*\n\\#x\nx\\ \n{a,b}\n", "7x"),
        ("[!a-]b]\\\\\n[\n# c\n", "x]y"),
    ]
    .map(|(rules, path)| joined([rules, path]))
    .into()
}

/// Guarded paths that a user named: they may be refused, and what is usual stays guarded.
pub(crate) fn guarded(data: &[u8]) {
    let all: Vec<&str> = texts(data).take(8).collect();
    let Some((path, patterns)) = all.split_first() else { return };
    let Some(path) = fuzzing::path(path) else { return };
    if let Ok(guarded) = Guarded::new(patterns) {
        let _ = guarded.contains(&path);
        let mut more: Vec<&str> = patterns.to_vec();
        more.extend(GUARDED);
        if let Ok(both) = Guarded::new(&more) {
            let usual = Guarded::new(GUARDED).unwrap();
            assert!(both.contains(&path) || (!usual.contains(&path) && !guarded.contains(&path)));
        }
    }
}

pub(crate) fn guarded_seeds() -> Vec<Vec<u8>> {
    vec![
        joined([".envrc", "*.mk", "/Makefile"]),
        joined(["a/b", "[z-a]", "{a,b}/**", "scripts/hooks/"]),
    ]
}

/// Rows in any disorder: what is taken in is a tree all the same.
pub(crate) fn synced_rows(data: &[u8]) {
    // Few numbers, so that they meet: a parent, a node, a name, a kind.
    let row = |four: &[u8]| -> Option<(Place, Option<Row>)> {
        let [parent, node, name, kind] = *four else { return None };
        let name = Name::new(char::from(b'a' + name % 3).encode_utf8(&mut [0; 4])).ok()?;
        let place = Place { parent: NodeId(u64::from(parent % 5)), name };
        let what = match kind % 4 {
            0 => return Some((place, None)),
            1 => What::File(Content::empty()),
            _ => What::Directory,
        };
        let node = NodeId(u64::from(node % 5));
        Some((place, Some(Row { node, version: Seq(1), what, mode: 0o644, print: None })))
    };
    let mut halves = parts(data);
    let first = halves.next().unwrap_or_default();
    // A store has one row for each place.
    let kept = first.chunks(4).filter_map(row).filter_map(|(place, row)| Some((place, row?)));
    let kept: std::collections::BTreeMap<_, _> = kept.collect();
    let then = halves.next().unwrap_or_default().chunks(4).filter_map(row);
    let left = fuzzing::synced(kept.into_iter().collect(), then.collect());
    assert_eq!(fuzzing::synced(left.clone(), Vec::new()).len(), left.len());
}

pub(crate) fn row_seeds() -> Vec<Vec<u8>> {
    vec![
        joined([&[0, 1, 0, 2, 1, 2, 1, 2, 2, 3, 2, 1][..], &[0, 1, 1, 2, 2, 3, 0, 0]]),
        joined([&[0, 1, 0, 2, 2, 3, 1, 2, 3, 2, 0, 2][..], &[]]),
    ]
}

thread_local! {
    static PLACE: RefCell<Option<(tempfile::TempDir, PathBuf)>> = const { RefCell::new(None) };
}

fn database_path() -> PathBuf {
    PLACE.with_borrow_mut(|place| {
        let (_, path) = place.get_or_insert_with(|| {
            let memory = std::path::Path::new("/dev/shm");
            let dir =
                if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
            let dir = dir.unwrap();
            let path = dir.path().join("state.db");
            (dir, path)
        });
        path.clone()
    })
}

/// A state database that was damaged: it is read, or refused.
pub(crate) fn state_database(data: &[u8]) {
    let path = database_path();
    for end in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", path.display()));
    }
    std::fs::write(&path, data).unwrap();
    if let Ok(mut store) = SqliteStore::open(&path) {
        let _ = store.load();
    }
}

pub(crate) fn database_seeds() -> Vec<Vec<u8>> {
    let path = database_path();
    let mut store = SqliteStore::open(&path).unwrap();
    let place = Place { parent: NodeId::ROOT, name: Name::new("a").unwrap() };
    let what = What::File(Content::empty());
    let row = Row { node: NodeId(1), version: Seq(1), what, mode: 0o644, print: None };
    let facts = Record::Facts(Facts { epoch: Some("e".into()), ..Facts::default() });
    store.commit(&[facts], &[(place, Some(row))], true).unwrap();
    drop(store);
    // With the last connection SQLite writes its log into the database.
    vec![std::fs::read(&path).unwrap()]
}

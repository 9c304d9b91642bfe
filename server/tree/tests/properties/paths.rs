//! Paths and names: what is one, and how paths relate.

use std::collections::BTreeSet;

use proptest::prelude::*;
use s0_tree::{MAX_NAME_BYTES, MAX_PATH_BYTES, Name, TreePath};

use crate::times;

/// Texts that are nearly paths.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[aC:./\\\\\u{0} \u{e9}]{0,8}",
        "(a|b|\\.|\\.\\.|C:|ab|)(/(a|b|\\.|\\.\\.|C:x|ab|)){0,4}",
        (250..260_usize, 0..3_usize)
            .prop_map(|(long, short)| { format!("{}{}", "x".repeat(long), "/y".repeat(short)) }),
        (1360..1370_usize).prop_map(|parts| vec!["ab"; parts].join("/")),
    ]
}

fn path() -> impl Strategy<Value = TreePath> {
    let name = prop::sample::select(vec!["a", "a-", "a.b", "aa", "b", "a\u{e9}", "c:d"]);
    prop::collection::vec(name, 0..5).prop_map(|names| {
        names.iter().fold(TreePath::root(), |at, name| at.join(&Name::new(name).unwrap()))
    })
}

fn is_drive(text: &str) -> bool {
    let mut letters = text.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic()) && letters.next() == Some(':')
}

fn is_name(text: &str) -> bool {
    !["", ".", ".."].contains(&text) && text.len() <= MAX_NAME_BYTES && !text.contains(['/', '\0'])
}

proptest! {
    #![proptest_config(times(512))]

    #[test]
    fn what_is_a_path_or_a_name_is_what_the_rules_say(text in text()) {
        let parts_are_names = text.is_empty() || text.split('/').all(is_name);
        let good = parts_are_names && text.len() <= MAX_PATH_BYTES;
        let path = TreePath::new(&text);
        let asked_for = TreePath::of_request(&text).ok();
        prop_assert_eq!(asked_for, path.clone().ok().filter(|_| !is_drive(&text)));
        prop_assert_eq!(path.is_ok(), good, "{:?}", path);
        prop_assert_eq!(Name::new(&text).is_ok(), is_name(&text));
        let written = serde_json::to_string(&text).unwrap();
        prop_assert_eq!(serde_json::from_str::<TreePath>(&written).ok(), path.clone().ok());
        if let Ok(path) = path {
            prop_assert_eq!(path.as_str(), &*text);
            prop_assert_eq!(path.to_string(), text);
            prop_assert_eq!(serde_json::to_string(&path).unwrap(), written);
        }
    }

    #[test]
    fn a_path_is_its_names(path in path()) {
        let joined = path.names().fold(TreePath::root(), |at, name| at.join(&name));
        prop_assert_eq!(&joined, &path);
        prop_assert_eq!(path.names().count(), path.depth());
        prop_assert_eq!(path.is_root(), path.depth() == 0);
        prop_assert_eq!(path.name(), path.names().last());
        prop_assert_eq!(path.split().is_none(), path.is_root());
        let up = std::iter::successors(path.parent(), TreePath::parent);
        let mut above: Vec<_> = up.filter(|above| !above.is_root()).collect();
        above.reverse();
        prop_assert_eq!(path.ancestors().collect::<Vec<_>>(), above);
        if let Some((above, name)) = path.split() {
            prop_assert_eq!(above.join(&name), path);
        }
    }

    #[test]
    fn below_is_a_matter_of_names(a in path(), b in path(), c in path()) {
        let (names_a, names_b): (Vec<_>, Vec<_>) = (a.names().collect(), b.names().collect());
        prop_assert_eq!(a.is_at_or_below(&b), names_a.starts_with(&names_b));
        prop_assert!(a.is_at_or_below(&a) && a.is_at_or_below(&TreePath::root()));
        if a.is_at_or_below(&b) && b.is_at_or_below(&a) {
            prop_assert_eq!(&a, &b);
        }
        if a.is_at_or_below(&b) && b.is_at_or_below(&c) {
            prop_assert!(a.is_at_or_below(&c));
        }
    }

    #[test]
    fn rebasing_exchanges_the_leading_names(path in path(), from in path(), to in path()) {
        let names: Vec<_> = path.names().collect();
        let upper: Vec<_> = from.names().collect();
        let rest = names.strip_prefix(&upper[..]);
        let expected = rest.map(|rest| rest.iter().fold(to.clone(), |at, name| at.join(name)));
        let rebased = path.rebase(&from, &to);
        prop_assert_eq!(&rebased, &expected);
        if let Some(rebased) = rebased {
            prop_assert!(rebased.is_at_or_below(&to));
            prop_assert_eq!(rebased.rebase(&to, &from), Some(path));
        }
    }

    /// Whatever is put together, and is not too long, can be written down and read
    /// again.
    #[test]
    fn what_is_joined_is_a_path(path in path(), below in text()) {
        let joined = Name::new(&below).ok().map(|name| path.join(&name));
        let rebased = path.ancestors().next().and_then(|top| path.rebase(&top, &TreePath::root()));
        let made = joined.into_iter().chain(rebased);
        for made in made.filter(|made| made.as_str().len() <= MAX_PATH_BYTES) {
            let written = serde_json::to_string(&made).unwrap();
            prop_assert_eq!(serde_json::from_str::<TreePath>(&written).ok(), Some(made));
        }
    }

    /// Maps by path are searched by ranges: what is below a path follows it,
    /// among nothing but what its text begins.
    #[test]
    fn what_is_below_follows_in_order(
        paths in prop::collection::btree_set(path(), 0..20), at in path(),
    ) {
        let by_range: BTreeSet<_> = paths
            .range(at.clone()..)
            .take_while(|other| other.as_str().starts_with(at.as_str()))
            .filter(|other| other.is_at_or_below(&at))
            .collect();
        let by_looking: BTreeSet<_> = paths.iter().filter(|it| it.is_at_or_below(&at)).collect();
        prop_assert_eq!(by_range, by_looking);
        let in_order: Vec<_> = paths.iter().map(TreePath::as_str).collect();
        prop_assert!(in_order.is_sorted());
        for path in &paths {
            prop_assert!(path.ancestors().all(|above| above < *path), "parents come first");
        }
    }
}

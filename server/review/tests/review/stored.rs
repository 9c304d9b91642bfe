//! A review is stored and read again; what is no review is an error.

use proptest::prelude::*;
use s0_review::{FORMAT, Review};

use crate::times;
use crate::world::{World, binary, directory, path, text};

/// A review with something of every kind in it.
fn full() -> World {
    let mut world = World::of("a\r\nb\nc");
    world.agent("A", "f", Some(text("a\r\nx\nc\nd")));
    world.agent("B", "f", Some(text("a\r\ny\nc\nd")));
    world.user("f", Some(text("u\na\r\ny\nc\nd")));
    world.files.insert("p".into(), binary(1));
    world.agent("A", "p", Some(binary(2).with_mode(0o755)));
    world.user("p", Some(binary(3).with_mode(0o755)));
    world.files.insert("old".into(), text("o\n"));
    world.agent_renames("B", "old", "new");
    world.files.insert("gone".into(), directory());
    world.agent("B", "gone", None);
    world.agent("A", "kept", Some(text("k\n")));
    world.keep(world.version("kept"), None);
    world
}

#[test]
fn a_restart_between_a_revert_and_its_confirmation_changes_nothing() {
    // Only what was asked for says which of the equal lines goes.
    let mut world = World::of("x\nu\nx\n");
    world.agent("A", "f", Some(text("x\nx\nu\nx\nx\n")));
    let selection = s0_review::Selection::of(world.hunk("f", 0));
    let reversion = world.review.revert(&selection).unwrap();
    assert_eq!(reversion.actions.len(), 1);
    let stored = serde_json::to_string(&world.review).unwrap();
    world.review = serde_json::from_str(&stored).unwrap();
    world.user("f", Some(text("x\nu\nx\nx\n")));
    assert_eq!(world.hunks("f").len(), 1);
    world.revert(world.all(), None);
    assert_eq!(world.text("f"), "x\nu\nx\n");
}

#[test]
fn a_path_that_is_longer_than_what_is_accepted_today_is_read() {
    let mut world = World::default();
    let name = s0_tree::Name::new(&"n".repeat(250)).unwrap();
    let long = (0..20).fold(path("d"), |at, _| at.join(&name));
    let write = s0_review::Write {
        seq: s0_tree::Seq(1),
        actor: crate::world::agent("A"),
        time: s0_tree::Time(0),
    };
    let state = s0_review::State { what: s0_tree::New::Directory, mode: 0o755 };
    let seen = s0_review::Observed { state, bytes: None };
    world.review.applied(&long, None, Some(&seen), &write);
    world.review.renamed(&long, &long.join(&name), &seen, None, &write);
    let stored = serde_json::to_string(&world.review).unwrap();
    assert_eq!(serde_json::from_str::<Review>(&stored).unwrap(), world.review);
}

#[test]
fn what_is_no_review_of_this_format_is_an_error() {
    let stored = serde_json::to_string(&full().review).unwrap();
    let format = format!("\"format\":{FORMAT}");
    assert!(stored.contains(&format));
    let other = stored.replace(&format, "\"format\":99,\"news\":true");
    let error = serde_json::from_str::<Review>(&other).unwrap_err().to_string();
    assert!(error.contains("format 99"), "{error}");

    // A line of a write that is not there, a block without lines, a line in the
    // middle of the text that has no end.
    for (right, wrong) in [
        ("\"removed\":0", "\"removed\":77"),
        ("\"added\":1", "\"added\":4294967295"),
        ("\"text\":\"u\\na\\r\\n\"", "\"text\":\"\""),
        ("\"text\":\"u\\na\\r\\n\"", "\"text\":\"u\""),
    ] {
        assert!(stored.contains(right), "{right} is in {stored}");
        let damaged = stored.replace(right, wrong);
        assert!(serde_json::from_str::<Review>(&damaged).is_err(), "{wrong}");
    }
}

proptest! {
    #![proptest_config(times(256))]

    /// Damage is an error, or another review; it is never a panic, neither when it
    /// is read nor when it is used.
    #[test]
    fn damage_is_no_panic(at in 0..10_000_usize, byte in any::<u8>(), cut in any::<bool>()) {
        let mut stored = serde_json::to_vec(&full().review).unwrap();
        let at = at % stored.len();
        if cut {
            stored.truncate(at);
        } else {
            stored[at] = byte;
        }
        if let Ok(mut review) = serde_json::from_slice::<Review>(&stored) {
            let paths: Vec<_> = review.items().map(|item| item.path.clone()).collect();
            for path in paths {
                drop((review.hunks(&path), review.baseline(&path)));
            }
            let all = || s0_review::Part::All { version: s0_review::Version(0) };
            prop_assert!(review.revert(&s0_review::Selection::of(all())).is_err());
            let version = review.version();
            let all = s0_review::Selection::of(s0_review::Part::All { version });
            review.revert(&all).unwrap();
            review.keep(&all).unwrap();
        }
    }
}

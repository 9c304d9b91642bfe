//! Files, directories and links that come, go, move and change as a whole.

use s0_review::{Body, Change, Left, MAX_ITEMS, MAX_TEXT_BYTES, Why};

use crate::world::{Thing, World, binary, directory, path, text};

/// What is listed: path, what became of it, and what it was renamed from.
fn listed(world: &World) -> Vec<String> {
    let items = world.review.items().map(|item| {
        let change = match item.change {
            Change::Created => "created",
            Change::Removed => "removed",
            Change::Content => "changed",
            Change::Attributes => "same",
        };
        let mut line = format!("{} {change}", item.path);
        if let Some(from) = item.renamed_from {
            line += &format!(" from {from}");
        }
        if let Some((was, is)) = item.mode {
            line += &format!(" {was:o} {is:o}");
        }
        line + if item.edited { " edited" } else { "" }
    });
    items.collect()
}

#[test]
fn files_come_and_go() {
    let mut world = World::default();
    world.agent("A", "new", Some(text("a\n")));
    world.agent("A", "empty", Some(text("")));
    assert_eq!(listed(&world), ["empty created", "new created"]);
    let mut reverted = world.clone();
    reverted.revert(reverted.all(), None);
    assert!(reverted.files.is_empty() && listed(&reverted).is_empty());
    // An agent removes what it made: there is nothing to review.
    world.agent("A", "new", None);
    world.agent("B", "empty", None);
    assert_eq!(listed(&world), [""; 0]);

    let mut world = World::of("a\nb\n");
    world.agent("A", "f", None);
    assert_eq!(listed(&world), ["f removed"]);
    let mut reverted = world.clone();
    reverted.revert(reverted.version("f"), Some("A"));
    assert_eq!(reverted.text("f"), "a\nb\n");
    // It comes back as it was, or as another.
    let mut same = world.clone();
    same.agent("B", "f", Some(text("a\nb\n")));
    assert_eq!(listed(&same), [""; 0]);
    world.agent("B", "f", Some(text("a\nx\n")));
    assert_eq!(listed(&world), ["f changed"]);
    assert_eq!(world.shown("f"), [" a", "-b A", "+x B"]);
    world.keep(world.all(), None);
    assert_eq!(listed(&world), [""; 0]);
}

#[test]
fn the_removal_of_a_file_is_reverted_with_its_agents_lines() {
    let mut world = World::of("a\n");
    world.agent("A", "f", Some(text("a\nx\n")));
    world.agent("B", "f", None);
    let mut other = world.clone();
    world.revert(world.all(), Some("B"));
    assert_eq!(world.shown("f"), [" a", "+x A"]);
    other.revert(other.all(), None);
    assert_eq!(other.text("f"), "a\n");
}

#[test]
fn a_new_file_that_the_user_wrote_into_stays() {
    let mut world = World::default();
    world.agent("A", "n", Some(text("a\nb\n")));
    world.user("n", Some(text("a\nb\nmine\n")));
    world.revert(world.all(), None);
    assert_eq!(world.text("n"), "mine\n");
    assert_eq!(listed(&world), [""; 0]);
    // So does one of which a hunk was kept, and one of which another agent's lines
    // are left.
    let mut world = World::default();
    world.agent("A", "n", Some(text("a\n")));
    world.agent("B", "n", Some(text("a\nb\n")));
    world.revert(world.all(), Some("A"));
    assert_eq!(world.text("n"), "b\n");
    world.keep(world.hunk("n", 0), None);
    assert_eq!(listed(&world), [""; 0]);
    // And a sandbox that removes it removes the user's lines, which can come back.
    world.agent("A", "n", Some(text("b\nc\n")));
    world.agent("A", "n", None);
    world.revert(world.all(), None);
    assert_eq!(world.text("n"), "b\n");
}

#[test]
fn what_the_user_removes_is_settled() {
    let mut world = World::of("a\n");
    world.agent("A", "f", Some(text("x\n")));
    world.agent("A", "g", Some(text("x\n")));
    world.user("f", None);
    world.user("g", None);
    assert_eq!(listed(&world), [""; 0]);
}

#[test]
fn modes() {
    let mut world = World::of("a\n");
    world.agent("A", "f", Some(text("a\n").with_mode(0o755)));
    assert_eq!(listed(&world), ["f same 644 755"]);
    let mut both = world.clone();
    world.revert(world.version("f"), None);
    assert_eq!(world.files["f"].mode, 0o644);
    assert_eq!(listed(&world), [""; 0]);
    // With the content, in one write; by hunk, the mode stays.
    both.agent("A", "f", Some(text("a\nb\n").with_mode(0o755)));
    let mut by_hunk = both.clone();
    both.revert(both.version("f"), None);
    assert_eq!(both.files["f"], text("a\n"));
    by_hunk.revert(by_hunk.hunk("f", 0), None);
    assert_eq!(listed(&by_hunk), ["f same 644 755"]);
    // The user's choice of a mode stands.
    by_hunk.user("f", Some(text("a\n").with_mode(0o600)));
    assert_eq!(listed(&by_hunk), [""; 0]);
}

#[test]
fn what_is_no_text_is_reviewed_as_a_whole() {
    let link = Thing { body: Body::Symlink("target".into()), mode: 0o777 };
    for (before, after) in [
        (binary(1), binary(2)),
        (binary(1), text("a\n")),
        (text("a\nb\n"), binary(1)),
        (text("a\n"), link.clone()),
        (link, directory()),
        (text("a\n"), text(&"long\n".repeat(MAX_TEXT_BYTES / 5 + 1))),
    ] {
        let mut world = World::default();
        world.user("f", Some(before.clone()));
        world.agent("A", "f", Some(after.clone()));
        let item = world.review.items().next().unwrap();
        assert_eq!((item.change, item.hunks), (Change::Content, None), "{before:?} {after:?}");
        let mut other = world.clone();
        world.revert(world.all(), None);
        assert_eq!(world.files["f"], before);
        other.agent("B", "f", Some(before.clone()));
        assert_eq!(listed(&other), [""; 0]);
    }
    // A text that was no text for a while has hunks again.
    let mut world = World::of("a\nb\n");
    world.agent("A", "f", Some(text("a\nx\n")));
    world.agent("A", "f", Some(binary(1)));
    world.agent("B", "f", Some(text("a\nb\nc\n")));
    assert_eq!(world.shown("f"), [" a", " b", "+c B"]);
}

#[test]
fn a_whole_that_the_user_changed_is_not_reverted() {
    let mut world = World::default();
    world.files.insert("p".into(), binary(1));
    world.agent("A", "p", Some(binary(2)));
    world.user("p", Some(binary(3)));
    assert_eq!(listed(&world), ["p changed edited"]);
    let left = [Left { path: path("p"), why: Why::EditedSince }];
    assert_eq!(world.revert(world.all(), None), left);
    assert_eq!(world.files["p"], binary(3));
    let mut kept = world.clone();
    kept.keep(kept.all(), None);
    assert_eq!(listed(&kept), [""; 0]);
    // What an agent writes over it is reverted to the user's.
    let mut again = world.clone();
    again.agent("A", "p", Some(binary(4)));
    again.revert(again.all(), None);
    assert_eq!(again.files["p"], binary(3));
    let mut removed = world.clone();
    removed.agent("A", "p", None);
    removed.revert(removed.all(), None);
    assert_eq!(removed.files["p"], binary(3));
    // The user brings back what was there.
    world.user("p", Some(binary(1)));
    assert_eq!(listed(&world), [""; 0]);
}

#[test]
fn renames() {
    let mut world = World::of("a\nb\n");
    world.agent_renames("A", "f", "g");
    assert_eq!(listed(&world), ["g same from f"]);
    world.agent("B", "g", Some(text("a\nx\n")));
    assert_eq!(listed(&world), ["g changed from f"]);
    assert_eq!(world.shown("g"), [" a", "-b B", "+x B"]);
    world.agent_renames("A", "g", "h");
    assert_eq!(listed(&world), ["h changed from f"]);
    let mut by_agent = world.clone();
    by_agent.revert(by_agent.all(), Some("A"));
    assert_eq!(listed(&by_agent), ["f changed"]);
    let mut back = world.clone();
    back.agent_renames("B", "h", "f");
    assert_eq!(listed(&back), ["f changed"]);
    let mut removed = world.clone();
    removed.agent("B", "h", None);
    assert_eq!(listed(&removed), ["f removed"]);
    // The user's name stands.
    world.user_renames("h", "mine");
    assert_eq!(listed(&world), ["mine changed"]);
    // What is new has no earlier name.
    world.agent("A", "new", Some(text("n\n")));
    world.agent_renames("A", "new", "newer");
    assert_eq!(listed(&world), ["mine changed", "newer created"]);
    world.revert(world.all(), None);
    assert_eq!(world.files.keys().collect::<Vec<_>>(), ["mine"]);
    assert_eq!(world.text("mine"), "a\nb\n");
}

#[test]
fn programs_save_in_strange_ways() {
    // A temporary file that is renamed over the old one.
    let mut world = World::of("a\nb\n");
    world.agent("A", "f.tmp", Some(text("a\nx\n")));
    world.agent_renames("A", "f.tmp", "f");
    assert_eq!(listed(&world), ["f changed"]);
    assert_eq!(world.shown("f"), [" a", "-b A", "+x A"]);
    // The old one is removed first.
    let mut world = World::of("a\nb\n");
    world.agent("A", "f.tmp", Some(text("a\nx\n")));
    world.agent("A", "f", None);
    world.agent_renames("A", "f.tmp", "f");
    assert_eq!(world.shown("f"), [" a", "-b A", "+x A"]);
    // The old one is renamed out of the way, and removed when the new one is there.
    let mut world = World::of("a\nb\n");
    world.agent_renames("A", "f", "f~");
    world.agent("A", "f", Some(text("a\nx\n")));
    assert_eq!(listed(&world), ["f created", "f~ same from f"]);
    let mut both = world.clone();
    both.revert(both.all(), None);
    assert_eq!(both.files, World::of("a\nb\n").files);
    world.agent("A", "f~", None);
    assert_eq!(listed(&world), ["f changed"]);
    assert_eq!(world.shown("f"), [" a", "-b A", "+x A"]);
    // A user's editor does it.
    world.user("f.tmp", Some(text("a\nx\nu\n")));
    world.user_renames("f.tmp", "f");
    assert_eq!(world.shown("f"), [" a", "-b A", "+x A", " u"]);
}

#[test]
fn directories() {
    let mut world = World::default();
    for (at, thing) in [
        ("d", directory()),
        ("d/a", text("a\n")),
        ("d/b", text("b\n")),
        ("d/c", binary(1)),
        ("d-", text("other\n")),
        ("gone", directory()),
        ("gone/x", text("x\n")),
    ] {
        world.files.insert(at.into(), thing);
    }
    let reviewed = world.files.clone();
    world.agent("A", "d/a", Some(text("a\nmore\n")));
    world.agent("A", "d-", Some(text("other\nmore\n")));
    world.agent("A", "d/b", None);
    world.agent_renames("A", "d/c", "d/e");
    world.agent_renames("A", "d", "z");
    world.agent("A", "gone/x", None);
    world.agent("A", "gone", None);
    world.agent("B", "new", Some(directory()));
    world.agent("B", "new/deep", Some(directory()));
    world.agent("B", "new/deep/file", Some(text("n\n")));
    world.agent_renames("B", "z/e", "new/e");
    assert_eq!(
        listed(&world),
        [
            "d- changed",
            "gone removed",
            "gone/x removed",
            "new created",
            "new/deep created",
            "new/deep/file created",
            "new/e same from z/c",
            "z same from d",
            "z/a changed",
            "z/b removed",
        ]
    );
    let mut partly = world.clone();
    assert_eq!(world.revert(world.all(), None), []);
    assert_eq!(world.files, reviewed);
    assert_eq!(listed(&world), [""; 0]);
    // The user renames the directory; what was in it goes back into it.
    partly.user_renames("z", "mine");
    partly.revert(partly.version("new/e"), None);
    partly.revert(partly.version("mine/b"), None);
    assert!(partly.files.contains_key("mine/c") && partly.files.contains_key("mine/b"));
}

#[test]
fn names_that_were_exchanged_are_left() {
    let mut world = World::of("f\n");
    world.files.insert("g".into(), text("g\n"));
    world.files.insert("chain".into(), text("chain\n"));
    world.agent_renames("A", "f", "t");
    world.agent_renames("A", "g", "f");
    world.agent_renames("A", "t", "g");
    world.agent_renames("A", "chain", "x");
    let left = world.revert(world.all(), None);
    assert_eq!(left, ["f", "g"].map(|at| Left { path: path(at), why: Why::Circle }));
    assert_eq!(listed(&world), ["f same from g", "g same from f"]);
    world.keep(world.all(), None);
    assert_eq!(listed(&world), [""; 0]);
}

#[test]
fn what_was_not_told_is_the_users() {
    // The sidecar was away while the user wrote.
    let mut world = World::of("a\nb\n");
    world.agent("A", "f", Some(text("a\nx\n")));
    world.files.insert("f".into(), text("u\na\nx\n"));
    world.agent("A", "f", Some(text("u\na\nx\ny\n")));
    assert_eq!(world.shown("f"), [" u", " a", "-b A", "+x A", "+y A"]);
    // It removed the file, and the agent made another one.
    world.files.remove("f");
    world.agent("A", "f", Some(text("n\n")));
    assert_eq!(listed(&world), ["f created"]);
}

#[test]
fn too_many_items_are_counted() {
    let mut world = World::default();
    let write = |at: usize| s0_review::Write {
        seq: s0_tree::Seq(at as u64 + 1),
        actor: crate::world::agent("A"),
        time: s0_tree::Time(0),
    };
    let state = s0_review::State { what: s0_tree::New::Fifo, mode: 0o644 };
    let fifo = s0_review::Observed { state, bytes: None };
    for at in 0..MAX_ITEMS + 3 {
        world.review.applied(&path(&format!("p{at}")), None, Some(&fifo), &write(at));
    }
    assert_eq!((world.review.items().count(), world.review.unlisted()), (MAX_ITEMS, 3));
    let all = s0_review::Selection::of(world.all());
    assert_eq!(world.review.keep(&all), Ok(vec![]));
    assert_eq!((world.review.items().count(), world.review.unlisted()), (0, 0));
}

#[test]
fn too_much_text_is_reviewed_as_a_whole() {
    let mut world = World::default();
    let long = "x".repeat(MAX_TEXT_BYTES - 2);
    let state = |text: &str| s0_review::State {
        what: s0_tree::New::File { content: s0_tree::Content::of(text.as_bytes()) },
        mode: 0o644,
    };
    let (was, is) = (format!("{long}\n"), format!("{long}y\n"));
    let observed =
        |text| s0_review::Observed { state: state(text), bytes: Some(str::as_bytes(text)) };
    let (was, is) = (observed(&was), observed(&is));
    let write = s0_review::Write {
        seq: s0_tree::Seq(1),
        actor: crate::world::agent("A"),
        time: s0_tree::Time(0),
    };
    for at in 0..40 {
        world.review.applied(&path(&format!("p{at:02}")), Some(&was), Some(&is), &write);
    }
    let whole = world.review.items().filter(|item| item.hunks.is_none()).count();
    assert_eq!((world.review.items().count(), whole), (40, 24));
}

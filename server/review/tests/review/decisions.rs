//! Keep and Revert by hunk, file, agent and all.

use s0_review::{Action, Body, Left, Part, Refused, Selection, Why};

use crate::world::{World, agent, binary, name_of, path, text};

/// A file in which A and B wrote, in one hunk and apart.
fn two_agents() -> World {
    let mut world = World::of("a\nb\nc\nd\n");
    world.agent("A", "f", Some(text("a\nA1\nc\nd\nA2\n")));
    world.agent("B", "f", Some(text("a\nA1\nB1\nc\nB2\nA2\n")));
    let shown = [" a", "-b A", "+A1 A", "+B1 B", " c", "-d B", "+B2 B", "+A2 A"];
    assert_eq!(world.shown("f"), shown);
    world
}

#[test]
fn one_hunk_is_kept_and_the_other_reverted() {
    let mut world = two_agents();
    world.keep(world.hunk("f", 0), None);
    assert_eq!(world.shown("f"), [" a", " A1", " B1", " c", "-d B", "+B2 B", "+A2 A"]);
    world.revert(world.hunk("f", 0), None);
    assert_eq!(world.text("f"), "a\nA1\nB1\nc\nd\n");
    assert_eq!(world.review.items().count(), 0);

    let mut world = two_agents();
    world.revert(world.hunk("f", 1), None);
    assert_eq!(world.shown("f"), [" a", "-b A", "+A1 A", "+B1 B", " c", " d"]);
    world.revert(world.hunk("f", 0), Some("B"));
    assert_eq!(world.shown("f"), [" a", "-b A", "+A1 A", " c", " d"]);
}

#[test]
fn by_agent_it_is_exactly_the_lines_of_that_agent() {
    let mut world = two_agents();
    assert_eq!(world.revert(world.all(), Some("B")), []);
    assert_eq!(world.shown("f"), [" a", "-b A", "+A1 A", " c", " d", "+A2 A"]);

    let mut world = two_agents();
    world.keep(world.version("f"), Some("A"));
    assert_eq!(world.shown("f"), [" a", " A1", "+B1 B", " c", "-d B", "+B2 B", " A2"]);
    let kept: Vec<_> = world.review.reviewed().map(|it| name_of(&it.write)).collect();
    assert_eq!(kept, ["A"]);
    world.revert(world.version("f"), None);
    assert_eq!(world.text("f"), "a\nA1\nc\nd\nA2\n");
}

#[test]
fn an_agent_that_wrote_over_another_is_undone_by_itself() {
    let over = || {
        let mut world = World::of("a\n");
        world.agent("A", "f", Some(text("A\n")));
        world.agent("B", "f", Some(text("B\n")));
        assert_eq!(world.shown("f"), ["-a A", "+B B"]);
        world
    };
    let mut world = over();
    world.revert(world.all(), Some("B"));
    assert_eq!(world.shown("f"), ["-a A", "+A A"]);
    let mut world = over();
    world.keep(world.all(), Some("A"));
    assert_eq!(world.shown("f"), ["-A B", "+B B"]);
    let mut world = over();
    world.revert(world.all(), None);
    assert_eq!(world.text("f"), "a\n");
}

#[test]
fn what_another_agent_removed_comes_back_when_its_hunk_was_redrawn() {
    // B puts `y` back where A has `x2`.
    let mut world = World::of("x\ny\n");
    world.agent("A", "f", Some(text("x1\nx2\n")));
    world.agent("B", "f", Some(text("x1\ny\n")));
    assert_eq!(world.shown("f"), ["-x A", "+x1 A", " y"]);
    world.revert(world.all(), Some("B"));
    assert_eq!(world.shown("f"), ["-x A", "+x1 A", "+x2 A", " y"]);
}

#[test]
fn an_agents_earlier_drafts_are_not_among_the_writes() {
    let mut world = World::of("a\n");
    for draft in ["a\n1\n", "a\n2\n", "a\n3\n"] {
        world.agent("A", "f", Some(text(draft)));
    }
    let seqs: Vec<_> = world.hunks("f")[0].writes.iter().map(|write| write.seq.0).collect();
    assert_eq!(seqs, [3]);
}

#[test]
fn a_revert_keeps_what_the_user_wrote() {
    let mut world = World::of("a\nb\nc\n");
    world.agent("A", "f", Some(text("a\nx\ny\nc\n")));
    world.user("f", Some(text("a\nx, better\ny\nc\nu\n")));
    world.revert(world.all(), None);
    assert_eq!(world.text("f"), "a\nb\nx, better\nc\nu\n");
}

#[test]
fn what_has_changed_since_is_refused() {
    let mut world = two_agents();
    let parts = [world.hunk("f", 1), world.version("f"), world.all()];
    world.agent("A", "f", Some(text("a\nA1\nB1\nc\nB2\nA2\nA3\n")));
    let now = world.review.version();
    let before = world.review.clone();
    for part in parts {
        let selection = Selection::of(part);
        assert_eq!(world.review.keep(&selection), Err(Refused::Stale { now }));
        assert_eq!(world.review.revert(&selection), Err(Refused::Stale { now }));
    }
    // A hunk that never was, and a path that is not under review.
    let selection = Selection::of(world.hunk("f", 7));
    assert_eq!(world.review.keep(&selection), Err(Refused::Stale { now }));
    let selection = Selection::of(Part::File { path: path("g"), version: now });
    assert_eq!(world.review.keep(&selection), Err(Refused::NothingHere { path: path("g") }));
    assert_eq!(world.review, before);
}

#[test]
fn a_version_is_never_used_again() {
    let mut world = World::of("a\n");
    world.agent("A", "f", Some(text("a\nx\n")));
    let (hunk, file) = (world.hunk("f", 0), world.version("f"));
    world.keep(world.all(), None);
    world.agent("A", "f", Some(text("a\nx\ny\n")));
    for part in [hunk, file] {
        let refused = world.review.keep(&Selection::of(part));
        assert!(matches!(refused, Err(Refused::Stale { .. })), "{refused:?}");
    }
}

#[test]
fn a_revert_that_is_not_done_leaves_all_as_it_is() {
    let mut world = two_agents();
    let selection = Selection::of(world.all());
    let reversion = world.review.revert(&selection).unwrap();
    let [Action::Write { body: Body::Text(reverted), .. }] = &reversion.actions[..] else {
        panic!("{reversion:?}");
    };
    assert_eq!(reverted, "a\nb\nc\nd\n");
    // The agent was faster.
    world.agent("A", "f", Some(text("a\nA1\nB1\nc\nB2\nA2\nA3\n")));
    let shown = [" a", "-b A", "+A1 A", "+B1 B", " c", "-d B", "+B2 B", "+A2 A", "+A3 A"];
    assert_eq!(world.shown("f"), shown);
}

#[test]
fn a_reverted_line_among_equal_ones_is_that_line() {
    // To compare the texts would find the first `x` gone, which was reviewed.
    let mut world = World::of("x\na\n");
    world.agent("A", "f", Some(text("x\nx\nx\na\n")));
    world.user("f", Some(text("x\nx\nu\nx\na\n")));
    assert_eq!(world.hunks("f").len(), 2);
    for _ in 0..2 {
        world.revert(world.hunk("f", 0), None);
    }
    assert_eq!(world.text("f"), "x\nu\na\n");
    assert_eq!(world.review.items().count(), 0);
}

#[test]
fn what_several_agents_changed_as_a_whole_is_not_told_apart() {
    let mut world = World::default();
    world.files.insert("p".into(), binary(1));
    world.agent("A", "p", Some(binary(2)));
    world.agent("B", "p", Some(binary(3)));
    let left = [Left { path: path("p"), why: Why::OtherAgents }];
    assert_eq!(world.revert(world.all(), Some("A")), left);
    assert_eq!(world.keep(world.all(), Some("B")), left);
    assert_eq!(world.revert(world.all(), Some("C")), []);
    assert_eq!(world.files["p"], binary(3));
    assert_eq!(world.revert(world.all(), None), []);
    assert_eq!(world.files["p"], binary(1));
}

#[test]
fn what_was_kept_is_remembered_newest_first() {
    let mut world = two_agents();
    world.agent("B", "g", Some(text("new\n")));
    world.keep(world.version("f"), None);
    world.keep(world.version("g"), None);
    let kept = |world: &World| -> Vec<String> {
        let reviewed = world.review.reviewed();
        reviewed.map(|it| format!("{} {}", it.path, name_of(&it.write))).collect()
    };
    assert_eq!(kept(&world), ["g B", "f B", "f A"]);
    for round in 0..500 {
        world.agent("C", "h", Some(text(&format!("{round}\n"))));
        world.keep(world.all(), None);
    }
    assert_eq!(kept(&world), ["h C", "g B", "f B", "f A"]);
    assert_eq!(world.review.reviewed().next().unwrap().write.actor.sandbox, agent("C").sandbox);
}

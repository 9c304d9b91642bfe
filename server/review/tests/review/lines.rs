//! Whose line is whose: the cases that a user would think of.

use s0_review::{Observed, State};
use s0_tree::{Content, New};

use crate::world::{World, path, text};

/// Who makes the file into which text; `me` is the user.
type Steps<'a> = &'a [(&'a str, &'a str)];

fn after(content: &str, steps: Steps<'_>) -> World {
    let mut world = World::of(content);
    for (who, content) in steps {
        match *who {
            "me" => world.user("f", Some(text(content))),
            name => world.agent(name, "f", Some(text(content))),
        }
    }
    world
}

/// Lines are written as words here.
fn lines(words: &str) -> String {
    words.split_whitespace().map(|word| format!("{word}\n")).collect()
}

#[test]
fn lines_belong_to_who_wrote_them() {
    let table: &[(&str, Steps<'_>, &[&str])] = &[
        // One agent adds, changes, removes.
        ("a b", &[("A", "a x b")], &[" a", "+x A", " b"]),
        ("a b c", &[("A", "a x c")], &[" a", "-b A", "+x A", " c"]),
        ("a b c", &[("A", "a c")], &[" a", "-b A", " c"]),
        ("a b", &[("A", "")], &["-a A", "-b A"]),
        ("", &[("A", "a b")], &["+a A", "+b A"]),
        ("a", &[("A", "a x"), ("A", "a y z")], &[" a", "+y A", "+z A"]),
        // The agent takes it back, at once or in steps, or moves it there and back.
        ("a b c", &[("A", "a x c"), ("A", "a b c")], &[" a", " b", " c"]),
        ("a b", &[("A", ""), ("A", "a"), ("A", "a b")], &[" a", " b"]),
        ("a b c d", &[("A", "c a b d"), ("A", "a b c d")], &[" a", " b", " c", " d"]),
        (
            "a b c d e",
            &[("A", "c a b d x"), ("A", "a b c d x")],
            &[" a", " b", " c", " d", "-e A", "+x A"],
        ),
        // The user, far from it, beside it, and in the middle of it.
        ("a b c", &[("A", "a x c"), ("me", "u a x c")], &[" u", " a", "-b A", "+x A", " c"]),
        ("a b c", &[("A", "a x c"), ("me", "a u x c")], &[" a", " u", "-b A", "+x A", " c"]),
        ("a b c", &[("A", "a x c"), ("me", "a x u c")], &[" a", "-b A", "+x A", " u", " c"]),
        ("a b c", &[("A", "a x c"), ("me", "u x c")], &[" u", "-b A", "+x A", " c"]),
        ("a c", &[("A", "a x y c"), ("me", "a x u y c")], &[" a", "+x A", " u", "+y A", " c"]),
        ("a c", &[("A", "a x y c"), ("me", "a x c")], &[" a", "+x A", " c"]),
        ("a c", &[("A", "a x y c"), ("me", "a c")], &[" a", " c"]),
        ("a b c", &[("A", "a x c"), ("me", "a c")], &[" a", "-b A", " c"]),
        // The user rewrites an agent's line: it is the user's, and what the agent
        // removed can still be brought back.
        ("a b c", &[("A", "a x c"), ("me", "a u c")], &[" a", "-b A", " u", " c"]),
        ("a b c", &[("A", "a x y c"), ("me", "a x u c")], &[" a", "-b A", "+x A", " u", " c"]),
        // The user takes back what the agent did.
        ("a b c", &[("A", "a x c"), ("me", "a b c")], &[" a", " b", " c"]),
        ("a b c d", &[("A", "a"), ("me", "a c")], &[" a", "-b A", " c", "-d A"]),
        // An agent changes what the user wrote.
        (
            "a b",
            &[("A", "x b"), ("me", "x b u"), ("A", "x b v")],
            &["-a A", "+x A", " b", "-u A", "+v A"],
        ),
        // Two agents, apart, beside each other, and one over the other.
        ("a b c", &[("A", "x b c"), ("B", "x b y")], &["-a A", "+x A", " b", "-c B", "+y B"]),
        ("a", &[("A", "a x"), ("B", "a x y"), ("A", "a x y z")], &[" a", "+x A", "+y B", "+z A"]),
        ("a", &[("A", "a x y z"), ("B", "a x w z")], &[" a", "+x A", "+w B", "+z A"]),
        ("a b c", &[("A", "a x c"), ("B", "a y c")], &[" a", "-b A", "+y B", " c"]),
        ("a b c", &[("A", "a x c"), ("B", "a b c")], &[" a", " b", " c"]),
        // B takes its own change of A's line back: the line is A's.
        ("a b c", &[("A", "a x c"), ("B", "a y c"), ("B", "a x c")], &[" a", "-b A", "+x A", " c"]),
        // The user brings back what A added and B removed: it is the user's.
        ("a", &[("A", "a x"), ("B", "a y"), ("me", "a x y")], &[" a", " x", "+y B"]),
        // What A added and B removed is nothing to see.
        ("a", &[("A", "a x"), ("B", "a")], &[" a"]),
    ];
    for (content, steps, wanted) in table {
        let steps: Vec<_> = steps.iter().map(|(who, words)| (*who, lines(words))).collect();
        let steps: Vec<_> = steps.iter().map(|(who, text)| (*who, text.as_str())).collect();
        let world = after(&lines(content), &steps);
        assert_eq!(world.shown("f"), *wanted, "{content} {steps:?}");
    }
}

#[test]
fn what_is_as_it_was_reviewed_is_settled_however_it_came_to_that() {
    // What the user adds is reviewed, so that here both texts are the same, though
    // none of the edits undid another.
    let steps = [("A", "a\na\nb\n}\nb\n"), ("me", "a\na\nb\nb\n}\n")];
    let world = after("a\na\n}\nb\nb", &steps);
    assert_eq!(world.review.items().count(), 0);
}

#[test]
fn bytes_are_kept() {
    // What an agent makes of a text, and what is shown.
    let table: &[(&str, &str, &[&str])] = &[
        ("a\r\nb\r\n", "a\r\nx\r\n", &[" a", "-b A", "+x A"]),
        ("a\r\nb\r\n", "a\nb\r\n", &["-a A", "+a A", " b"]),
        ("a\r\nb\nc", "a\r\nb\nc\n", &[" a", " b", "-c A", "+c A"]),
        ("a\nb", "a\nb\nc", &[" a", "-b A", "+b A", "+c A"]),
        ("a\nb\n", "a\nb", &[" a", "-b A", "+b A"]),
        ("\u{feff}a\n", "a\n", &["-\u{feff}a A", "+a A"]),
        ("a\n\n\n", "a\n\n", &[" a", " ", "- A"]),
        ("a\rb", "a\rc", &["-a\rb A", "+a\rc A"]),
        ("", "\n", &["+ A"]),
        ("a", "", &["-a A"]),
    ];
    for (before, written, wanted) in table {
        let mut world = after(before, &[("A", written)]);
        assert_eq!(world.shown("f"), *wanted, "{before:?} {written:?}");
        let mut kept = world.clone();
        world.revert(world.version("f"), None);
        assert_eq!(world.text("f"), *before);
        assert_eq!(world.review.items().count(), 0);
        kept.keep(kept.version("f"), None);
        assert_eq!((kept.text("f"), kept.review.items().count()), (*written, 0));
    }
}

#[test]
fn lines_do_not_grow_together_where_a_last_one_had_no_end() {
    // The agent adds at the end, the user after that.
    for (end, reviewed) in [("\n", "a\nb"), ("\r\n", "a\r\nb")] {
        let with_end = |words: &str| words.replace(' ', end);
        let mut world = after(reviewed, &[("A", &with_end("a b c"))]);
        world.user("f", Some(text(&with_end("a b c u"))));
        assert_eq!(world.shown("f"), [" a", " b", "+c A", " u"]);
        world.revert(world.version("f"), None);
        assert_eq!(world.text("f"), with_end("a b u"));
        assert_eq!(world.review.items().count(), 0);
    }
    // The user has all line ends made others.
    let ends = [("A", "a\nx\n"), ("me", "a\r\nx\r\n"), ("B", "a\r\nx\r\ny\r\n")];
    assert_eq!(after("a\n", &ends).shown("f"), [" a", "+x A", "+y B"]);
    // The agent removes the end of the last line and the line after it; the user
    // writes on.
    let mut world = after("a\nb\n", &[("A", "x"), ("me", "x\nu")]);
    world.revert(world.version("f"), None);
    assert!(world.text("f").ends_with('u'), "{:?}", world.text("f"));
    for line in ["a\n", "b\n"] {
        assert!(world.text("f").contains(line), "{:?}", world.text("f"));
    }
    // A line that ends nowhere is reviewed, and one stands after it only there.
    let mut world = after("a\nb\n", &[("A", "a\n"), ("me", "a")]);
    world.revert(world.version("f"), None);
    assert_eq!(world.text("f"), "a\nb\n");
}

#[test]
fn one_line_of_a_long_file_is_taken_in_at_once() {
    let long = |changed: &str| -> String {
        let line = |at| if at == 50_000 { format!("{changed}\n") } else { format!("l {at}\n") };
        (0..100_000).map(line).collect()
    };
    let mut world = after(&long("a"), &[("A", &long("b"))]);
    let texts: Vec<String> = (0..10).map(|round| long(&format!("c {round}"))).collect();
    let state = |text: &String| State {
        what: New::File { content: Content::of(text.as_bytes()) },
        mode: 0o644,
    };
    let now = |text| Observed { state: state(text), bytes: Some(text.as_bytes()) };
    let observed: Vec<_> = texts.iter().map(now).collect();
    let begun = std::time::Instant::now();
    observed.iter().for_each(|now| world.review.edited(&path("f"), Some(now)));
    // Some milliseconds each; the limit is for machines that do much else.
    assert!(begun.elapsed() < std::time::Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(world.hunks("f").len(), 1);
}

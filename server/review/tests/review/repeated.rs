//! What holds for any texts, also where lines are like others and nobody can say
//! which of them went.

use proptest::prelude::*;
use s0_review::Body;

use crate::times;
use crate::world::{World, path, text};

#[derive(Debug, Clone)]
enum Step {
    Agent(&'static str, Vec<Splice>),
    User(Vec<Splice>),
    /// Adds a line that is like no other.
    Mine(usize),
    Keep(Option<&'static str>),
    KeepHunk(usize),
    Revert(Option<&'static str>),
    RevertHunk(usize, Option<&'static str>),
}

/// A place in thousandths of the text, how many lines go, and which come.
type Splice = (usize, usize, Vec<&'static str>);

fn splices() -> impl Strategy<Value = Vec<Splice>> {
    // Few lines, of which some have another end, or none.
    let line = prop_oneof![
        8 => prop::sample::select(vec!["a\n", "b\n", "}\n", "\n"]),
        1 => prop::sample::select(vec!["a\r\n", "b"]),
    ];
    let splice = (0..1000_usize, 0..4_usize, prop::collection::vec(line, 0..4));
    prop::collection::vec(splice, 1..4)
}

fn agents() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("A"), Just("B")]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (agents(), splices()).prop_map(|(who, splices)| Step::Agent(who, splices)),
        2 => splices().prop_map(Step::User),
        2 => (0..1000_usize).prop_map(Step::Mine),
        1 => prop::option::of(agents()).prop_map(Step::Keep),
        1 => (0..1000_usize).prop_map(Step::KeepHunk),
        1 => prop::option::of(agents()).prop_map(Step::Revert),
        2 => (0..1000_usize, prop::option::of(agents()))
            .prop_map(|(at, who)| Step::RevertHunk(at, who)),
    ]
}

fn spliced(before: &str, splices: &[Splice]) -> String {
    let mut lines: Vec<&str> = before.split_inclusive('\n').collect();
    for (at, remove, insert) in splices {
        let start = at * (lines.len() + 1) / 1000;
        let end = (start + remove).min(lines.len());
        lines.splice(start..end, insert.iter().copied());
    }
    lines.concat()
}

fn with_line(before: &str, at: usize, line: &str) -> String {
    let mut lines: Vec<&str> = before.split_inclusive('\n').collect();
    lines.insert(at * (lines.len() + 1) / 1000, line);
    let last = lines.len() - 1;
    let end = |(at, line): (usize, &str)| match at < last && !line.ends_with('\n') {
        true => format!("{line}\n"),
        false => line.into(),
    };
    lines.into_iter().enumerate().map(end).collect()
}

/// What each hunk replaces by what, and whose it is.
fn hunks(world: &World) -> Vec<(Vec<String>, Vec<String>, Vec<u64>)> {
    let Some(Body::Text(reviewed)) = world.review.baseline(&path("f")) else { return Vec::new() };
    let lines = |text: &str, range: std::ops::Range<usize>| -> Vec<String> {
        text.split_inclusive('\n').skip(range.start).take(range.len()).map(String::from).collect()
    };
    let hunks = world.hunks("f").into_iter().map(|hunk| {
        let writes = hunk.writes.iter().map(|write| write.seq.0).collect();
        (lines(&reviewed, hunk.reviewed), lines(world.text("f"), hunk.current), writes)
    });
    hunks.collect()
}

/// The user's lines. One that an agent removed and added elsewhere is the agent's.
fn mine(world: &World) -> Vec<String> {
    let mut shown = world.shown("f");
    shown.retain(|line| line.starts_with(" mine"));
    shown
}

/// Whether the last line has an end. Otherwise a revert of a part can give it one,
/// if there are lines after it.
fn is_whole(text: &str) -> bool {
    text.is_empty() || text.ends_with('\n')
}

fn run(start: &str, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut world = World::of(start);
    let mut reviewed = world.text("f").to_string();
    let mut is_untouched = true;
    for (number, step) in steps.iter().enumerate() {
        let before = world.text("f").to_string();
        let were = hunks(&world);
        let lines = mine(&world);
        match step {
            Step::Agent(who, splices) => {
                world.agent(who, "f", Some(text(&spliced(&before, splices))));
            }
            Step::User(splices) => {
                is_untouched = false;
                world.user("f", Some(text(&spliced(&before, splices))));
            }
            Step::Mine(at) => {
                is_untouched = false;
                let line = format!("mine {number}\n");
                world.user("f", Some(text(&with_line(&before, *at, &line))));
            }
            _ if were.is_empty() => {}
            Step::Keep(who) => {
                is_untouched = false;
                world.keep(world.all(), *who);
                prop_assert_eq!(world.text("f"), &before);
                if who.is_none() {
                    prop_assert_eq!(world.review.items().count(), 0);
                    reviewed = before;
                    is_untouched = true;
                }
            }
            Step::KeepHunk(at) => {
                is_untouched = false;
                let number = at * were.len() / 1000;
                world.keep(world.hunk("f", number), None);
                prop_assert_eq!(world.text("f"), &before);
                others_stay(&world, were, number)?;
            }
            Step::Revert(who) => {
                world.revert(world.all(), *who);
                let after = mine(&world);
                prop_assert!(lines.iter().all(|line| after.contains(line)), "{:?}", after);
                if who.is_none() {
                    prop_assert_eq!(world.review.items().count(), 0);
                    if is_untouched {
                        prop_assert_eq!(world.text("f"), &reviewed);
                    }
                    reviewed = world.text("f").to_string();
                    is_untouched = true;
                }
                is_untouched &= is_whole(&reviewed);
            }
            Step::RevertHunk(at, who) => {
                let number = at * were.len() / 1000;
                world.revert(world.hunk("f", number), *who);
                let after = mine(&world);
                prop_assert!(lines.iter().all(|line| after.contains(line)), "{:?}", after);
                if who.is_none() {
                    others_stay(&world, were, number)?;
                }
                is_untouched &= is_whole(&reviewed);
            }
        }
        if is_untouched && world.review.items().count() == 0 {
            prop_assert_eq!(world.text("f"), &reviewed, "all that differs is listed");
        }
    }
    Ok(())
}

/// All hunks but one are still there, unless the texts are now the same.
fn others_stay(
    world: &World,
    mut were: Vec<(Vec<String>, Vec<String>, Vec<u64>)>,
    number: usize,
) -> Result<(), TestCaseError> {
    were.remove(number);
    if world.review.items().count() > 0 {
        prop_assert_eq!(hunks(world), were);
    }
    Ok(())
}

proptest! {
    #![proptest_config(times(1024))]

    #[test]
    fn nothing_is_lost_and_nothing_is_made_up(
        start in splices(),
        steps in prop::collection::vec(step(), 1..20),
    ) {
        run(&spliced("", &start), &steps)?;
    }

    #[test]
    fn what_agents_take_back_is_settled_whatever_else_they_left(
        start in splices(),
        writes in prop::collection::vec((agents(), splices()), 1..6),
    ) {
        let reviewed = spliced("", &start) + "last\n";
        let mut world = World::of(&reviewed);
        for (who, splices) in &writes {
            let after = spliced(world.text("f"), splices);
            world.agent(who, "f", Some(text(&after)));
        }
        world.agent("A", "f", Some(text(&(reviewed + "new\n"))));
        let new = world.shown("f").into_iter().filter(|line| !line.starts_with(' '));
        prop_assert_eq!(new.collect::<Vec<_>>(), ["+new A"]);
    }
}

proptest! {
    #![proptest_config(times(128))]

    /// Of a long text only a part is compared.
    #[test]
    fn it_holds_for_long_texts_as_well(steps in prop::collection::vec(step(), 1..12)) {
        let lines = |at: usize| ["a\n", "b\n", "}\n", "\n", "a\n"][at * at % 5];
        run(&(0..1500).map(lines).collect::<String>(), &steps)?;
    }
}

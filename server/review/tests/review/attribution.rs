//! Attribution beside a model that knows the lines as objects.
//!
//! Each line is like no other, so that there is one answer to what changed. The
//! model keeps who added each line that is there, and who removed each reviewed
//! line that is not; it knows nothing of the order of what is gone. The review is
//! given whole texts.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::times;
use crate::world::{World, name_of, text};

/// Who did something: an agent, or the user.
type Who = Option<&'static str>;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Replaces lines by new ones, at a place in thousandths of the text.
    Splice {
        who: Who,
        at: usize,
        remove: usize,
        insert: usize,
    },
    Keep(Who),
    Revert(Who),
    KeepHunk(usize, Who),
    RevertHunk(usize, Who),
}

fn agents() -> impl Strategy<Value = Who> {
    prop_oneof![Just(Some("A")), Just(Some("B")), Just(Some("C"))]
}

fn step() -> impl Strategy<Value = Step> {
    let who = prop_oneof![3 => agents(), 1 => Just(None)];
    let splice = (who, 0..1000_usize, 0..4_usize, 0..4_usize);
    let choice = || prop_oneof![2 => agents(), 1 => Just(None)];
    prop_oneof![
        10 => splice.prop_map(|(who, at, remove, insert)| Step::Splice { who, at, remove, insert }),
        1 => choice().prop_map(Step::Keep),
        1 => choice().prop_map(Step::Revert),
        1 => (0..1000_usize, choice()).prop_map(|(at, who)| Step::KeepHunk(at, who)),
        1 => (0..1000_usize, choice()).prop_map(|(at, who)| Step::RevertHunk(at, who)),
    ]
}

#[derive(Debug, Clone, Default)]
struct Model {
    /// The text, each line with who added it.
    there: Vec<(String, Who)>,
    /// The reviewed lines that an agent removed.
    gone: BTreeMap<String, &'static str>,
    lines: usize,
}

impl Model {
    fn new(lines: usize) -> Self {
        let mut model = Self::default();
        for _ in 0..lines {
            let line = model.line();
            model.there.push((line, None));
        }
        model
    }

    fn line(&mut self) -> String {
        self.lines += 1;
        format!("line {}\n", self.lines)
    }

    fn text(&self) -> String {
        self.there.iter().map(|(line, _)| line.as_str()).collect()
    }

    fn splice(&mut self, who: Who, at: usize, remove: usize, insert: usize, apart: bool) {
        let start = at * (self.there.len() + 1) / 1000;
        let mut end = (start + remove).min(self.there.len());
        let is_others = |(_, added): &(String, Who)| added.is_some() && *added != who;
        if apart && who.is_some() && self.there[start..end].iter().any(is_others) {
            end = start;
        }
        let new: Vec<_> = (0..insert).map(|_| (self.line(), who)).collect();
        for (line, added) in self.there.splice(start..end, new) {
            if let (Some(who), None) = (who, added) {
                self.gone.insert(line, who);
            }
        }
    }

    /// Reverts, or keeps, what `takes` says of a line, and leaves the order to the
    /// review: nothing says where among new lines an old one comes back.
    fn decide(&mut self, revert: bool, takes: impl Fn(&str, &str) -> bool) {
        for (line, added) in std::mem::take(&mut self.there) {
            match added.is_some_and(|who| takes(&line, who)) {
                true if revert => {}
                true => self.there.push((line, None)),
                false => self.there.push((line, added)),
            }
        }
        for (line, removed) in std::mem::take(&mut self.gone) {
            match takes(&line, removed) {
                true if revert => self.there.push((line, None)),
                true => {}
                false => _ = self.gone.insert(line, removed),
            }
        }
    }

    /// Takes the order of the text, which must have the same lines.
    fn order_as(&mut self, text: &str) {
        let mut there: BTreeMap<String, Who> = self.there.drain(..).collect();
        for line in text.split_inclusive('\n') {
            let who = there.remove(line).unwrap_or_else(|| panic!("{line:?} is there"));
            self.there.push((line.into(), who));
        }
        assert!(there.is_empty(), "{there:?} is not there");
    }
}

/// The lines that are new, and those that are gone, each with its agent.
fn shown(world: &World) -> Vec<String> {
    let mut shown: Vec<_> =
        world.shown("f").into_iter().filter(|line| !line.starts_with(' ')).collect();
    shown.sort();
    shown
}

fn expected(model: &Model) -> Vec<String> {
    let there = model
        .there
        .iter()
        .filter_map(|(line, who)| who.map(|who| format!("+{} {who}", line.trim_end())));
    let gone = model.gone.iter().map(|(line, who)| format!("-{} {who}", line.trim_end()));
    let mut expected: Vec<_> = there.chain(gone).collect();
    expected.sort();
    expected
}

/// The lines of a hunk, as the world has them.
fn lines_of_hunk(world: &World, number: usize) -> Vec<String> {
    let hunk = &world.hunks("f")[number];
    let Some(s0_review::Body::Text(reviewed)) = world.review.baseline(&crate::world::path("f"))
    else {
        panic!("f was reviewed");
    };
    let lines = |text: &str, range: &std::ops::Range<usize>| -> Vec<String> {
        text.split_inclusive('\n').skip(range.start).take(range.len()).map(String::from).collect()
    };
    let mut all = lines(&reviewed, &hunk.reviewed);
    all.extend(lines(world.text("f"), &hunk.current));
    assert!(hunk.writes.iter().all(|write| ["A", "B", "C"].contains(&name_of(write))));
    all
}

/// With `decide`, agents do not remove each other's lines: what comes back when one
/// of them is reverted is a matter of tables.
fn run(lines: usize, steps: &[Step], decide: bool) -> Result<(), TestCaseError> {
    let mut model = Model::new(lines);
    let mut world = World::of(&model.text());
    for step in steps {
        let hunks = world.hunks("f").len();
        match *step {
            Step::Splice { who, at, remove, insert } => {
                model.splice(who, at, remove, insert, decide);
                let after = Some(text(&model.text()));
                match who {
                    Some(who) => world.agent(who, "f", after),
                    None => world.user("f", after),
                }
            }
            _ if !decide || hunks == 0 => {}
            Step::Keep(who) => {
                world.keep(world.all(), who);
                model.decide(false, |_, by| who.is_none_or(|who| by == who));
            }
            Step::Revert(who) => {
                world.revert(world.all(), who);
                model.decide(true, |_, by| who.is_none_or(|who| by == who));
            }
            Step::KeepHunk(at, who) | Step::RevertHunk(at, who) => {
                let number = at * hunks / 1000;
                let lines = lines_of_hunk(&world, number);
                let part = world.hunk("f", number);
                let revert = matches!(step, Step::RevertHunk(..));
                match revert {
                    true => world.revert(part, who),
                    false => world.keep(part, who),
                };
                model.decide(revert, |line, by| {
                    who.is_none_or(|who| by == who) && lines.iter().any(|other| other == line)
                });
            }
        }
        model.order_as(world.text("f"));
        prop_assert_eq!(shown(&world), expected(&model));
    }
    Ok(())
}

proptest! {
    #![proptest_config(times(512))]

    #[test]
    fn each_line_belongs_to_who_wrote_it(
        lines in 0..12_usize,
        steps in prop::collection::vec(step(), 1..20),
    ) {
        run(lines, &steps, false)?;
    }

    #[test]
    fn decisions_are_about_exactly_the_lines_that_were_chosen(
        lines in 1..12_usize,
        steps in prop::collection::vec(step(), 1..30),
    ) {
        run(lines, &steps, true)?;
    }
}

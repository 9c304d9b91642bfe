//! The review as its callers use it: a workspace of files, agents and a user who
//! write to them, and everything that can be decided about it.
//!
//! `PROPTEST_CASES` scales the properties; 256 stands for what a change must pass.

mod attribution;
mod decisions;
mod items;
mod lines;
mod repeated;
mod stored;
mod world;

use proptest::test_runner::Config;

/// The configuration of a property that runs `cases` times in a usual run.
fn times(cases: u32) -> Config {
    let usual = Config::default();
    let cases = (cases * usual.cases / 256).max(1);
    Config { cases, failure_persistence: None, ..usual }
}

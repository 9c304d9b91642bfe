//! What holds for every Volume, name and content: random cases, judged by naive
//! models where there are any.
//!
//! `PROPTEST_CASES` scales all of it; 256 stands for what a change must pass. A
//! failure is shrunk and printed whole, as the steps that lead to it.

mod admission;
mod checkpoints;
mod contents;
mod differences;
mod folding;
mod history;
mod limits;
mod names;
mod past;
mod paths;
mod quotas;

use proptest::test_runner::Config;

/// The configuration of a property that runs `cases` times in a usual run.
fn times(cases: u32) -> Config {
    let usual = Config::default();
    let cases = (cases * usual.cases / 256).max(1);
    Config { cases, failure_persistence: None, ..usual }
}

//! Runs seeds: `S0_SIM_SEEDS=N` many (1,000 by default), from `S0_SIM_FROM`, or
//! the single `S0_SIM_SEED`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use s0_sim::coverage::Coverage;
use s0_sim::world::{run, run_apart};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn count() -> u64 {
    number("S0_SIM_SEEDS").unwrap_or(1000)
}

#[test]
fn seeds() {
    let coverage = run_all("seeds", run);
    if number("S0_SIM_SEED").is_none() && count() >= 1000 {
        assert_eq!(coverage.missing(), Vec::<&str>::new(), "not reached");
    }
}

#[test]
fn three_trees_become_one() {
    run_all("three_trees_become_one", run_apart);
}

type Run = fn(u64) -> (Coverage, Result<(), String>);

#[allow(clippy::print_stderr, reason = "a failing seed is told to whoever looks for it")]
fn run_all(test: &str, run: Run) -> Coverage {
    if let Some(seed) = number("S0_SIM_SEED") {
        let (coverage, result) = run(seed);
        assert_eq!(result, Ok(()), "seed {seed}");
        return coverage;
    }
    let (from, count) = (number("S0_SIM_FROM").unwrap_or(1), count());
    let limit = usize::try_from(number("S0_SIM_STOP").unwrap_or(5)).unwrap_or(5);
    let next = AtomicU64::new(from);
    let found = Mutex::new((Coverage::default(), Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let full = found.lock().map_or(true, |found| found.1.len() >= limit);
                    if seed >= from + count || full {
                        break;
                    }
                    let ran = std::panic::catch_unwind(move || run(seed));
                    let (coverage, result) = ran
                        .unwrap_or_else(|_| (Coverage::default(), Err("it panicked".to_owned())));
                    if let Ok(mut found) = found.lock() {
                        found.0.merge(&coverage);
                        if let Err(why) = result {
                            eprintln!(
                                "seed {seed} fails: {why}\n  replay: S0_SIM_SEED={seed} \
                                 S0_SIM_TRACE=1 cargo test -p s0-sim --test seeds {test} -- \
                                 --exact --nocapture"
                            );
                            found.1.push(seed);
                        }
                    }
                }
            });
        }
    });
    let (coverage, failed) = found.into_inner().expect("no thread panicked");
    for (what, count) in &coverage.0 {
        eprintln!("{count:>9}  {what}");
    }
    assert!(failed.is_empty(), "failing seeds: {failed:?}");
    coverage
}

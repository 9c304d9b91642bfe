//! The contract of the HTTP API: every operation with every status that its description
//! names is asked for here, and what comes back must be as described. The table of
//! `tests/README.md` is made of what was seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Mutex;

use reqwest::Method;

use crate::rig::Rig;

mod document;
mod everywhere;
mod files;
mod limited;
mod ours;
mod reference;
mod sync;
mod volumes;

pub(crate) use document::{Document, Operation};

const VOLUMES: &str = "/api/v1/sandboxvolumes";

/// What was answered, by whom it was asked.
#[derive(Default)]
pub(crate) struct Seen(Mutex<Notes>);

#[derive(Default)]
struct Notes {
    case: &'static str,
    cells: BTreeMap<(Operation, u16), BTreeSet<&'static str>>,
}

impl Seen {
    /// Says who asks from now on.
    fn case(&self, case: &'static str) {
        self.0.lock().unwrap().case = case;
    }

    pub(crate) fn note(&self, document: &Document, method: &Method, path: &str, status: u16) {
        let Some(template) = document.template(path) else { return };
        let operation = (method.to_string(), template);
        if document.operation(&operation).is_null() {
            return;
        }
        let mut notes = self.0.lock().unwrap();
        let case = notes.case;
        notes.cells.entry((operation, status)).or_default().insert(case);
    }

    fn take(&self) -> BTreeMap<(Operation, u16), BTreeSet<&'static str>> {
        std::mem::take(&mut self.0.lock().unwrap().cells)
    }
}

/// The marks around the table in `tests/README.md`.
const BEGIN: &str = "<!-- routes: made by server/service/tests/http/contract.rs -->";
const END: &str = "<!-- end of routes -->";

#[tokio::test]
async fn every_described_answer_is_seen_and_told_in_the_table() {
    let rig = Rig::start().await;
    macro_rules! cases {
        ($($module:ident :: $case:ident),* $(,)?) => {$(
            rig.seen.case(concat!(stringify!($module), "::", stringify!($case)));
            $module::$case(&rig).await;
        )*};
    }
    cases!(
        volumes::volumes,
        volumes::forks,
        volumes::snapshots,
        volumes::quotas,
        files::bytes,
        files::directories,
        files::moves,
        files::clones,
        files::modes,
        files::watches,
        files::mounts,
        sync::replicas,
        sync::bootstraps,
        sync::journal,
        sync::uploads,
        sync::conflicts,
        ours::contents,
        ours::history,
        ours::tokens,
        limited::mount_tokens,
        limited::sandboxes,
        ours::health,
        ours::metrics,
        everywhere::without_a_token,
        everywhere::without_permission,
        everywhere::of_another_team,
        everywhere::with_broken_paths,
        everywhere::with_wrong_bodies,
        everywhere::with_large_bodies,
        everywhere::with_wrong_methods,
        everywhere::when_the_store_fails,
        everywhere::when_the_store_is_damaged,
    );
    let (document, cells) = (rig.document().await, rig.seen.take());
    let mut missing = Vec::new();
    let mut statuses = BTreeSet::new();
    for operation in document.operations() {
        for status in document.described(&operation).into_keys() {
            statuses.insert(status);
            if !cells.contains_key(&(operation.clone(), status)) {
                missing.push(format!("{} {} {status}", operation.0, operation.1));
            }
        }
    }
    assert!(missing.is_empty(), "described, and seen by no case:\n{}", missing.join("\n"));
    reference::check(document);
    is_in_the_readme(&format!("{}\n{}", table(document, &statuses, &cells), reference::table()));
}

fn table(
    document: &Document,
    statuses: &BTreeSet<u16>,
    cells: &BTreeMap<(Operation, u16), BTreeSet<&'static str>>,
) -> String {
    let mut out = String::from("| operation |");
    for status in statuses {
        write!(out, " {status} |").unwrap();
    }
    write!(out, "\n|---|{}\n", "---|".repeat(statuses.len())).unwrap();
    let mut cases = BTreeMap::new();
    for operation in document.operations() {
        let path = operation.1.replace("/api/v1/sandboxvolumes", "…");
        write!(out, "| `{} {path}` |", operation.0).unwrap();
        for status in statuses {
            let all = cells.get(&(operation.clone(), *status)).into_iter().flatten();
            match all.min_by_key(|case| (!is_about(case, &operation), case.starts_with("every"))) {
                Some(case) => {
                    let next = cases.len() + 1;
                    let number = cases.entry(*case).or_insert(next);
                    write!(out, " {number} |").unwrap();
                }
                None => out.push_str(" |"),
            }
        }
        out.push('\n');
    }
    let mut by_number: Vec<_> = cases.into_iter().map(|(case, number)| (number, case)).collect();
    by_number.sort_unstable();
    let told: Vec<String> =
        by_number.iter().map(|(number, case)| format!("{number} `{case}`")).collect();
    write!(out, "\n{}.\n", told.join(", ")).unwrap();
    out
}

/// Whether a case is about the operation, and did not just need it.
fn is_about(case: &str, (_, path): &Operation) -> bool {
    if path.starts_with("/api/v1/sandboxes/") {
        return case.starts_with("limited");
    }
    let below = path.strip_prefix("/api/v1/sandboxvolumes/{volume}").unwrap_or(path);
    let room = match below.split('/').nth(1).unwrap_or_default() {
        "files" => "files",
        "sync" => "sync",
        "" | "api" | "fork" | "snapshots" => "volumes",
        "mount-tokens" => "limited",
        _ => "ours",
    };
    case.starts_with(room)
}

/// Compares the table with the one that people read. `S0_WRITE_TABLE=1` writes it.
fn is_in_the_readme(table: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("tests/README.md has the table's marks");
    let (told, after) = rest.split_once(END).expect("tests/README.md has the table's marks");
    if told.trim() == table.trim() {
        return;
    }
    if std::env::var_os("S0_WRITE_TABLE").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}\n{table}{END}{after}")).unwrap();
        return;
    }
    panic!("the table of tests/README.md is not what was seen; S0_WRITE_TABLE=1 writes:\n{table}");
}

//! `s0 doctor`: what is in the way on this machine, and the way out.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

use crate::context::Context;
use crate::failure::{Done, Failure, code};
use crate::screen::{Tint, count, plain, tinted};

mod disk;
mod service;
mod workspaces;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    /// Syncing works, and something of it does not.
    Warning,
    Failure,
}

/// One check.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    found: String,
    /// The way out; nothing where none is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    do_next: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, found: found.into(), do_next: None }
    }

    fn warning(check: &'static str, found: impl Into<String>, do_next: impl Into<String>) -> Self {
        let (found, do_next) = (found.into(), Some(do_next.into()));
        Self { check, verdict: Verdict::Warning, found, do_next }
    }

    fn failure(check: &'static str, found: impl Into<String>, do_next: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failure, ..Self::warning(check, found, do_next) }
    }

    /// One line, and below it what to do.
    fn lines(&self) -> String {
        let (word, tint) = match self.verdict {
            Verdict::Ok => ("OK      ", Tint::Good),
            Verdict::Warning => ("warning ", Tint::Warn),
            Verdict::Failure => ("FAILURE ", Tint::Bad),
        };
        let mut text = format!("{} {:<10} {}", tinted(tint, word), self.check, plain(&self.found));
        if let Some(next) = &self.do_next {
            text.push_str(&format!("\n{:20}→ {}", "", plain(next)));
        }
        text
    }
}

/// `s0 doctor`.
pub(crate) async fn doctor(context: &Context, directory: Option<PathBuf>) -> Done {
    let place = place(directory.as_deref())?;
    let mut findings =
        vec![Finding::ok("program", format!("s0 {} ({})", env!("CARGO_PKG_VERSION"), own_path()))];
    findings.extend(service::check(context).await);
    findings.push(state(context));
    let attached = workspaces::check(context).await;
    findings.extend(attached.findings);
    // A directory that was named is tried; without one, the workspace around us, and
    // where there is none, all that are attached.
    let around = attached.roots.iter().filter(|root| place.starts_with(root)).max();
    let tried: Vec<&Path> = match (&directory, around) {
        (Some(_), None) => vec![&place],
        (_, Some(root)) => vec![root],
        (None, None) => attached.roots.iter().map(PathBuf::as_path).collect(),
    };
    if tried.is_empty() {
        findings.push(Finding::ok(
            "disk",
            "not tried, since nothing is attached; `s0 doctor DIR` tries a directory",
        ));
    }
    for root in tried {
        let is_attached = attached.roots.iter().any(|it| it == root);
        findings.extend(disk::check(root, is_attached));
    }
    let worst = findings.iter().map(|it| it.verdict).max().unwrap_or(Verdict::Ok);
    let number = |verdict| findings.iter().filter(|it| it.verdict == verdict).count();
    let (failures, warnings) = (number(Verdict::Failure), number(Verdict::Warning));
    let document = json!({ "verdict": worst, "checks": findings });
    context.screen.show(&document, || {
        let lines: Vec<String> = findings.iter().map(Finding::lines).collect();
        let end = match (failures, warnings) {
            (0, 0) => "nothing is in the way".to_owned(),
            (0, _) => count(warnings, "warning"),
            (_, 0) => count(failures, "failure"),
            _ => format!("{}, {}", count(failures, "failure"), count(warnings, "warning")),
        };
        format!("{}\n\n{end}", lines.join("\n"))
    });
    Ok(if failures > 0 { ExitCode::from(code::FAILED) } else { ExitCode::SUCCESS })
}

/// The directory that is asked about.
fn place(directory: Option<&Path>) -> Result<PathBuf, Failure> {
    let place = s0_host::canonical(directory.unwrap_or(Path::new(".")));
    if directory.is_some() && !place.is_dir() {
        return Err(Failure::other(format!(
            "{} is not a directory; name one that you want to attach, or have attached",
            place.display()
        )));
    }
    Ok(place)
}

fn own_path() -> String {
    std::env::current_exe().map_or_else(|error| error.to_string(), |it| it.display().to_string())
}

/// Whether what is attached can be written down.
fn state(context: &Context) -> Finding {
    let path = context.state.path();
    // What is not there yet is made in the nearest directory that is.
    let there = path.ancestors().find(|it| it.is_dir()).unwrap_or(Path::new("/"));
    match crate::platform::may_write(there) {
        Ok(()) => Finding::ok("state", path.display().to_string()),
        Err(error) => Finding::failure(
            "state",
            format!("{} cannot be written: {error}", there.display()),
            "make it yours (`ls -ld` says whose it is), or name another one with --state-dir",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_and_below_it_what_to_do() {
        let finding = Finding::failure("token", "it is\x1b wrong", "take another");
        let lines = finding.lines();
        let (first, second) = lines.split_once('\n').unwrap();
        assert!(first.contains("FAILURE") && first.contains("token") && first.contains("\\u{1b}"));
        assert_eq!(second.trim_start(), "→ take another");
        assert!(!Finding::ok("token", "fine").lines().contains('\n'));
        assert!(Verdict::Failure > Verdict::Warning && Verdict::Warning > Verdict::Ok);
    }
}

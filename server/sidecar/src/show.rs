//! What is shown in a document: hunks, conflicts, held writes.

use serde_json::{Value, json};
use tower_lsp::ls_types::{
    CodeAction, CodeActionKind, CodeActionOrCommand, CodeLens, Command, Diagnostic,
    DiagnosticRelatedInformation, DiagnosticSeverity, Location, NumberOrString, Position, Range,
    Uri,
};

use s0_host::protocol::FileView;
use s0_review::{HunkKind as Kind, Write};

use crate::asks::hunk_name;
use crate::mapping::Mapping;
use crate::messages::{
    Author, Conflict, FileHunks, Held, HeldKind, HeldWay, HeldWhy, Hunk, HunkKind, Way,
};
use crate::state::{actor, milliseconds};

/// The source of diagnostics.
const SOURCE: &str = "s0-sync";
/// Places of one conflict that are marked.
const PLACES: usize = 100;

/// The hunks of a file, in the lines of a document.
pub(crate) fn hunks(uri: &str, version: i32, file: &FileView, text: &str) -> FileHunks {
    let mut shown = FileHunks {
        uri: uri.into(),
        document_version: version,
        version: file.version.map(|version| version.0.to_string()).unwrap_or_default(),
        hunks: Vec::new(),
    };
    let Some(current) = &file.current else { return shown };
    let mapping = Mapping::new(current, text);
    let reviewed: Vec<&str> =
        file.reviewed.as_deref().unwrap_or_default().split_inclusive('\n').collect();
    for hunk in &file.hunks {
        let lines = mapping.lines(&hunk.current);
        if lines.is_empty() && !hunk.current.is_empty() && hunk.reviewed.is_empty() {
            // Only in the file: the editor's text has none of these lines.
            continue;
        }
        let mut authors: Vec<Author> = Vec::new();
        for (line, by) in hunk.current.clone().zip(&hunk.added_by) {
            let Some(write) = hunk.writes.get(*by) else { continue };
            let here = mapping.lines(&(line..line + 1));
            match authors.last_mut() {
                Some(last) if last.end == here.start && is_same(last, write) => last.end = here.end,
                _ if here.is_empty() => {}
                _ => authors.push(Author {
                    start: here.start,
                    end: here.end,
                    actor: actor(&write.actor),
                    time: milliseconds(write.time),
                }),
            }
        }
        let mut actors = Vec::new();
        for write in &hunk.writes {
            let actor = actor(&write.actor);
            if !actors.contains(&actor) {
                actors.push(actor);
            }
        }
        let before = reviewed.get(hunk.reviewed.clone()).unwrap_or_default();
        let times = hunk.writes.iter().map(|write| milliseconds(write.time));
        shown.hunks.push(Hunk {
            id: hunk_name(hunk.id),
            kind: match hunk.kind {
                Kind::Added => HunkKind::Added,
                Kind::Changed => HunkKind::Changed,
                Kind::Removed => HunkKind::Deleted,
            },
            start: lines.start,
            end: lines.end,
            before: before.iter().map(|line| line.trim_end_matches(['\n', '\r']).into()).collect(),
            authors,
            actors,
            time: times.max().unwrap_or(0),
        });
    }
    shown
}

fn is_same(author: &Author, write: &Write) -> bool {
    author.actor == actor(&write.actor) && author.time == milliseconds(write.time)
}

/// Whole lines.
fn lines(start: usize, end: usize) -> Range {
    let line =
        |line: usize| Position { line: u32::try_from(line).unwrap_or(u32::MAX), character: 0 };
    Range { start: line(start), end: line(end.max(start)) }
}

/// A conflict, on the lines that differ, of which each leads to the other version.
pub(crate) fn conflict(
    folder: &str,
    conflict: &Conflict,
    texts: Option<(&str, &str)>,
    theirs: &str,
) -> Vec<Diagnostic> {
    let places = texts.map(|(mine, theirs)| Mapping::new(mine, theirs).differences().to_vec());
    let mut places =
        places.filter(|places| !places.is_empty()).unwrap_or_else(|| vec![(0..1, 0..1)]);
    places.truncate(PLACES);
    let data = json!({ "folder": folder, "path": conflict.path });
    let one = |(mine, other): (std::ops::Range<usize>, std::ops::Range<usize>)| {
        let uri = theirs.parse::<Uri>().ok();
        let related = uri.map(|uri| {
            vec![DiagnosticRelatedInformation {
                location: Location { uri, range: lines(other.start, other.end) },
                message: "the Volume's version".into(),
            }]
        });
        Diagnostic {
            range: lines(mine.start, mine.end),
            severity: Some(DiagnosticSeverity::ERROR),
            code: Some(NumberOrString::String(conflict.reason.clone())),
            source: Some(SOURCE.into()),
            message: format!("Conflict: {}", conflict.message),
            related_information: related,
            data: Some(data.clone()),
            ..Diagnostic::default()
        }
    };
    places.into_iter().map(one).collect()
}

/// A held write, on the first line.
pub(crate) fn held(folder: &str, held: &Held) -> Diagnostic {
    let by = held.actor.as_ref().map(|actor| format!(" of {actor}")).unwrap_or_default();
    let what = match held.kind {
        HeldKind::Write => "A write",
        HeldKind::Remove => "A removal",
    };
    let why = match held.why {
        HeldWhy::Unsaved if held.written => {
            let message = format!(
                "{what}{by} came while this document had unsaved text: saving writes over it"
            );
            return held_diagnostic(folder, held, message);
        }
        HeldWhy::Unsaved => "this document has unsaved text",
        HeldWhy::Guarded => "it would run on this machine",
    };
    held_diagnostic(folder, held, format!("{what}{by} is held: {why}"))
}

fn held_diagnostic(folder: &str, held: &Held, message: String) -> Diagnostic {
    Diagnostic {
        range: lines(0, 1),
        severity: Some(DiagnosticSeverity::WARNING),
        code: Some(NumberOrString::String("held".into())),
        source: Some(SOURCE.into()),
        message,
        data: Some(json!({ "folder": folder, "path": held.path })),
        ..Diagnostic::default()
    }
}

/// The title of a way out.
fn title(way: Way, suggestion: Option<&str>) -> String {
    match way {
        Way::KeepMine => "Keep mine".into(),
        Way::TakeTheirs => "Take theirs".into(),
        Way::KeepBoth => "Keep both".into(),
        Way::Merge => "Merge".into(),
        Way::Mark => "Keep the file as it is now".into(),
        Way::Ignore => "Leave both sides as they are".into(),
        Way::Rename => format!("Rename to {}", suggestion.unwrap_or_default()),
    }
}

/// A command with its one argument.
fn command(title: &str, name: &str, argument: Value) -> Command {
    Command {
        title: title.into(),
        command: format!("s0-sync.{name}"),
        arguments: Some(vec![argument]),
    }
}

fn action(
    title: &str,
    kind: &'static str,
    preferred: bool,
    does: Command,
    about: &[Diagnostic],
) -> CodeActionOrCommand {
    CodeActionOrCommand::CodeAction(CodeAction {
        title: title.into(),
        kind: Some(CodeActionKind::from(kind)),
        diagnostics: Some(about.to_vec()).filter(|about| !about.is_empty()),
        command: Some(does),
        // Never of one that takes something away.
        is_preferred: preferred.then_some(true),
        ..CodeAction::default()
    })
}

/// The ways out of a conflict.
pub(crate) fn conflict_actions(
    folder: &str,
    it: &Conflict,
    about: &[Diagnostic],
) -> Vec<CodeActionOrCommand> {
    let ways = it.ways.iter().map(|way| {
        let title = title(*way, it.suggestion.as_deref());
        let mut argument = json!({ "folder": folder, "paths": [it.path], "way": way });
        if *way == Way::Rename {
            argument["name"] = json!(it.suggestion);
        }
        let does = command(&title, "resolve", argument);
        action(&title, "quickfix.s0-sync.resolve", *way == Way::Merge, does, about)
    });
    ways.collect()
}

/// The ways out of a held write.
pub(crate) fn held_actions(
    folder: &str,
    it: &Held,
    about: &[Diagnostic],
) -> Vec<CodeActionOrCommand> {
    let ways = it.ways.iter().map(|way| {
        let title = match (way, it.why) {
            (HeldWay::Take, HeldWhy::Guarded) => "Allow",
            (HeldWay::Take, HeldWhy::Unsaved) => "Take incoming",
            (HeldWay::Discard, HeldWhy::Guarded) => "Discard",
            (HeldWay::Discard, HeldWhy::Unsaved) => "Keep mine",
            (HeldWay::KeepBoth, _) => "Keep both",
        };
        let argument = json!({ "folder": folder, "path": it.path, "way": way });
        let does = command(title, "settleHeld", argument);
        action(title, "quickfix.s0-sync.held", false, does, about)
    });
    ways.collect()
}

/// Keep and Revert at the hunks that a range touches.
pub(crate) fn hunk_actions(shown: &FileHunks, range: Range) -> Vec<CodeActionOrCommand> {
    let (from, to) = (range.start.line as usize, range.end.line as usize);
    let touches = |hunk: &&Hunk| hunk.start <= to && from < hunk.end.max(hunk.start + 1);
    let mut actions = Vec::new();
    for hunk in shown.hunks.iter().filter(touches) {
        for (title, name) in [("Keep this hunk", "keep"), ("Revert this hunk", "revert")] {
            let does = command(title, name, choice(shown, Some(hunk)));
            actions.push(action(title, "quickfix.s0-sync.review", false, does, &[]));
        }
    }
    if !actions.is_empty() {
        for (title, name) in
            [("Keep all of this file", "keep"), ("Revert all of this file", "revert")]
        {
            let does = command(title, name, choice(shown, None));
            actions.push(action(title, "quickfix.s0-sync.review", false, does, &[]));
        }
    }
    actions
}

fn choice(shown: &FileHunks, hunk: Option<&Hunk>) -> Value {
    match hunk {
        Some(hunk) => json!({ "uri": shown.uri, "hunk": hunk.id, "version": shown.version }),
        None => json!({ "uri": shown.uri, "version": shown.version }),
    }
}

/// Keep · Revert · Compare above each hunk.
pub(crate) fn lenses(shown: &FileHunks) -> Vec<CodeLens> {
    let mut lenses = Vec::new();
    for hunk in &shown.hunks {
        let by: Vec<&str> = hunk.actors.iter().map(|actor| actor.label.as_str()).collect();
        let range = lines(hunk.start, hunk.start);
        let keep = format!("Keep ({})", by.join(", "));
        let all = [
            command(&keep, "keep", choice(shown, Some(hunk))),
            command("Revert", "revert", choice(shown, Some(hunk))),
            command("Compare", "compare", json!({ "uri": shown.uri })),
        ];
        lenses.extend(all.map(|it| CodeLens { range, command: Some(it), data: None }));
    }
    lenses
}

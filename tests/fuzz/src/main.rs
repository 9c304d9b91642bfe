//! Fuzz targets: one for each parser of bytes that come from outside.
//!
//! One program with all of them, driven by libFuzzer. `S0_FUZZ_TARGET` names the target;
//! `S0_FUZZ_SEEDS=DIRECTORY` makes it write its first inputs there and end, and the target
//! `list` prints all names. `tests/fuzz/run.py` does all that.
//!
//! A target fails by a panic. Beside panics of the parser itself it checks what must hold of
//! whatever was read: that it can be written and read again, that a cut in the stream changes
//! nothing, that it is what a simpler model says, that it fits in memory.

#![no_main]
#![allow(missing_docs, reason = "a program; libFuzzer's macro makes what is public here")]

mod api;
mod cli;
mod editor;
mod host;
mod memory;
mod mount;
mod replica;
mod review;
mod service;
mod tree;

use std::path::Path;
use std::sync::OnceLock;

/// A target: its name, what it does with an input, and its first inputs.
struct Target {
    name: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
    /// The most memory that an input may need: so many bytes, and so many for each of its own.
    memory: (usize, usize),
}

/// What most inputs may need.
const USUAL: (usize, usize) = (4 << 20, 2000);

const TARGETS: &[Target] = &[
    Target { name: "paths", run: tree::paths, seeds: tree::path_seeds, memory: USUAL },
    Target { name: "entries", run: tree::entries, seeds: tree::entry_seeds, memory: USUAL },
    Target { name: "changes", run: tree::changes, seeds: tree::change_seeds, memory: USUAL },
    Target { name: "recipes", run: tree::recipes, seeds: tree::recipe_seeds, memory: USUAL },
    Target { name: "trees", run: tree::trees, seeds: tree::tree_seeds, memory: USUAL },
    Target { name: "events", run: api::events, seeds: api::event_seeds, memory: USUAL },
    Target { name: "frames", run: api::frames, seeds: api::frame_seeds, memory: USUAL },
    Target { name: "answers", run: api::answers, seeds: api::answer_seeds, memory: USUAL },
    Target {
        name: "documented",
        run: api::documented,
        seeds: api::documented_seeds,
        memory: USUAL,
    },
    Target {
        name: "http",
        run: service::http,
        seeds: service::http_seeds,
        memory: (64 << 20, 4000),
    },
    Target { name: "ranges", run: service::ranges, seeds: service::range_seeds, memory: USUAL },
    // The packed form is a bomb by nature; what it unpacks to is limited.
    Target {
        name: "packed",
        run: service::packed,
        seeds: service::packed_seeds,
        memory: (64 << 20, 1 << 20),
    },
    Target {
        name: "git_index",
        run: replica::git_index,
        seeds: replica::index_seeds,
        memory: USUAL,
    },
    Target {
        name: "ignore_rules",
        run: replica::ignore_rules,
        seeds: replica::rule_seeds,
        memory: (64 << 20, 1 << 16),
    },
    Target {
        name: "guarded",
        run: replica::guarded,
        seeds: replica::guarded_seeds,
        memory: (64 << 20, 1 << 16),
    },
    Target {
        name: "synced_rows",
        run: replica::synced_rows,
        seeds: replica::row_seeds,
        memory: USUAL,
    },
    Target {
        name: "state_database",
        run: replica::state_database,
        seeds: replica::database_seeds,
        memory: (64 << 20, 4000),
    },
    Target {
        name: "fuse_requests",
        run: mount::requests,
        seeds: mount::request_seeds,
        memory: USUAL,
    },
    Target {
        name: "mount_messages",
        run: mount::messages,
        seeds: mount::message_seeds,
        memory: USUAL,
    },
    Target {
        name: "submissions",
        run: mount::submissions,
        seeds: mount::submission_seeds,
        memory: USUAL,
    },
    Target { name: "echo_deeds", run: mount::deeds, seeds: mount::deed_seeds, memory: USUAL },
    Target {
        name: "sandbox_control",
        run: mount::sandbox_control,
        seeds: mount::sandbox_seeds,
        memory: USUAL,
    },
    Target { name: "control", run: host::control, seeds: host::control_seeds, memory: USUAL },
    Target { name: "merge", run: host::merge, seeds: host::merge_seeds, memory: USUAL },
    Target { name: "state_files", run: host::state_files, seeds: host::file_seeds, memory: USUAL },
    Target { name: "review_file", run: review::stored, seeds: review::stored_seeds, memory: USUAL },
    Target { name: "review_texts", run: review::texts, seeds: review::text_seeds, memory: USUAL },
    Target { name: "lsp", run: editor::lsp, seeds: editor::lsp_seeds, memory: (64 << 20, 4000) },
    Target {
        name: "documents",
        run: editor::documents,
        seeds: editor::document_seeds,
        memory: USUAL,
    },
    Target { name: "uris", run: editor::uris, seeds: editor::uri_seeds, memory: USUAL },
    Target {
        name: "editor_messages",
        run: editor::messages,
        seeds: editor::message_seeds,
        memory: USUAL,
    },
    Target { name: "profiles", run: cli::profiles, seeds: cli::profile_seeds, memory: USUAL },
    Target {
        name: "arguments",
        run: cli::arguments,
        seeds: cli::argument_seeds,
        memory: (16 << 20, 4000),
    },
    Target { name: "screen", run: cli::screen, seeds: cli::screen_seeds, memory: USUAL },
];

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program without a screen of its own"
)]
fn begin() {
    let name = std::env::var("S0_FUZZ_TARGET").unwrap_or_default();
    if name == "list" {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        std::process::exit(0);
    }
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        eprintln!("S0_FUZZ_TARGET names no target; `list` prints all of them");
        std::process::exit(2);
    };
    if let Some(directory) = std::env::var_os("S0_FUZZ_SEEDS") {
        for (at, seed) in (target.seeds)().iter().enumerate() {
            let path = Path::new(&directory).join(format!("seed-{at:02}"));
            if let Err(error) = std::fs::write(&path, seed) {
                eprintln!("{}: {error}", path.display());
                std::process::exit(2);
            }
        }
        std::process::exit(0);
    }
    let _ = CHOSEN.set(target);
}

libfuzzer_sys::fuzz_target!(init: begin(), |data: &[u8]| {
    if let Some(target) = CHOSEN.get() {
        let (bytes, each) = target.memory;
        memory::within(bytes + each * data.len(), || (target.run)(data));
    }
});

/// The parts of an input, which the byte 0xff separates: no UTF-8 has it.
fn parts(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split(|byte| *byte == 0xff)
}

/// The parts that are text, up to the first that is none.
fn texts(data: &[u8]) -> impl Iterator<Item = &str> {
    parts(data).map_while(|part| std::str::from_utf8(part).ok())
}

/// An input of these parts.
fn joined<P: AsRef<[u8]>>(all: impl IntoIterator<Item = P>) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, part) in all.into_iter().enumerate() {
        if at > 0 {
            out.push(0xff);
        }
        out.extend_from_slice(part.as_ref());
    }
    out
}

//! `s0 completions` and `s0 man`: what shells and `man` read.

use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;
use serde_json::json;

use crate::args::Args;
use crate::failure::{Done, Failure};
use crate::screen::{Screen, quoted};

/// `s0 completions`.
pub(crate) fn completions(screen: &Screen, shell: Shell) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown(&Args::command()), "s0", &mut script);
    screen.bytes(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// `s0 man`.
pub(crate) fn pages(screen: &Screen, directory: &Path) -> Done {
    let failed = |error: std::io::Error| Failure::file(directory, &error);
    std::fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(shown(&Args::command()).disable_help_subcommand(true), directory)
        .map_err(failed)?;
    screen.show(&json!({ "directory": directory }), || {
        let place = directory.display();
        format!("the manual is in {place}; `man -l {}` opens it", quoted(&directory.join("s0.1")))
    });
    Ok(ExitCode::SUCCESS)
}

/// The command without what is not for people: a shell would offer it.
fn shown(command: &clap::Command) -> clap::Command {
    let names: Vec<String> = command
        .get_subcommands()
        .filter(|it| !it.is_hide_set())
        .map(|it| it.get_name().to_owned())
        .collect();
    let mut bare = clap::Command::new("s0").version(env!("CARGO_PKG_VERSION"));
    for argument in command.get_arguments() {
        bare = bare.arg(argument.clone());
    }
    if let Some(text) = command.get_about() {
        bare = bare.about(text.clone());
    }
    if let Some(text) = command.get_after_help() {
        bare = bare.after_help(text.clone());
    }
    for name in names {
        bare = bare.subcommands(command.find_subcommand(&name).cloned());
    }
    bare
}

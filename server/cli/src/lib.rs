//! The command line: `s0`, and the same program named `s0-sync-lsp`.
//!
//! It finds the service and the hosts of this machine, asks them, and says in
//! words what they answered.
//!
//! # Invariants
//!
//! - Everything that is printed goes through [`screen`]: for people by default,
//!   as JSON or YAML with `-o`, never both on one stream.
//! - Exit codes are part of the interface; they are in [`failure`].
//! - Tokens are never printed, but a new one by `s0 token create`, once.
//!
//! # What must never enter
//!
//! Decisions about syncing, and a second way to do what hosts and the service do.

mod args;
mod attach;
mod config;
mod conflicts;
mod context;
mod doctor;
mod failure;
mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handbook;
mod held;
mod history;
mod live;
mod lsp;
mod mount;
mod platform;
mod sandbox;
mod screen;
mod serve;
mod service;
mod snapshots;
mod sync;
mod tokens;
mod tour;
mod up;
mod volumes;
mod watch;

use std::process::ExitCode;

use args::{Args, Command};
use context::Context;
use s0_sandbox::mount::Help;

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    // Inside a sandbox, the environment is the command's, and says nothing to us.
    if let Some(code) = s0_sandbox::inside::run() {
        return code;
    }
    let args = Args::of_process();
    if args.command.is_detached() {
        s0_host::detach();
    }
    let format = match &args.command {
        Command::Serve { options, .. } => options.log_format,
        _ => args::LogFormat::Text,
    };
    let stays = args.command.is_detached() || matches!(args.command, Command::Serve { .. });
    platform::log_to_stderr(stays, format);
    if stays {
        platform::be_frugal();
    }
    let mut runtime = if args.command.needs_one_thread() {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = runtime.enable_all().build();
    let screen = screen::Screen::new(args.output);
    let done = match runtime {
        Ok(runtime) => {
            let done = runtime.block_on(run(args, &screen));
            // A read of standard input that nobody waits for must not keep us.
            runtime.shutdown_background();
            done
        }
        Err(error) => Err(failure::Failure::other(format!("no runtime: {error}"))),
    };
    match (done, screen.finish()) {
        (Ok(code), Ok(())) => code,
        (Ok(code), Err(failure)) if failure.is_unread() => code,
        (Err(failure), _) if failure.is_unread() => failure.code(),
        (Err(failure), _) | (_, Err(failure)) => {
            screen.complain(&failure);
            failure.code()
        }
    }
}

async fn run(args: Args, screen: &screen::Screen) -> failure::Done {
    let context = Context::new(&args, screen.clone())?;
    match args.command {
        Command::Serve { stop: true, .. } => serve::stop(&context).await,
        Command::Serve { options, background, .. } => {
            serve::serve(&context, &options, background).await
        }
        Command::Up { directory, tour: false } => up::up(&context, directory).await,
        Command::Up { tour: true, .. } => tour::tour(&context).await,
        Command::Volume { command } => volumes::volume(&context, command).await,
        Command::Token { command } => tokens::token(&context, command).await,
        Command::Sync { workspace, command } => sync::sync(&context, workspace, command).await,
        Command::Service { command } => service::service(&context, command).await,
        Command::Doctor { directory } => doctor::doctor(&context, directory).await,
        Command::Completions { shell } => handbook::completions(screen, shell),
        Command::Man { directory } => handbook::pages(screen, &directory),
        Command::Lsp { print_config_schema: true, .. } => lsp::print_config_schema(&context),
        Command::Lsp { .. } => lsp::serve(&context).await,
        Command::MountHost(options) => mount::host(&context, options).await,
        Command::MountEcho { root, device } => {
            s0_mount::perform_all(&root, device)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Sandbox { command } => sandbox::sandbox(&context, command).await,
        Command::SandboxWarden { id, leashed } => sandbox::warden(&context, &id, leashed).await,
        Command::SandboxMountHelper { pid, started, path, perform_on: Some(device), .. } => {
            s0_sandbox::mount::perform(pid, started, &path, device)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::SandboxMountHelper { pid, started, path, options, unmount, .. } => {
            let help = if unmount { Help::Unmount } else { Help::Mount(&options) };
            s0_sandbox::mount::help(pid, started, &path, &help)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::TourAgent { root } => tour::act(screen, &root).await,
        Command::Host { replica, take_over } => sync::host(&context, &replica, take_over).await,
    }
}

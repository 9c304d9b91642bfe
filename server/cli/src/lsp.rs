//! `s0 lsp`: the sidecar of an editor.

use std::ffi::OsString;
use std::process::ExitCode;

use s0_sidecar::{Program, config_schema};

use crate::context::Context;
use crate::failure::{Done, Failure};

/// Speaks LSP until the editor ends it.
pub(crate) async fn serve(context: &Context) -> Done {
    let path = std::env::current_exe()
        .map_err(|error| Failure::other(format!("this program cannot find itself: {error}")))?;
    let mut options: Vec<OsString> = vec!["--state-dir".into(), context.state.path().into()];
    options.extend(["--data-dir".into(), context.data_dir.clone().into()]);
    if let Some(server) = context.server() {
        options.extend(["--server".into(), server.into()]);
    }
    let profiles = context.profiles();
    if let Some(file) = profiles.file.as_ref().filter(|_| profiles.file_is_named) {
        options.extend(["--config".into(), file.into()]);
    }
    if let Some(profile) = &profiles.profile {
        options.extend(["--profile".into(), profile.into()]);
    }
    let token = context.token().map(|token| ("SANDBOX0_TOKEN".into(), token.into()));
    let program = Program { path, options, token, state: context.state.clone() };
    let in_order = s0_sidecar::serve(program).await;
    Ok(if in_order { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the schema of the settings.
pub(crate) fn print_config_schema(context: &Context) -> Done {
    context.screen.document(&config_schema());
    Ok(ExitCode::SUCCESS)
}

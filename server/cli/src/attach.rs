//! Attaching a directory, and detaching it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use s0_host::{Attachment, InitFrom, PauseOn, host};

use crate::args;
use crate::context::{Context, Workspace};
use crate::failure::{Done, Failure, code};
use crate::live;
use crate::platform;

/// What `s0 sync attach` was asked for.
pub(crate) struct Wanted {
    pub(crate) volume: String,
    pub(crate) directory: PathBuf,
    pub(crate) init: InitFrom,
    pub(crate) sandbox: Option<String>,
    pub(crate) pause: Option<PauseOn>,
}

impl From<args::InitFrom> for InitFrom {
    fn from(init: args::InitFrom) -> Self {
        match init {
            args::InitFrom::Auto => Self::Auto,
            args::InitFrom::Volume => Self::Volume,
            args::InitFrom::Local => Self::Local,
        }
    }
}

impl From<args::Pause> for PauseOn {
    fn from(pause: args::Pause) -> Self {
        match pause {
            args::Pause::Workspace => Self::Workspace,
            args::Pause::Path => Self::Path,
        }
    }
}

/// Makes the attachment, or finds the one that is there.
pub(crate) async fn make(context: &Context, wanted: Wanted) -> Result<Workspace, Failure> {
    let given = &wanted.directory;
    make_directory(given)?;
    let root = std::fs::canonicalize(given).map_err(|error| Failure::file(given, &error))?;
    for (directory, attachment) in context.state.list()? {
        if attachment.root == root {
            if attachment.volume_id == wanted.volume {
                return Ok(Workspace { directory, attachment });
            }
            return Err(Failure::other(format!(
                "{} is attached to {} already; `s0 sync detach {}` comes first",
                root.display(),
                attachment.volume_id,
                root.display()
            )));
        }
        // What lies in two workspaces would go round in circles.
        if attachment.root.starts_with(&root) || root.starts_with(&attachment.root) {
            return Err(Failure::other(format!(
                "{} and the workspace {} lie within each other; attach one of them only",
                root.display(),
                attachment.root.display()
            )));
        }
    }
    for own in [context.state.path(), &context.data_dir] {
        if own.starts_with(&root) {
            return Err(Failure::other(format!(
                "{} holds {}, which changes with each sync; attach a directory below it, or move \
                 that with --state-dir or --data-dir",
                root.display(),
                own.display()
            )));
        }
    }
    let service = context.service()?;
    let client = context.client()?;
    client.volume(&wanted.volume).await?;
    host::prepare(&root)?;
    let replica_id = format!("rep_{}", uuid());
    let usual = if wanted.sandbox.is_some() { PauseOn::Path } else { PauseOn::Workspace };
    let attachment = Attachment {
        replica_id: replica_id.clone(),
        volume_id: wanted.volume,
        root,
        service,
        sandbox_id: wanted.sandbox,
        pause: wanted.pause.unwrap_or(usual),
        init: wanted.init,
        ignore: Vec::new(),
    };
    let directory = context.state.attachment(&replica_id);
    directory.save(&attachment)?;
    Ok(Workspace { directory, attachment })
}

/// The word of an option's value, as it is kept.
pub(crate) fn word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// Makes the directory of a workspace, if it is not there.
pub(crate) fn make_directory(given: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(given).map_err(|error| {
        // The system says that something is there already, or that a part of
        // the path is none, without a word about which.
        let existing = given.ancestors().find(|path| path.symlink_metadata().is_ok());
        match existing {
            Some(path) if !path.is_dir() => {
                Failure::other(format!("{} is not a directory", path.display()))
            }
            _ => Failure::file(given, &error),
        }
    })
}

/// Random, so that a replica is known on no machine by that machine's name.
fn uuid() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Starts the host in the background, and waits until both sides are equal or
/// what is left waits for the user, unless nobody wants to wait.
pub(crate) async fn in_background(context: &Context, workspace: &Workspace, wait: bool) -> Done {
    let screen = &context.screen;
    let program = std::env::current_exe()?;
    let control = s0_host::spawn(&program, &context.state, &workspace.directory).await?;
    let attachment = &workspace.attachment;
    screen.line(format!("attached {} to {}", attachment.root.display(), attachment.volume_id));
    if !wait {
        screen.show(&attachment_json(attachment), String::new);
        return Ok(ExitCode::SUCCESS);
    }
    let status = live::until_settled(screen, control).await?;
    if screen.is_json() {
        screen.json(&status);
    }
    Ok(crate::sync::exit_code(&status))
}

fn attachment_json(attachment: &Attachment) -> serde_json::Value {
    serde_json::json!({
        "root": attachment.root,
        "volume_id": attachment.volume_id,
        "replica_id": attachment.replica_id,
    })
}

/// Runs the host in this process, and tells what happens.
pub(crate) async fn in_foreground(context: &Context, workspace: &Workspace) -> Done {
    let screen = &context.screen;
    let attachment = &workspace.attachment;
    // Who reads the line may end this process at once.
    let end = platform::asked_to_end();
    screen.line(format!(
        "attached {} to {}; Ctrl-C ends it",
        attachment.root.display(),
        attachment.volume_id
    ));
    let hosting = s0_host::run(&workspace.directory, false, end);
    let watching = live::tell(context, workspace);
    tokio::pin!(hosting);
    tokio::select! {
        ended = &mut hosting => ended?,
        // The host goes on when nobody can be told any more.
        told = watching => {
            if let Err(failure) = told {
                screen.warn(failure.to_string());
            }
            hosting.await?;
        }
    }
    screen.bottom("");
    screen.line("the host has ended; the workspace stays attached, and `s0 sync start` goes on");
    Ok(ExitCode::SUCCESS)
}

/// `s0 sync detach`.
pub(crate) async fn detach(context: &Context, near: Option<&Path>, target: Option<&str>) -> Done {
    let workspace = find(context, near, target)?;
    let screen = &context.screen;
    let attachment = &workspace.attachment;
    if let Ok(mut control) = workspace.control().await {
        if let Ok(s0_host::protocol::Answer::Status(status)) =
            control.ask(&s0_host::protocol::Request::Status).await
            && status.report.status.pending.uploads > 0
        {
            screen.warn(format!(
                "{} not in the Volume; the files stay here",
                crate::screen::count(status.report.status.pending.uploads, "local change")
                    + if status.report.status.pending.uploads == 1 { " is" } else { " are" }
            ));
        }
        crate::sync::stop_host(&workspace).await?;
    }
    let unregistered = match attachment.service.client() {
        Ok(client) => client
            .unregister(&attachment.volume_id, &attachment.replica_id)
            .await
            .map_err(|error| error.to_string()),
        Err(why) => Err(why),
    };
    if let Err(why) = unregistered {
        screen.warn(format!("the service still lists this replica: {why}"));
    }
    match host::clear(&attachment.root) {
        Ok(true) => {}
        Ok(false) => screen.warn(format!(
            "{} stays: there are files in it that are yours",
            attachment.root.join(".s0").display()
        )),
        Err(error) => screen.warn(format!("{}: {error}", attachment.root.join(".s0").display())),
    }
    workspace.directory.remove()?;
    screen.show(&attachment_json(attachment), || {
        format!(
            "detached {} from {}; the files and the Volume stay",
            attachment.root.display(),
            attachment.volume_id
        )
    });
    Ok(ExitCode::SUCCESS)
}

/// The workspace that a directory or a Volume names.
fn find(
    context: &Context,
    near: Option<&Path>,
    target: Option<&str>,
) -> Result<Workspace, Failure> {
    let Some(target) = target else { return context.workspace(near) };
    let mut of_volume: Vec<_> = context
        .state
        .list()?
        .into_iter()
        .filter(|(_, attachment)| attachment.volume_id == target)
        .collect();
    match of_volume.len() {
        0 => context.workspace(Some(Path::new(target))),
        1 => {
            let (directory, attachment) = of_volume.remove(0);
            Ok(Workspace { directory, attachment })
        }
        several => Err(Failure::with_code(
            format!("{several} workspaces are attached to {target}; name the directory"),
            code::FAILED,
        )),
    }
}

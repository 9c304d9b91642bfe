//! Attaching a directory, and detaching it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use s0_api::Client;
use s0_api::volumes::NewVolume;
use s0_host::host::{self, HeldRoot};
use s0_host::protocol::{Answer, Request};
use s0_host::{
    Attachment, AttachmentDir, Control, ControlError, HostError, InitFrom, PauseOn, SpawnError,
};
use s0_replica::shell::disk::STATE_DIR_NAME;

use crate::args;
use crate::context::{ANSWER, Context, Workspace, known_volume, soon};
use crate::failure::{Done, Failure};
use crate::live;
use crate::platform;
use crate::screen::{count, quoted};

/// What `s0 sync attach` was asked for. What is absent was left open.
#[derive(Default)]
pub(crate) struct Wanted {
    /// The Volume, or a new one.
    pub(crate) volume: Option<String>,
    pub(crate) directory: PathBuf,
    pub(crate) init: Option<InitFrom>,
    pub(crate) sandbox: Option<String>,
    pub(crate) pause: Option<PauseOn>,
    /// Patterns of what is not synced.
    pub(crate) ignore: Vec<String>,
    /// Patterns of what is held when a sandbox writes it.
    pub(crate) guarded: Option<Vec<String>>,
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

/// An attachment that was made, or found.
pub(crate) struct Attached {
    pub(crate) workspace: Workspace,
    /// What was made for it, if it was not there before.
    made: Option<Made>,
}

impl Attached {
    /// One that was there before.
    pub(crate) fn found(workspace: Workspace) -> Self {
        Self { workspace, made: None }
    }

    /// Takes back what was made, since the first host did not start.
    pub(crate) async fn take_back(self, context: &Context) {
        let Some(mut made) = self.made else { return };
        let Ok(_claim) = host::claim(&self.workspace.directory).await else { return };
        if let Err(error) = self.workspace.directory.remove() {
            context.screen.warn(error.to_string());
        }
        made.take_back(context).await;
    }
}

/// What was made on the way to an attachment.
#[derive(Default)]
struct Made {
    /// From the outermost to the workspace itself.
    directories: Vec<PathBuf>,
    /// The root, if it was prepared now.
    root: Option<PathBuf>,
    volume: Option<String>,
}

impl Made {
    /// Undoes it. What cannot be undone is said, and does not matter much.
    async fn take_back(&mut self, context: &Context) {
        if let Some(root) = self.root.take()
            && let Err(error) =
                HeldRoot::find(&root).and_then(|held| held.map(HeldRoot::clear).transpose())
        {
            context.screen.warn(error.to_string());
        }
        for directory in self.directories.drain(..).rev() {
            // Somebody may use it already; then it stays.
            let _ = std::fs::remove_dir(directory);
        }
        if let Some(volume) = self.volume.take()
            && let Err(failure) = delete_if_empty(context, &volume).await
        {
            context.screen.warn(format!("the new Volume {volume} stays: {failure}"));
        }
    }
}

async fn delete_if_empty(context: &Context, volume: &str) -> Result<(), Failure> {
    let client = context.client()?;
    if !soon(client.list_files(volume, "/")).await?.is_empty() {
        return Err(Failure::other("somebody has written to it"));
    }
    soon(client.delete_volume(volume, false)).await
}

/// Makes the attachment, or finds the one that is there.
pub(crate) async fn make(context: &Context, wanted: Wanted) -> Result<Attached, Failure> {
    let root = s0_host::canonical(&wanted.directory);
    // Two that look at the same time would both find nothing, and attach twice.
    let _lock = context.state.lock().await?;
    if let Some(workspace) = existing(context, &root, &wanted)? {
        return Ok(Attached::found(workspace));
    }
    suits(context, &root)?;
    let client = context.client()?;
    if let Some(volume) = &wanted.volume {
        known_volume(&client, volume).await?;
    }
    let mut made = Made::default();
    match attach(context, &client, root, wanted, &mut made).await {
        Ok(workspace) => Ok(Attached { workspace, made: Some(made) }),
        Err(failure) => {
            made.take_back(context).await;
            Err(failure)
        }
    }
}

/// The attachment of the directory, if it is what is wanted.
fn existing(context: &Context, root: &Path, wanted: &Wanted) -> Result<Option<Workspace>, Failure> {
    let found = match &wanted.volume {
        // Any will do, and so will the one of a directory above.
        None => context.state.find(root)?,
        Some(_) => context.state.list()?.into_iter().find(|(_, it)| it.root == root),
    };
    let Some((directory, attachment)) = found else { return Ok(None) };
    let mut differs = Vec::new();
    if wanted.volume.as_ref().is_some_and(|volume| *volume != attachment.volume_id) {
        differs.push(format!("to the Volume {}", attachment.volume_id));
    }
    if wanted.sandbox.is_some() && wanted.sandbox != attachment.sandbox_id {
        differs.push(match &attachment.sandbox_id {
            Some(sandbox) => format!("as the sandbox {sandbox}"),
            None => "as no sandbox".into(),
        });
    }
    if wanted.pause.is_some_and(|pause| pause != attachment.pause) {
        differs.push(format!("with --pause {}", word(&attachment.pause)));
    }
    if wanted.init.is_some_and(|init| init != attachment.init) {
        differs.push(format!("with --init-from {}", word(&attachment.init)));
    }
    if !wanted.ignore.is_empty() && wanted.ignore != attachment.ignore {
        differs.push(match &attachment.ignore[..] {
            [] => "without --ignore".into(),
            patterns => format!("with --ignore {}", patterns.join(" --ignore ")),
        });
    }
    if wanted.guarded.is_some() && wanted.guarded != attachment.guarded {
        differs.push(match attachment.guarded.as_deref() {
            None => "with the usual guarded paths".into(),
            Some([]) => "with --no-guard".into(),
            Some(patterns) => format!("with --guard {}", patterns.join(" --guard ")),
        });
    }
    differs.extend(context.differs_from(&attachment.service)?);
    if differs.is_empty() {
        return Ok(Some(Workspace { directory, attachment }));
    }
    Err(Failure::other(format!(
        "{} is attached already, {}; `s0 sync detach {}` comes first",
        attachment.root.display(),
        differs.join(", "),
        quoted(&attachment.root)
    )))
}

/// The word of an option's value, as it is kept.
pub(crate) fn word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// Whether a directory, which need not be there yet, can be a workspace.
pub(crate) fn suits(context: &Context, root: &Path) -> Result<(), Failure> {
    // The system says that something is there already, or that a part of the path
    // is none, without a word about which.
    let there = root.ancestors().find(|path| path.symlink_metadata().is_ok());
    if let Some(path) = there
        && !path.is_dir()
    {
        return Err(Failure::other(format!("{} is not a directory", path.display())));
    }
    for (_, attachment) in context.state.list()? {
        // What lies in two workspaces would go round in circles.
        if attachment.root.starts_with(root) || root.starts_with(&attachment.root) {
            return Err(Failure::other(format!(
                "{} and the workspace {} lie within each other, and what is in both would go round \
                 in circles; choose another directory, or detach that one first (`s0 sync detach {}`)",
                root.display(),
                attachment.root.display(),
                quoted(&attachment.root)
            )));
        }
    }
    for own in [context.state.path(), &context.data_dir] {
        // A link may lead there.
        let own = s0_host::canonical(own);
        if own.starts_with(root) {
            return Err(Failure::other(format!(
                "{} holds {}, which changes with each sync; attach a directory below it, or move \
                 that with --state-dir or --data-dir",
                root.display(),
                own.display()
            )));
        }
        if root.starts_with(&own) {
            return Err(Failure::other(format!(
                "{} lies in {}, which is s0's own; attach a directory elsewhere, or move that with \
                 --state-dir or --data-dir",
                root.display(),
                own.display()
            )));
        }
    }
    Ok(())
}

/// Makes all that an attachment needs, the Volume last: that one others can see.
async fn attach(
    context: &Context,
    client: &Client,
    root: PathBuf,
    wanted: Wanted,
    made: &mut Made,
) -> Result<Workspace, Failure> {
    let missing: Vec<_> = root.ancestors().take_while(|path| !path.is_dir()).collect();
    for directory in missing.into_iter().rev() {
        std::fs::create_dir(directory).map_err(|error| Failure::file(directory, &error))?;
        made.directories.push(directory.into());
    }
    let held = HeldRoot::take(&root)?;
    if held.is_new {
        made.root = Some(root.clone());
    }
    held.prepare()?;
    let volume_id = match wanted.volume {
        Some(volume) => volume,
        None => {
            let new = NewVolume { access_mode: Some("RWX".into()), ..NewVolume::default() };
            let volume = soon(client.create_volume(&new)).await?.id;
            made.volume = Some(volume.clone());
            volume
        }
    };
    let usual = if wanted.sandbox.is_some() { PauseOn::Path } else { PauseOn::Workspace };
    let attachment = Attachment {
        replica_id: format!("rep_{}", uuid()),
        volume_id,
        root,
        service: context.service()?,
        sandbox_id: wanted.sandbox,
        pause: wanted.pause.unwrap_or(usual),
        init: wanted.init.unwrap_or_default(),
        ignore: wanted.ignore,
        guarded: wanted.guarded,
    };
    let directory = context.state.attachment(&attachment.replica_id);
    directory.save(&attachment)?;
    Ok(Workspace { directory, attachment })
}

/// Random, so that a replica is known on no machine by that machine's name.
fn uuid() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Starts the host in the background, and waits until both sides are equal or
/// what is left waits for the user, unless nobody wants to wait.
pub(crate) async fn in_background(context: &Context, attached: Attached, wait: bool) -> Done {
    let screen = &context.screen;
    let workspace = &attached.workspace;
    let program = std::env::current_exe()?;
    let control = match s0_host::spawn(&program, &context.state, &workspace.directory).await {
        Ok(control) => control,
        Err(error) => {
            // One that is only slow may go on.
            if matches!(error, SpawnError::Ended(_) | SpawnError::Io(_)) {
                attached.take_back(context).await;
            }
            return Err(error.into());
        }
    };
    let attachment = &workspace.attachment;
    screen.line(format!("attached {} to {}", attachment.root.display(), attachment.volume_id));
    if !wait {
        screen.show(&attachment_json(attachment), String::new);
        return Ok(ExitCode::SUCCESS);
    }
    let status = live::until_settled(screen, control).await?;
    if screen.is_for_programs() {
        screen.document(&status);
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
pub(crate) async fn in_foreground(context: &Context, attached: Attached) -> Done {
    let screen = &context.screen;
    let workspace = &attached.workspace;
    let attachment = &workspace.attachment;
    // Who reads the line may end this process at once.
    let end = platform::asked_to_end();
    screen.line(format!(
        "attached {} to {}; Ctrl-C ends it",
        attachment.root.display(),
        attachment.volume_id
    ));
    let ended = {
        let hosting = s0_host::run(&workspace.directory, false, end);
        let watching = live::tell(context, workspace);
        tokio::pin!(hosting);
        tokio::select! {
            ended = &mut hosting => ended,
            // The host goes on when nobody can be told any more.
            told = watching => {
                if let Err(failure) = told {
                    screen.warn(failure.to_string());
                }
                hosting.await
            }
        }
    };
    screen.bottom("");
    if let Err(error) = ended {
        attached.take_back(context).await;
        return Err(error.into());
    }
    screen.line(format!(
        "the host has ended; the workspace stays attached, and `s0 sync start -C {}` goes on",
        quoted(&attachment.root)
    ));
    Ok(ExitCode::SUCCESS)
}

/// `s0 sync detach`.
pub(crate) async fn detach(
    context: &Context,
    near: Option<&Path>,
    target: Option<&str>,
    force: bool,
) -> Done {
    let screen = &context.screen;
    let Workspace { directory, attachment } = match find(context, near, target)? {
        Found::Workspace(workspace) => *workspace,
        Found::Damaged(directory) => return forget_damaged(context, &directory).await,
    };
    warn_of_what_is_not_across(context, &directory).await;
    if force
        && let Err(ControlError::NoAnswer { pid: Some(pid) }) = Control::connect(&directory).await
    {
        // The connection was taken, so that the process which holds the lock is there.
        platform::kill_process(pid)?;
        screen.warn(format!("the host (process {pid}) did not answer, and was ended"));
    }
    // No host runs from here on, not even one that is starting now.
    let _claim = host::claim(&directory).await.map_err(|error| match error {
        HostError::NotTakenOver(_) => Failure::other(format!(
            "{error}; `s0 sync detach {} --force` ends it, too",
            quoted(&attachment.root)
        )),
        other => other.into(),
    })?;
    let volume_is_gone = match unregister(&attachment).await {
        Err(failure) if failure.is_not_found() => true,
        Err(failure) => {
            screen.warn(format!("the service still lists this replica: {failure}"));
            false
        }
        Ok(()) => false,
    };
    let own = attachment.root.join(STATE_DIR_NAME);
    match HeldRoot::find(&attachment.root).map(|held| held.map(HeldRoot::clear)) {
        Ok(None | Some(Ok(true))) => {}
        Ok(Some(Ok(false))) => {
            screen.warn(format!("{} stays: there are files in it that are yours", own.display()));
        }
        Err(error) | Ok(Some(Err(error))) => {
            screen.warn(format!("{} stays: {error}", own.display()));
        }
    }
    directory.remove()?;
    screen.show(&attachment_json(&attachment), || {
        let stay = if volume_is_gone { "the files stay" } else { "the files and the Volume stay" };
        format!("detached {} from {}; {stay}", attachment.root.display(), attachment.volume_id)
    });
    Ok(ExitCode::SUCCESS)
}

async fn unregister(attachment: &Attachment) -> Result<(), Failure> {
    let client = attachment.service.client().map_err(Failure::other)?;
    soon(client.unregister(&attachment.volume_id, &attachment.replica_id)).await
}

async fn warn_of_what_is_not_across(context: &Context, directory: &AttachmentDir) {
    let Ok(mut control) = Control::connect(directory).await else { return };
    let asked = control.ask(&Request::Status);
    let Ok(Ok(Answer::Status(status))) = tokio::time::timeout(ANSWER, asked).await else { return };
    let uploads = status.report.status.pending.uploads;
    if uploads > 0 {
        let word = if uploads == 1 { "is" } else { "are" };
        let changes = count(uploads, "local change");
        context.screen.warn(format!("{changes} {word} not in the Volume; the files stay here"));
    }
}

/// Forgets an attachment of which nothing is known any more.
async fn forget_damaged(context: &Context, directory: &AttachmentDir) -> Done {
    let _claim = host::claim(directory).await?;
    directory.remove()?;
    let replica = directory.replica();
    context.screen.show(&serde_json::json!({ "replica_id": replica }), || {
        format!(
            "forgot {replica}; the files and the Volume stay. The directory was not known any \
             more: a {STATE_DIR_NAME} in it may stay too, and serves the next attachment"
        )
    });
    Ok(ExitCode::SUCCESS)
}

/// What `s0 sync detach` was given.
enum Found {
    Workspace(Box<Workspace>),
    Damaged(AttachmentDir),
}

/// What a Volume, a replica or a directory names. Only who names nothing means
/// the workspace around them: a mistyped word must not end that one.
fn find(context: &Context, near: Option<&Path>, target: Option<&str>) -> Result<Found, Failure> {
    let Some(target) = target else { return Ok(Found::Workspace(context.workspace(near)?.into())) };
    let root = s0_host::canonical(Path::new(target));
    let (mut of_volume, mut around) = (Vec::new(), None);
    for (directory, attachment) in context.state.list()? {
        if attachment.replica_id == target || attachment.root == root {
            return Ok(Found::Workspace(Workspace { directory, attachment }.into()));
        }
        if attachment.volume_id == target {
            of_volume.push(Workspace { directory, attachment });
        } else if root.exists() && root.starts_with(&attachment.root) {
            around = Some(attachment.root);
        }
    }
    if let Some(workspace) = of_volume.pop() {
        if of_volume.is_empty() {
            return Ok(Found::Workspace(workspace.into()));
        }
        return Err(Failure::other(format!(
            "{} workspaces are attached to {target}; name the directory",
            of_volume.len() + 1
        )));
    }
    for (directory, _) in context.state.damaged()? {
        if directory.replica() == target {
            return Ok(Found::Damaged(directory));
        }
    }
    Err(Failure::other(match around {
        Some(around) => format!(
            "{target} is a part of the workspace {}; `s0 sync detach {}` detaches the whole",
            around.display(),
            quoted(&around)
        ),
        None => format!(
            "{target} is neither the directory of a workspace nor an attached Volume or replica; \
             `s0 sync list` shows what is attached"
        ),
    }))
}

//! Making a sandbox: starting its warden.

use std::io::{self, PipeWriter};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::bwrap;
use crate::client::{Control, ControlError};
use crate::layout::{PathError, mount_point};
use crate::platform;
use crate::protocol::Status;
use crate::state::{Record, SandboxDir, Sandboxes, StateError, now};

/// How long a warden may take until it answers.
const DEADLINE: Duration = Duration::from_secs(30);
/// How often it is looked whether it does.
const LOOK: Duration = Duration::from_millis(5);

/// What the user's token is called in the environment.
const TOKEN: &str = "SANDBOX0_TOKEN";

/// Why no sandbox was made.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// Bubblewrap is missing.
    #[error(
        "sandboxes need bubblewrap, and there is no `bwrap` on your PATH; install your system's \
         package `bubblewrap` (Debian, Ubuntu: `apt install bubblewrap`)"
    )]
    NoBubblewrap,
    /// A directory that was asked for.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The warden ended at once.
    #[error("the sandbox could not be made:\n{0}")]
    Ended(String),
    /// It says nothing.
    #[error("the sandbox's warden does not answer; its log is {}", .0.display())]
    Silent(PathBuf),
    /// It cannot be started.
    #[error("the sandbox's warden cannot be started: {0}")]
    Io(#[from] io::Error),
}

/// What a sandbox shall be.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Its name.
    pub name: Option<String>,
    /// Directories of its own.
    pub paths: Vec<PathBuf>,
    /// The home of its processes.
    pub home: PathBuf,
    /// Directories of the host that are nothing to it.
    pub hidden: Vec<PathBuf>,
    /// Whether it ends with who makes it.
    pub is_leashed: bool,
}

/// A sandbox that runs.
pub struct Spawned {
    /// Where its state is.
    pub directory: SandboxDir,
    /// What it is.
    pub record: Record,
    /// How it is.
    pub status: Status,
    /// The sandbox ends when this is dropped, if it was to end with who makes it.
    pub leash: Option<PipeWriter>,
    /// Its warden. It goes on by itself.
    pub warden: Child,
}

/// Makes a sandbox: starts `program sandbox-warden --id …` on its own. `program` must know how to
/// be a warden; see [`crate::warden::run`].
///
/// # Errors
/// None was made, and nothing is left of it; see [`SpawnError`].
pub fn spawn(
    program: &Path,
    state: &Path,
    sandboxes: &Sandboxes,
    wanted: Wanted,
) -> Result<Spawned, SpawnError> {
    bwrap::find().ok_or(SpawnError::NoBubblewrap)?;
    let mut paths = Vec::new();
    for path in &wanted.paths {
        let path = mount_point(path)?;
        // The first one that was named is where commands begin.
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    let record = Record {
        id: String::new(),
        name: wanted.name,
        created_at: now(),
        paths,
        home: wanted.home,
        hidden: wanted.hidden,
        warden: None,
        init: None,
    };
    let new = sandboxes.make(record)?;
    let directory = new.directory;
    let id = directory.path().file_name().unwrap_or_default();
    let mut command = Command::new(program);
    command.arg("--state-dir").arg(state).arg("sandbox-warden").arg("--id").arg(id);
    // A warden has tokens of its own, for one thing each.
    command.current_dir("/").env_remove(TOKEN).stdin(Stdio::null());
    let mut leash = None;
    if wanted.is_leashed {
        let (end, ours) = io::pipe()?;
        leash = Some(ours);
        command.arg("--leashed").stdin(end);
    }
    // The lock goes to the warden as a part of it, and is never free in between.
    let log = platform::private_file(&directory.log())?;
    let mut warden = command.stdout(new.lock).stderr(log).spawn()?;
    // It holds the warden's ends of both.
    drop(command);
    match answer(&directory, &mut warden) {
        Ok(status) => {
            let record = directory.load()?;
            let record = record.ok_or_else(|| SpawnError::Ended("it ended at once".into()))?;
            Ok(Spawned { directory, record, status, leash, warden })
        }
        Err(error) => {
            if matches!(error, SpawnError::Ended(_)) {
                // It has ended, so that nobody else removes it.
                directory.remove()?;
            }
            Err(error)
        }
    }
}

/// Waits until a warden answers, or has ended.
fn answer(directory: &SandboxDir, warden: &mut Child) -> Result<Status, SpawnError> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let ended = warden.try_wait()?;
        let asked = Control::connect(directory).and_then(|mut control| control.status());
        match (asked, ended) {
            (Ok(status), _) => return Ok(status),
            (Err(_), Some(status)) => {
                let said = std::fs::read(directory.log()).unwrap_or_default();
                let said = String::from_utf8_lossy(&said).trim().to_owned();
                let said = if said.is_empty() { status.to_string() } else { said };
                return Err(SpawnError::Ended(said));
            }
            (Err(ControlError::NotRunning | ControlError::Broken(_)), None)
                if Instant::now() < deadline => {}
            (Err(_), None) => return Err(SpawnError::Silent(directory.log())),
        }
        std::thread::sleep(LOOK);
    }
}

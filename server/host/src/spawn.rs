//! Starting a host that outlives the one who starts it.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::{Control, ControlError};
use crate::platform;
use crate::protocol::Request;
use crate::state::{AttachmentDir, StateDir};

/// How long a host may take until it answers.
const DEADLINE: Duration = Duration::from_secs(20);
/// How often it is asked whether it answers. A restart takes a fifth of a second, and asking some microseconds.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// A log that is longer is put aside when a host starts.
const LONG_LOG: u64 = 16 << 20;

/// Why no host was started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// It ended at once.
    #[error("the host ended at once:\n{0}")]
    Ended(String),
    /// It says nothing.
    #[error("the host does not answer; its log is {}", .0.display())]
    Silent(PathBuf),
    /// It cannot be started.
    #[error("the host cannot be started: {0}")]
    Io(#[from] io::Error),
    /// Its answer.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// Starts `program host --replica …` on its own, unless a host runs already.
/// Returns when it answers. `program` must know how to be a host; see
/// [`crate::run`] and [`crate::detach`].
///
/// # Errors
/// It does not run; see [`SpawnError`].
pub async fn spawn(
    program: &Path,
    state: &StateDir,
    directory: &AttachmentDir,
) -> Result<Control, SpawnError> {
    if let Some(control) = answering(directory, Instant::now() + DEADLINE).await? {
        return Ok(control);
    }
    let path = directory.log();
    if std::fs::metadata(&path).is_ok_and(|log| log.len() > LONG_LOG) {
        std::fs::rename(&path, path.with_extension("old"))?;
    }
    let log = platform::private_file(&path, true)?;
    let begins = log.metadata()?.len();
    let replica = directory.path().file_name().unwrap_or_default();
    let mut child = Command::new(program)
        .arg("--state-dir")
        .arg(state.path())
        .args(["host", "--replica"])
        .arg(replica)
        // The workspace's own directory must not be held, or it could not be unmounted.
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let deadline = Instant::now() + DEADLINE;
    loop {
        // In this order: if it ended because another host runs, that one answers.
        let ended = child.try_wait()?;
        match answering(directory, deadline).await {
            Ok(Some(control)) => return Ok(control),
            // It may take its time to begin.
            Ok(None) | Err(SpawnError::Control(ControlError::NoAnswer { .. })) => {}
            Err(error) => return Err(error),
        }
        if let Some(status) = ended {
            let said = tail(&path, begins, 4096);
            let said = if said.trim().is_empty() { status.to_string() } else { said };
            return Err(SpawnError::Ended(said.trim_end().to_owned()));
        }
        if Instant::now() > deadline {
            return Err(SpawnError::Silent(path));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The host, if one answers. The socket of one that is about to end, or was
/// killed just now, takes connections that nobody will answer.
async fn answering(
    directory: &AttachmentDir,
    deadline: Instant,
) -> Result<Option<Control>, SpawnError> {
    let connected = async {
        let mut control = Control::connect(directory).await?;
        control.ask(&Request::Status).await?;
        Ok(control)
    };
    let left = deadline.saturating_duration_since(Instant::now());
    match tokio::time::timeout(left, connected).await {
        Ok(Ok(control)) => Ok(Some(control)),
        Ok(Err(ControlError::NotRunning | ControlError::Broken(_) | ControlError::Refused(_))) => {
            Ok(None)
        }
        Ok(Err(error)) => Err(error.into()),
        // The system takes connections for a host that is stuck.
        Err(_) => Err(SpawnError::Silent(directory.log())),
    }
}

/// The end of a log from `begins` on, at most `limit` bytes of it.
#[must_use]
pub fn tail(path: &Path, begins: u64, limit: u64) -> String {
    let read = || {
        let mut log = std::fs::File::open(path)?;
        let end = log.metadata()?.len();
        log.seek(SeekFrom::Start(begins.max(end.saturating_sub(limit))))?;
        let mut bytes = Vec::new();
        log.take(limit).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_that_is_stuck_is_not_waited_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let directory = StateDir::new(dir.path().to_owned()).attachment("r");
        std::fs::create_dir_all(directory.path()).unwrap();
        let _stuck = platform::listen(&directory.socket()).unwrap();
        let asked = answering(&directory, Instant::now() + Duration::from_millis(50));
        let asked = tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap();
        assert!(matches!(asked, Err(SpawnError::Silent(_))));
    }
}

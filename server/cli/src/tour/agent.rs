//! The agent of the tour: another process that writes into a sandbox's files
//! and knows nothing of sync.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::failure::{Done, Failure};
use crate::screen::Screen;

/// What the agent shall write.
#[derive(Serialize, Deserialize)]
struct Task {
    path: PathBuf,
    text: String,
}

/// The agent's process.
pub(super) struct Agent {
    child: Child,
    tasks: ChildStdin,
    done: Lines<BufReader<ChildStdout>>,
}

impl Agent {
    pub(super) async fn start(root: &Path) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("tour-agent")
            .arg(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(tasks), Some(done)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::other("the agent's process has no pipes"));
        };
        Ok(Self { child, tasks, done: BufReader::new(done).lines() })
    }

    /// Has it write a file.
    pub(super) async fn write(&mut self, path: &str, text: &str) -> Result<(), Failure> {
        let mut task = serde_json::to_vec(&Task { path: path.into(), text: text.into() })?;
        task.push(b'\n');
        self.tasks.write_all(&task).await?;
        match self.done.next_line().await? {
            Some(_) => Ok(()),
            None => Err(Failure::other("the agent's process has ended")),
        }
    }

    pub(super) async fn end(mut self) {
        drop(self.tasks);
        // It ends with its tasks; if not, it is killed when this is dropped.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), self.child.wait()).await;
    }
}

/// Acts as the agent: writes what standard input says, until it ends.
pub(crate) async fn act(screen: &Screen, root: &Path) -> Done {
    let mut tasks = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = tasks.next_line().await? {
        let task: Task = serde_json::from_str(&line)?;
        super::write(&root.join(&task.path), &task.text)?;
        screen.line("done");
    }
    Ok(ExitCode::SUCCESS)
}

//! The program itself, for what its command line does already: attaching,
//! snapshots, a second directory for an agent.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use s0_host::StateDir;
use serde_json::Value;

/// How this program is called again.
#[derive(Debug, Clone)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// Options that all commands take: where things are, who is asked.
    pub options: Vec<OsString>,
    /// The token, which goes through the environment, where nobody else sees it.
    pub token: Option<(OsString, OsString)>,
    /// What is attached on this machine.
    pub state: StateDir,
}

impl Program {
    /// Whether a service was named, so that none is to be started here.
    pub(crate) fn names_service(&self) -> bool {
        self.options.iter().any(|option| option == "--server")
    }

    /// Runs a command and gives what it printed.
    pub(crate) async fn run<S: Into<OsString>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Value, String> {
        let mut command = tokio::process::Command::new(&self.path);
        command.args(&self.options).args(["-o", "json"]);
        command.args(arguments.into_iter().map(Into::into));
        if let Some((name, value)) = &self.token {
            command.env(name, value);
        }
        command.current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
        let done =
            command.output().await.map_err(|error| format!("{}: {error}", self.path.display()))?;
        let said = String::from_utf8_lossy(&done.stderr);
        // Whatever waits for the user is told by the state.
        if !done.status.success() && !matches!(done.status.code(), Some(3..=5)) {
            return Err(complaint(said.trim()).unwrap_or_else(|| done.status.to_string()));
        }
        // The last document is the answer; those before tell how far it has come.
        let text = String::from_utf8_lossy(&done.stdout);
        let mut documents = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        let mut last = Value::Null;
        while let Some(Ok(document)) = documents.next() {
            last = document;
        }
        Ok(last)
    }
}

/// What the program complains of, in words: it says so as JSON too.
fn complaint(said: &str) -> Option<String> {
    let last = said.lines().last()?;
    let parsed: Option<Value> = serde_json::from_str(last).ok();
    let error = parsed.as_ref().and_then(|it| it["error"].as_str()).map(str::to_owned);
    error.or_else(|| Some(said.to_owned()))
}

/// A path as an argument.
pub(crate) fn argument(path: &Path) -> OsString {
    path.as_os_str().to_owned()
}

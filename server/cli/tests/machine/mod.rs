//! A machine for tests: a service, directories of its own, and the program.

#![allow(dead_code, reason = "each test file uses its part of this")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The program, without anything of the user's environment that it looks at.
pub(crate) fn s0() -> Command {
    let program = std::env::var_os("S0_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_s0").into());
    let mut command = Command::new(program);
    for variable in [
        "S0_STATE_DIR",
        "S0_DATA_DIR",
        "S0_CONFIG",
        "S0_PROFILE",
        "SANDBOX0_BASE_URL",
        "SANDBOX0_TOKEN",
        "S0_LOG",
    ] {
        command.env_remove(variable);
    }
    // The profiles of whoever runs the tests are not ours.
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    command
}

fn serve(data: &Path) -> Child {
    let mut command = s0();
    command.arg("--data-dir").arg(data).arg("serve");
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("listening on http://127.0.0.1:"), "{line:?}");
    process
}

/// A running service.
pub(crate) struct Service {
    pub(crate) base: tempfile::TempDir,
    process: Child,
}

impl Service {
    pub(crate) fn start() -> Self {
        let base = tempfile::tempdir().unwrap();
        let process = serve(&base.path().join("data"));
        Self { base, process }
    }

    /// Ends it as a power cut would.
    pub(crate) fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub(crate) fn start_again(&mut self) {
        self.process = serve(&self.base.path().join("data"));
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.base.path().join("data")
    }

    /// A user's machine with a workspace directory, named for the test's reader.
    pub(crate) fn machine(&self, name: &str) -> Machine {
        let root = self.base.path().join(name);
        std::fs::create_dir_all(&root).unwrap();
        Machine {
            root: root.canonicalize().unwrap(),
            state: self.base.path().join(format!("{name}-state")),
            data: self.base.path().join("data"),
        }
    }

    pub(crate) fn volume(&self) -> String {
        self.machine("anybody").says(&["volume", "create"]).trim().to_owned()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A machine with one workspace.
pub(crate) struct Machine {
    pub(crate) root: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) data: PathBuf,
}

impl Machine {
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = s0();
        command.arg("--state-dir").arg(&self.state).arg("--data-dir").arg(&self.data);
        command.args(arguments).current_dir(&self.root).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a command prints; it must succeed.
    pub(crate) fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {}\n{out}\n{err}", output.status);
        out
    }

    /// What a command says that must fail with this exit code.
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) -> String {
        failure(code, self.command(arguments))
    }

    /// The exit code of a command, and what it prints as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.run(&[&["-o", "json"], arguments].concat());
        let out = text(&output.stdout);
        let value = serde_json::from_str(&out)
            .unwrap_or_else(|_| panic!("{arguments:?}: {out}\n{}", text(&output.stderr)));
        (output.status.code().unwrap(), value)
    }

    pub(crate) fn flush(&self) {
        let (code, flushed) = self.json(&["sync", "flush"]);
        assert_eq!((code, &flushed["done"]), (0, &Value::Bool(true)), "{flushed}");
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let mut file = std::fs::File::create(self.root.join(path)).unwrap();
        file.write_all(content.as_bytes()).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }

    pub(crate) fn waits_for(&self, path: &str, content: &str) {
        until(&format!("{path} holds {content:?}"), || self.read(path).as_deref() == Some(content));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.run(&["sync", "stop"]);
    }
}

/// What a command says that must fail with this exit code.
pub(crate) fn failure(code: i32, mut command: Command) -> String {
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {}\n{said}", text(&output.stdout));
    said
}

/// Sends a signal to one process of this test.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").arg(name).arg(pid.to_string()).status().unwrap();
    assert!(sent.success(), "{name} to {pid}");
}

pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to be that {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// All that is in a directory, by name.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

//! What depends on the operating system: signals, the user's directories, logs.

use std::path::{Path, PathBuf};

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Ready when the user or the system wants this process to end. The signals are
/// caught from the call on, not only from the first poll.
pub(crate) fn asked_to_end() -> impl Future<Output = ()> + Send + 'static {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let caught = kinds.map(signal);
    async move {
        let mut signals: Vec<_> = caught.into_iter().flatten().collect();
        std::future::poll_fn(|context| {
            let mut all = signals.iter_mut();
            if all.any(|signal| signal.poll_recv(context).is_ready()) {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
    }
}

/// Asks another process to end.
pub(crate) fn end_process(pid: u32) -> std::io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or_else(|| std::io::Error::other("no process has this number"))?;
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::TERM)?)
}

/// How many columns the terminal has.
pub(crate) fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Makes a directory for the user alone. One that is there, and is the user's, is
/// closed to others, unless it is made for many (`/tmp`).
pub(crate) fn private_directory(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let found = std::fs::metadata(path)?;
    let mode = found.permissions().mode();
    let is_ours = found.uid() == rustix::process::geteuid().as_raw();
    if is_ours && mode & 0o077 != 0 && mode & 0o1000 == 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o700))?;
    }
    Ok(())
}

/// Opens a log to be written on, for the user alone.
pub(crate) fn private_log(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let log = std::fs::File::options().create(true).append(true).mode(0o600).open(path)?;
    log.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    Ok(log)
}

/// The permissions that a new file asks for; the user's mask takes some away.
pub(crate) fn new_file(executable: bool) -> std::fs::Permissions {
    let mode = if executable { 0o777 } else { 0o666 };
    std::os::unix::fs::PermissionsExt::from_mode(mode)
}

/// The permission bits of a file.
pub(crate) fn mode(file: &std::fs::Metadata) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o777
}

/// Where the state of this user's hosts is.
pub(crate) fn default_state_dir() -> Option<PathBuf> {
    directory("XDG_STATE_HOME", ".local/state")
}

/// Where the service of this user keeps its data.
pub(crate) fn default_data_dir() -> Option<PathBuf> {
    directory("XDG_DATA_HOME", ".local/share")
}

fn directory(variable: &str, below_home: &str) -> Option<PathBuf> {
    let given = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::home_dir().map(|home| home.join(below_home));
    given.or_else(home).map(|path| path.join("s0"))
}

/// Sends what is logged to standard error. `S0_LOG` says how much.
pub(crate) fn log_to_stderr(talkative: bool) {
    let usual = if talkative { "info" } else { "error" };
    let filter = EnvFilter::try_from_env("S0_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| OneLine)
        .with_ansi(false)
        .try_init();
}

/// Standard error, for one event of the log at a time. Names in it come from
/// others, and must not look like another event.
struct OneLine;

impl std::io::Write for OneLine {
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = crate::screen::plain(text.trim_end_matches('\n')).into_owned() + "\n";
        std::io::stderr().lock().write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().lock().flush()
    }
}

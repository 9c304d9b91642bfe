//! What depends on the operating system: signals, the user's directories, logs.

use std::path::PathBuf;

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
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}

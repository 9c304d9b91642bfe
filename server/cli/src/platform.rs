//! What depends on the operating system: signals, the user's directories, logs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;

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
    send(pid, rustix::process::Signal::TERM)
}

/// Ends another process, whether it listens or not.
pub(crate) fn kill_process(pid: u32) -> std::io::Result<()> {
    send(pid, rustix::process::Signal::KILL)
}

fn send(pid: u32, signal: rustix::process::Signal) -> std::io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or_else(|| std::io::Error::other("no process has this number"))?;
    Ok(rustix::process::kill_process(pid, signal)?)
}

/// Whether one more process may be told of changes in a directory; if not, why, and
/// the setting that is in the way.
pub(crate) fn can_watch(directory: &Path) -> Result<(), (std::io::Error, &'static str)> {
    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
    let instance = inotify::init(CreateFlags::CLOEXEC)
        .map_err(|error| (error.into(), "fs.inotify.max_user_instances"))?;
    inotify::add_watch(&instance, directory, WatchFlags::CLOSE_WRITE)
        .map(drop)
        .map_err(|error| (error.into(), "fs.inotify.max_user_watches"))
}

/// How many directories this user's processes may watch, where the system says it.
pub(crate) fn watch_limit() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").ok()?;
    text.trim().parse().ok()
}

/// How many bytes a file system has left for this user.
pub(crate) fn free_bytes(path: &Path) -> std::io::Result<u64> {
    let said = rustix::fs::statvfs(path)?;
    Ok(said.f_bavail.saturating_mul(said.f_frsize))
}

/// Whether this process may make files in a directory.
pub(crate) fn may_write(directory: &Path) -> std::io::Result<()> {
    use rustix::fs::Access;
    Ok(rustix::fs::access(directory, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)?)
}

/// How many columns the terminal has.
pub(crate) fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Whether colours are welcome, where there is a terminal to show them.
pub(crate) fn wants_colours() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
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

/// Where the profiles of this user are.
pub(crate) fn default_config() -> Option<PathBuf> {
    directory("XDG_CONFIG_HOME", ".config").map(|directory| directory.join("config.toml"))
}

fn directory(variable: &str, below_home: &str) -> Option<PathBuf> {
    let given = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::home_dir().map(|home| home.join(below_home));
    given.or_else(home).map(|path| path.join("s0"))
}

/// Sends what is logged to standard error. `S0_LOG` says how much.
pub(crate) fn log_to_stderr(talkative: bool, format: LogFormat) {
    let usual = if talkative { "info" } else { "error" };
    let filter = EnvFilter::try_from_env("S0_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    let _ = match format {
        LogFormat::Text => log.with_writer(|| OneLine).try_init(),
        LogFormat::Json => log.json().with_span_list(false).with_writer(std::io::stderr).try_init(),
    };
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

/// How often it is looked whether the work is over, and the processor time in that while
/// that counts as none.
const QUIET: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(50));

/// Memory that was needed for a while goes back to the system: what is large at once,
/// the rest when the work is over. A host and a service run for days.
pub(crate) fn be_frugal() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // Two heaps for all threads, and no threshold that grows with what was asked for once.
        const LARGE: i32 = 1 << 20;
        let choices = [
            (libc::M_ARENA_MAX, 2),
            (libc::M_MMAP_THRESHOLD, LARGE),
            (libc::M_TRIM_THRESHOLD, LARGE),
        ];
        for (what, value) in choices {
            // SAFETY: it only sets numbers of the allocator, before there are other threads.
            #[expect(unsafe_code, reason = "nothing else speaks to the allocator")]
            unsafe {
                libc::mallopt(what, value);
            }
        }
        let look = || {
            let mut owed = false;
            let mut before = processor_time();
            loop {
                std::thread::sleep(QUIET.0);
                let now = processor_time();
                if now.saturating_sub(before) > QUIET.1 {
                    owed = true;
                } else if std::mem::take(&mut owed) {
                    // SAFETY: it takes no memory from anybody that is in use.
                    #[expect(unsafe_code, reason = "nothing else speaks to the allocator")]
                    unsafe {
                        libc::malloc_trim(0);
                    }
                }
                // What the giving back itself took is not work.
                before = processor_time();
            }
        };
        // Without it only memory is lost.
        let _ = std::thread::Builder::new().name("frugal".into()).spawn(look);
    }
}

/// The processor time that this process has taken.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

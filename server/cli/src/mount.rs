//! Mounts of Volumes right here, outside of any sandbox. A process in the background serves
//! each; it ends when it is unmounted, however that comes about.

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use s0_mount::{Options, Performer, Reach, platform as kernel};
use s0_tree::Hash;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::args::MountOptions;
use crate::context::{Context, known_volume};
use crate::failure::{Done, Failure};
use crate::platform;

/// How long a mount may take to begin, and to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether one has ended.
const LOOK: Duration = Duration::from_millis(10);

/// Mounts a Volume at a directory, and leaves it served by a process in the background.
pub(crate) async fn here(
    context: &Context,
    volume: &str,
    path: &Path,
    (read_only, cache): (bool, bytesize::ByteSize),
) -> Result<(), Failure> {
    let state = context.state.path();
    let logs = state.join("mounts");
    platform::private_directory(&logs).map_err(|error| Failure::file(&logs, &error))?;
    let log_path = logs.join("mounts.log");
    let log = platform::private_log(&log_path).map_err(|e| Failure::file(&log_path, &e))?;
    let begins = log.metadata().map_or(0, |log| log.len());
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command.arg("--state-dir").arg(state).arg("--data-dir").arg(&context.data_dir);
    if let Some(server) = context.server() {
        command.args(["--server", server]);
    }
    if let Some(token) = context.token() {
        // Not as an argument, which everybody on this machine can read.
        command.env("SANDBOX0_TOKEN", token);
    }
    command.args(["mount-host", "--volume-id", volume, "--path"]).arg(path);
    command.args(["--cache", &cache.as_u64().to_string()]);
    if read_only {
        command.arg("--read-only");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn()?;
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        let mut stdout = BufReader::new(stdout);
        let heard = tokio::time::timeout(PATIENCE, stdout.read_line(&mut said)).await;
        heard.map_err(|_| {
            Failure::other(format!("the mount does not begin; its log is {}", log_path.display()))
        })??;
    }
    if said.is_empty() {
        let why = s0_host::tail(&log_path, begins, 4096);
        let why = why.trim().trim_start_matches("s0: ").to_owned();
        return Err(Failure::other(if why.is_empty() {
            "the mount ended at once".into()
        } else {
            why
        }));
    }
    Ok(())
}

/// Takes a mount away, and waits until what was written to it is committed.
pub(crate) async fn take_away(context: &Context, path: &Path) -> Result<(), Failure> {
    let path = std::path::absolute(path)?;
    let is_meant = |(_, at): &(String, PathBuf)| *at == path;
    if !all_here()?.iter().any(is_meant) {
        return Err(Failure::other(format!(
            "no Volume is mounted at {}; `s0 sandbox volume status` shows what is",
            path.display()
        )));
    }
    kernel::unmount(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::ResourceBusy => Failure::other(format!(
            "{} is in use: end the programs that have files of it open, or are in it (`fuser -vm {}` \
             shows them), and try again",
            path.display(),
            path.display()
        )),
        _ => Failure::file(&path, &error),
    })?;
    let begun = Instant::now();
    let lock = lock_file(context, &path)?;
    while let Err(error) = lock.try_lock() {
        if begun.elapsed() > PATIENCE {
            let why = format!("what was written is not committed yet ({error})");
            return Err(Failure::other(why));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// The Volumes that are mounted here, and where.
pub(crate) fn all_here() -> Result<Vec<(String, PathBuf)>, Failure> {
    Ok(kernel::mounted()?)
}

/// A file that is locked as long as a mount is served.
fn lock_file(context: &Context, path: &Path) -> Result<File, Failure> {
    let directory = context.state.path().join("mounts");
    platform::private_directory(&directory).map_err(|error| Failure::file(&directory, &error))?;
    let lock = directory.join(format!("{}.lock", Hash::of(path.as_os_str().as_bytes())));
    platform::private_log(&lock).map_err(|error| Failure::file(&lock, &error))
}

/// Serves a mount until it is unmounted, or this process is asked to end.
pub(crate) async fn host(context: &Context, options: MountOptions) -> Done {
    let MountOptions { volume_id, path, sandbox_id, read_only, cache } = options;
    // The end of the terminal that it was begun in is not its end.
    s0_host::detach();
    known_volume(&context.client()?, &volume_id).await?;
    let service = context.service()?;
    let reach = Reach::new(move || service.client()).map_err(Failure::other)?;
    std::fs::create_dir_all(&path).map_err(|error| Failure::file(&path, &error))?;
    let path = path.canonicalize().map_err(|error| Failure::file(&path, &error))?;
    let device = kernel::open_device().map_err(|error| no_device(&error, &volume_id))?;
    let lock = lock_file(context, &path)?;
    lock.try_lock().map_err(|_| {
        Failure::other(format!("{} is mounted already, or just being unmounted", path.display()))
    })?;
    kernel::mount_at(&device, &path, &volume_id, read_only).map_err(|error| {
        Failure::other(format!(
            "{} cannot be mounted at: {error}. It must be a directory, and this user must be allowed \
             to mount (root, or within a sandbox)",
            path.display()
        ))
    })?;
    let options = Options {
        service: reach,
        volume: volume_id,
        sandbox: sandbox_id,
        mount_point: path.display().to_string(),
        host: s0_host::host_name(),
        read_only,
        performer: performer(&path),
        cache_directory: std::env::temp_dir(),
        cache_bytes: cache.as_u64(),
    };
    let mut mounted = match s0_mount::mount(options, device).await {
        Ok(mounted) => mounted,
        Err(error) => {
            let _ = kernel::detach(&path);
            return Err(Failure::other(error.to_string()));
        }
    };
    let at = path.clone();
    tokio::task::spawn_blocking(move || kernel::read_ahead(&at));
    context.screen.line(format!("mounted at {}", path.display()));
    let lost = tokio::select! {
        lost = mounted.ended() => lost,
        () = platform::asked_to_end() => None,
    };
    if let Err(error) = kernel::detach(&path) {
        tracing::debug!(%error, "it is unmounted already");
    }
    let left = mounted.end().await;
    drop(lock);
    if let Some(why) = lost {
        return Err(Failure::other(format!("the mount has lost its Volume: {why}")));
    }
    if left > 0 {
        return Err(Failure::other(format!("{left} files could not be committed")));
    }
    Ok(ExitCode::SUCCESS)
}

fn performer(path: &Path) -> Option<Performer> {
    let program = std::env::current_exe().ok()?;
    let device = kernel::device_of(path).ok()?.to_string();
    let arguments = ["mount-echo".into(), "--root".into(), path.into(), "--device".into()];
    Some(Performer { program, arguments: arguments.into_iter().chain([device.into()]).collect() })
}

/// There is no FUSE here, but there is another way.
fn no_device(error: &std::io::Error, volume: &str) -> Failure {
    let device = kernel::DEVICE;
    Failure::other(format!(
        "{device} cannot be opened: {error}. Without it a Volume cannot be mounted here; \
         `s0 sync attach {volume} DIR --as sandbox` keeps a plain directory equal to it"
    ))
}

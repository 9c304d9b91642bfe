//! Mounts of Volumes.

use std::process::ExitCode;

use s0_mount::{Options, platform as kernel};

use crate::args::MountOptions;
use crate::context::{Context, known_volume};
use crate::failure::{Done, Failure};
use crate::platform;

/// Serves a mount until it is unmounted, or this process is asked to end.
pub(crate) async fn host(context: &Context, options: MountOptions) -> Done {
    let MountOptions { volume_id, path, sandbox_id, read_only, cache } = options;
    let client = context.client()?;
    known_volume(&client, &volume_id).await?;
    std::fs::create_dir_all(&path).map_err(|error| Failure::file(&path, &error))?;
    let path = path.canonicalize().map_err(|error| Failure::file(&path, &error))?;
    let device = kernel::open_device().map_err(|error| no_device(&error, &volume_id))?;
    kernel::mount_at(&device, &path, read_only).map_err(|error| {
        Failure::other(format!(
            "{} cannot be mounted at: {error}. It must be a directory, and this user must be allowed \
             to mount (root, or within a sandbox)",
            path.display()
        ))
    })?;
    let options = Options {
        client,
        volume: volume_id,
        sandbox: sandbox_id,
        mount_point: path.display().to_string(),
        host: s0_host::host_name(),
        read_only,
        reached: kernel::device_of(&path).ok().map(|device| (path.clone(), device)),
        cache_directory: std::env::temp_dir(),
        cache_bytes: cache.as_u64(),
    };
    let mut mounted = match s0_mount::mount(options, device).await {
        Ok(mounted) => mounted,
        Err(error) => {
            let _ = kernel::unmount(&path);
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
    if let Err(error) = kernel::unmount(&path) {
        tracing::debug!(%error, "it is unmounted already");
    }
    let left = mounted.end().await;
    if let Some(why) = lost {
        return Err(Failure::other(format!("the mount has lost its Volume: {why}")));
    }
    if left > 0 {
        return Err(Failure::other(format!("{left} files could not be committed")));
    }
    Ok(ExitCode::SUCCESS)
}

/// There is no FUSE here, but there is another way.
fn no_device(error: &std::io::Error, volume: &str) -> Failure {
    let device = kernel::DEVICE;
    Failure::other(format!(
        "{device} cannot be opened: {error}. Without it a Volume cannot be mounted here; \
         `s0 sync attach {volume} DIR --as sandbox` keeps a plain directory equal to it"
    ))
}

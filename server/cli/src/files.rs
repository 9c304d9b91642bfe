//! `s0 volume files`.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use s0_api::documented::{AppendRequest, ChangeRequest};
use s0_api::sync::{Capabilities, Registration};
use s0_api::volumes::{FileInfo, FileType};
use s0_api::{Body, Client};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::ReaderStream;

use crate::args::Files;
use crate::context::{Context, known_volume, soon};
use crate::failure::Failure;
use crate::screen::{columns, count};
use crate::{platform, watch};

pub(crate) async fn files(
    context: &Context,
    client: &Client,
    command: Files,
) -> Result<(), Failure> {
    let (volume, path, makes) = match &command {
        Files::Ls { volume, path }
        | Files::Cat { volume, path }
        | Files::Stat { volume, path }
        | Files::Rm { volume, path }
        | Files::Download { volume, path, .. }
        | Files::Watch { volume, path, .. }
        | Files::Mv { volume, from: path, .. } => (volume.clone(), path.clone(), false),
        Files::Mkdir { volume, path, .. }
        | Files::Upload { volume, path, .. }
        | Files::Write { volume, path } => (volume.clone(), path.clone(), true),
    };
    let failed = match done(context, client, command).await {
        Ok(()) => return Ok(()),
        Err(failed) => failed,
    };
    if !failed.is_not_found() {
        return Err(failed);
    }
    // Which of the two it is that the service does not know.
    known_volume(client, &volume).await?;
    Err(if makes {
        let what = format!("the directory in which {path} would be is not in {volume}");
        failed.named(&what, "`s0 volume files mkdir --parents` makes it")
    } else {
        let what = format!("there is nothing at {path} in {volume}");
        failed.named(&what, &format!("`s0 volume files ls {volume}` shows what is at the top"))
    })
}

async fn done(context: &Context, client: &Client, command: Files) -> Result<(), Failure> {
    let screen = &context.screen;
    match command {
        Files::Ls { volume, path } => {
            let files = soon(client.list_files(&volume, &path)).await?;
            screen.show(&files, || table(&files));
        }
        Files::Cat { volume, path } => {
            let mut bytes = client.read_file(&volume, &path).await?;
            while let Some(piece) = bytes.next().await {
                screen.bytes(&piece?)?;
            }
        }
        Files::Stat { volume, path } => {
            let file = soon(client.stat_file(&volume, &path)).await?;
            screen.show(&file, || table(std::slice::from_ref(&file)));
        }
        Files::Mkdir { volume, path, parents } => {
            client.make_directory(&volume, &path, parents).await?;
            screen.show(&json!({ "path": path }), String::new);
        }
        Files::Rm { volume, path } => {
            // The service says that all is well when there was nothing.
            soon(client.stat_file(&volume, &path)).await?;
            client.remove_file(&volume, &path).await?;
            screen.show(&json!({ "path": path }), String::new);
        }
        Files::Mv { volume, from, to } => {
            client.move_file(&volume, &from, &to).await?;
            screen.show(&json!({ "path": to }), String::new);
        }
        Files::Upload { volume, local, path } => {
            let done = upload(client, &volume, &local, &path).await?;
            screen.show(&json!({ "files": done }), || count(done, "file"));
        }
        Files::Download { volume, path, local, force } => {
            let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            let name = if name.is_empty() { volume.as_str() } else { name };
            let local = local.unwrap_or_else(|| PathBuf::from(name));
            let done = download(client, &volume, &path, &local, force).await?;
            screen.show(&json!({ "files": done, "local": local }), || {
                format!("{} in {}", count(done, "file"), local.display())
            });
        }
        Files::Write { volume, path } => {
            let body = Body::wrap_stream(ReaderStream::new(tokio::io::stdin()));
            client.write_file(&volume, &path, body).await?;
            screen.show(&json!({ "path": path }), String::new);
        }
        Files::Watch { volume, path, recursive } => {
            watch::watch(context, client, &volume, &path, recursive).await?;
        }
    }
    Ok(())
}

fn table(files: &[FileInfo]) -> String {
    let rows = files.iter().map(|file| {
        let kind = match file.kind {
            FileType::File => "-",
            FileType::Dir => "d",
            FileType::Symlink => "l",
        };
        let target = file.link_target.as_ref().map(|target| format!(" -> {target}"));
        vec![
            format!("{kind}{}", file.mode),
            file.size.to_string(),
            file.mod_time.clone(),
            format!("{}{}", file.name, target.unwrap_or_default()),
        ]
    });
    columns(&rows.collect::<Vec<_>>())
}

/// Copies into the Volume; says how many files. Links and special files of a
/// directory are left out.
async fn upload(client: &Client, volume: &str, local: &Path, path: &str) -> Result<usize, Failure> {
    let mut queue = VecDeque::from([(local.to_owned(), path.to_owned())]);
    let (mut files, mut programs) = (0, Vec::new());
    while let Some((local, path)) = queue.pop_front() {
        let failed = |error: std::io::Error| Failure::file(&local, &error);
        let kind = std::fs::metadata(&local).map_err(failed)?;
        if kind.is_file() {
            let file = tokio::fs::File::open(&local).await.map_err(failed)?;
            client.write_file(volume, &path, Body::from(file)).await?;
            files += 1;
            if platform::mode(&kind) & 0o100 != 0 {
                programs.push(path);
            }
            continue;
        }
        if !kind.is_dir() {
            return Err(Failure::other(format!(
                "{} is neither a file nor a directory",
                local.display()
            )));
        }
        client.make_directory(volume, &path, true).await?;
        for entry in std::fs::read_dir(&local).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            let Some(name) = entry.file_name().to_str().map(String::from) else {
                return Err(Failure::other(format!(
                    "{} has a name that no Volume can hold",
                    entry.path().display()
                )));
            };
            if kind.is_dir() || kind.is_file() {
                queue.push_back((entry.path(), format!("{}/{name}", path.trim_end_matches('/'))));
            }
        }
    }
    if !programs.is_empty() {
        make_executable(client, volume, programs).await?;
    }
    Ok(files)
}

/// Makes files of a Volume executable. The file API has no word for it; the
/// journal has, for those who register.
async fn make_executable(client: &Client, volume: &str, paths: Vec<String>) -> Result<(), Failure> {
    let replica = format!("upload_{}", uuid::Uuid::new_v4().simple());
    let capabilities = Capabilities {
        case_sensitive: true,
        unicode_normalization_insensitive: false,
        windows_compatible_paths: false,
    };
    let registration = Registration {
        display_name: "s0 volume files upload".into(),
        platform: std::env::consts::OS.into(),
        root_path: String::new(),
        case_sensitive: true,
        capabilities,
        take_instance: false,
        sandbox_id: None,
    };
    let base_seq = client.register(volume, &replica, &registration).await?.head.0;
    let change = |path| ChangeRequest {
        event_type: "chmod".into(),
        path,
        mode: Some(0o755),
        ..ChangeRequest::default()
    };
    let changes = paths.into_iter().map(change).collect();
    let request = AppendRequest { request_id: replica.clone(), base_seq, changes };
    let changed = client.append_changes(volume, &replica, &request).await;
    client.unregister(volume, &replica).await?;
    match changed?.conflicts.len() {
        0 => Ok(()),
        several => Err(Failure::other(format!(
            "somebody changed {} at the same moment; upload again to make them executable",
            count(several, "uploaded file")
        ))),
    }
}

/// Copies out of the Volume; says how many files. Nothing on the disk is replaced
/// unless that was asked for, and no link there is followed.
async fn download(
    client: &Client,
    volume: &str,
    path: &str,
    local: &Path,
    force: bool,
) -> Result<usize, Failure> {
    let top = soon(client.stat_file(volume, path)).await?;
    let mut queue = VecDeque::from([(top, local.to_owned())]);
    let mut files = 0;
    while let Some((file, local)) = queue.pop_front() {
        match file.kind {
            FileType::File => {
                // Before anything is fetched.
                free(&local, force)?;
                download_file(client, volume, &file, &local, force).await?;
                files += 1;
            }
            FileType::Dir => {
                make_directory(&local)?;
                for child in client.list_files(volume, &file.path).await? {
                    // What a service says is not yet a name.
                    let name = s0_tree::Name::new(&child.name)
                        .map_err(|error| Failure::other(format!("{}: {error}", child.path)))?;
                    queue.push_back((child, local.join(name.as_str())));
                }
            }
            // Links are not made where their targets may not be.
            FileType::Symlink => {}
        }
    }
    Ok(files)
}

/// Whether a file may come to this path.
fn free(local: &Path, force: bool) -> Result<(), Failure> {
    let place = local.display();
    match std::fs::symlink_metadata(local) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::file(local, &error)),
        Ok(there) if !there.is_file() => {
            Err(Failure::other(format!("{place} is there, and is no file; move it away first")))
        }
        Ok(_) if !force => Err(Failure::other(format!("{place} is there; --force replaces it"))),
        Ok(_) => Ok(()),
    }
}

/// Makes a directory, or takes the one that is there, but no link to one.
fn make_directory(local: &Path) -> Result<(), Failure> {
    match std::fs::create_dir(local) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let there = std::fs::symlink_metadata(local);
            if there.map_err(|error| Failure::file(local, &error))?.is_dir() {
                return Ok(());
            }
            let place = local.display();
            Err(Failure::other(format!(
                "{place} is there, and is no directory; move it away first"
            )))
        }
        made => made.map_err(|error| Failure::file(local, &error)),
    }
}

/// Fetches a file beside its path, so that the path has all of it or nothing.
async fn download_file(
    client: &Client,
    volume: &str,
    file: &FileInfo,
    local: &Path,
    force: bool,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::file(local, &error);
    let above = local.parent().filter(|above| !above.as_os_str().is_empty());
    let executable = u32::from_str_radix(&file.mode, 8).is_ok_and(|mode| mode & 0o100 != 0);
    let beside = tempfile::Builder::new()
        .prefix(".s0-download-")
        .permissions(platform::new_file(executable))
        .tempfile_in(above.unwrap_or(Path::new(".")))
        .map_err(failed)?;
    let mut out = tokio::fs::File::from_std(beside.reopen().map_err(failed)?);
    let mut bytes = client.read_file(volume, &file.path).await?;
    while let Some(piece) = bytes.next().await {
        out.write_all(&piece?).await.map_err(failed)?;
    }
    out.flush().await.map_err(failed)?;
    let placed = if force { beside.persist(local) } else { beside.persist_noclobber(local) };
    placed.map(drop).map_err(|error| failed(error.error))
}

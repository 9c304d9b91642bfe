//! `s0 volume files`.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use s0_api::volumes::{FileInfo, FileType};
use s0_api::{Body, Client};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::ReaderStream;

use crate::args::Files;
use crate::context::Context;
use crate::failure::Failure;
use crate::screen::{columns, count};

pub(crate) async fn files(
    context: &Context,
    client: &Client,
    command: Files,
) -> Result<(), Failure> {
    let screen = &context.screen;
    match command {
        Files::Ls { volume, path } => {
            let files = client.list_files(&volume, &path).await?;
            screen.show(&files, || table(&files));
        }
        Files::Cat { volume, path } => {
            let mut bytes = client.read_file(&volume, &path).await?;
            while let Some(piece) = bytes.next().await {
                screen.bytes(&piece?)?;
            }
        }
        Files::Stat { volume, path } => {
            let file = client.stat_file(&volume, &path).await?;
            screen.show(&file, || table(std::slice::from_ref(&file)));
        }
        Files::Mkdir { volume, path, parents } => {
            client.make_directory(&volume, &path, parents).await?;
            screen.show(&json!({ "path": path }), String::new);
        }
        Files::Rm { volume, path } => {
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
        Files::Download { volume, path, local } => {
            let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            let name = if name.is_empty() { volume.as_str() } else { name };
            let local = local.unwrap_or_else(|| PathBuf::from(name));
            let done = download(client, &volume, &path, &local).await?;
            screen.show(&json!({ "files": done, "local": local }), || {
                format!("{} in {}", count(done, "file"), local.display())
            });
        }
        Files::Write { volume, path } => {
            let body = Body::wrap_stream(ReaderStream::new(tokio::io::stdin()));
            client.write_file(&volume, &path, body).await?;
            screen.show(&json!({ "path": path }), String::new);
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
    let mut files = 0;
    while let Some((local, path)) = queue.pop_front() {
        let failed = |error: std::io::Error| Failure::file(&local, &error);
        let kind = std::fs::metadata(&local).map_err(failed)?;
        if kind.is_file() {
            let file = tokio::fs::File::open(&local).await.map_err(failed)?;
            client.write_file(volume, &path, Body::from(file)).await?;
            files += 1;
            continue;
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
    Ok(files)
}

/// Copies out of the Volume; says how many files.
async fn download(
    client: &Client,
    volume: &str,
    path: &str,
    local: &Path,
) -> Result<usize, Failure> {
    let top = client.stat_file(volume, path).await?;
    let mut queue = VecDeque::from([(top, local.to_owned())]);
    let mut files = 0;
    while let Some((file, local)) = queue.pop_front() {
        let failed = |error: std::io::Error| Failure::file(&local, &error);
        match file.kind {
            FileType::File => {
                let mut bytes = client.read_file(volume, &file.path).await?;
                let mut out = tokio::fs::File::create(&local).await.map_err(failed)?;
                while let Some(piece) = bytes.next().await {
                    out.write_all(&piece?).await.map_err(failed)?;
                }
                out.flush().await.map_err(failed)?;
                files += 1;
            }
            FileType::Dir => {
                std::fs::create_dir_all(&local).map_err(failed)?;
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

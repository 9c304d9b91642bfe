//! What is on a disk, and in a Volume, by path: for the tour's last word.

use std::collections::BTreeMap;
use std::path::Path;

use s0_api::Client;
use s0_api::volumes::FileType;
use s0_tree::Content;

use crate::failure::Failure;

/// Each file's content and permission bits.
pub(super) type Files = BTreeMap<String, (Content, u32)>;

/// The files of a Volume, read over the HTTP file API.
pub(super) async fn volume(client: &Client, volume: &str) -> Result<Files, Failure> {
    let (mut files, mut directories) = (Files::new(), vec!["/".to_owned()]);
    while let Some(directory) = directories.pop() {
        for file in client.list_files(volume, &directory).await? {
            if file.kind == FileType::Dir {
                directories.push(file.path);
                continue;
            }
            let bytes = Client::collect(client.read_file(volume, &file.path).await?).await?;
            let mode = u32::from_str_radix(&file.mode, 8).unwrap_or(0) & 0o777;
            let path = file.path.trim_start_matches('/').to_owned();
            files.insert(path, (Content::of(&bytes), mode));
        }
    }
    Ok(files)
}

/// The files below a directory, but for the replica's own and those of the
/// directories named.
pub(super) fn disk(root: &Path, without: &[&str]) -> Result<Files, Failure> {
    let (mut files, mut directories) = (Files::new(), vec![root.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let path = entry.path();
            let inside = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            if inside == ".s0" || without.contains(&inside.as_str()) {
                continue;
            }
            let kind = entry.metadata()?;
            if kind.is_dir() {
                directories.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).map_err(|error| Failure::file(&path, &error))?;
            files.insert(inside, (Content::of(&bytes), crate::platform::mode(&kind)));
        }
    }
    Ok(files)
}

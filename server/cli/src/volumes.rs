//! `s0 volume`.

use std::process::ExitCode;

use bytesize::ByteSize;
use s0_api::volumes::{ChangeVolume, NewVolume, SandboxVolume};
use serde_json::json;

use crate::args::{Limit, Quota, Volume};
use crate::context::{Context, known_volume, soon};
use crate::failure::{Done, Failure};
use crate::screen::{quoted, titled};
use crate::{files, snapshots};

/// `s0 volume …`.
pub(crate) async fn volume(context: &Context, command: Volume) -> Done {
    let client = context.client()?;
    let screen = &context.screen;
    match command {
        Volume::Create { access_mode, quota } => {
            let new = new(Some(access_mode), quota);
            let volume = soon(client.create_volume(&new)).await?;
            screen.show(&volume, || volume.id.clone());
        }
        Volume::Set { volume, quota } => {
            let change = ChangeVolume {
                quota_bytes: quota.quota_bytes.map(|Limit(limit)| limit),
                quota_inodes: quota.quota_inodes.map(|Limit(limit)| limit),
            };
            known_volume(&client, &volume).await?;
            let volume = client.change_volume(&volume, &change).await?;
            screen.show(&volume, || table(std::slice::from_ref(&volume)));
        }
        Volume::Get { volume } => {
            let volume = known_volume(&client, &volume).await?;
            screen.show(&volume, || table(std::slice::from_ref(&volume)));
        }
        Volume::List => {
            let volumes = soon(client.volumes()).await?;
            screen.show(&volumes, || table(&volumes));
        }
        Volume::Delete { volume, force } => {
            // The service says that all is well when there was none.
            known_volume(&client, &volume).await?;
            if !force {
                refuse_if_attached(context, &volume)?;
            }
            soon(client.delete_volume(&volume, force)).await?;
            screen.show(&json!({ "deleted": volume }), || format!("deleted {volume}"));
        }
        Volume::Fork { volume, access_mode, quota } => {
            known_volume(&client, &volume).await?;
            let new = new(access_mode, quota);
            let fork = client.fork_volume(&volume, &new).await?;
            screen.show(&fork, || fork.id.clone());
        }
        Volume::Files { command } => files::files(context, &client, command).await?,
        Volume::Snapshot { command } => snapshots::snapshot(context, &client, command).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A workspace of a deleted Volume is in sync with nothing.
fn refuse_if_attached(context: &Context, volume: &str) -> Result<(), Failure> {
    let attached = context.state.list()?;
    match attached.iter().find(|(_, attachment)| attachment.volume_id == volume) {
        None => Ok(()),
        Some((_, attachment)) => Err(Failure::other(format!(
            "{} is attached to {volume}; `s0 sync detach {}` comes first, or --force",
            attachment.root.display(),
            quoted(&attachment.root)
        ))),
    }
}

fn new(access_mode: Option<String>, quota: Quota) -> NewVolume {
    NewVolume {
        access_mode,
        quota_bytes: quota.quota_bytes.and_then(|Limit(limit)| limit),
        quota_inodes: quota.quota_inodes.and_then(|Limit(limit)| limit),
        ..NewVolume::default()
    }
}

/// What is used, and of how much.
fn of(used: Option<u64>, limit: Option<u64>, show: impl Fn(u64) -> String) -> String {
    let used = used.map_or_else(|| "?".into(), &show);
    limit.map_or_else(|| used.clone(), |limit| format!("{used} of {}", show(limit)))
}

fn table(volumes: &[SandboxVolume]) -> String {
    let head = ["VOLUME", "MODE", "SIZE", "FILES", "FORK OF", "CREATED"];
    let rows = volumes.iter().map(|volume| {
        vec![
            volume.id.clone(),
            volume.access_mode.as_str().into(),
            of(volume.used_bytes, volume.quota_bytes, |bytes| {
                ByteSize(bytes).display().si().to_string()
            }),
            of(volume.used_inodes, volume.quota_inodes, |number| number.to_string()),
            volume.source_volume_id.clone().unwrap_or_else(|| "-".into()),
            volume.created_at.clone(),
        ]
    });
    titled(&head, rows)
}

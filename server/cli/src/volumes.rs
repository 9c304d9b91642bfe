//! `s0 volume`.

use std::process::ExitCode;

use s0_api::volumes::{NewVolume, SandboxVolume};
use serde_json::json;

use crate::args::Volume;
use crate::context::{Context, known_volume, soon};
use crate::failure::{Done, Failure};
use crate::screen::{quoted, titled};
use crate::{files, snapshots};

/// `s0 volume …`.
pub(crate) async fn volume(context: &Context, command: Volume) -> Done {
    let client = context.client()?;
    let screen = &context.screen;
    match command {
        Volume::Create { access_mode } => {
            let new = NewVolume { access_mode: Some(access_mode), ..NewVolume::default() };
            let volume = soon(client.create_volume(&new)).await?;
            screen.show(&volume, || volume.id.clone());
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
        Volume::Fork { volume, access_mode } => {
            known_volume(&client, &volume).await?;
            let new = NewVolume { access_mode, ..NewVolume::default() };
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

fn table(volumes: &[SandboxVolume]) -> String {
    let head = ["VOLUME", "MODE", "FORK OF", "CREATED"];
    let rows = volumes.iter().map(|volume| {
        vec![
            volume.id.clone(),
            volume.access_mode.as_str().into(),
            volume.source_volume_id.clone().unwrap_or_else(|| "-".into()),
            volume.created_at.clone(),
        ]
    });
    titled(&head, rows)
}

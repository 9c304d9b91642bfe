//! `s0 volume snapshot`.

use s0_api::Client;
use s0_api::volumes::{Restoring, Snapshot as Taken};
use serde_json::json;

use crate::args::Snapshot;
use crate::context::{Context, known_volume, soon};
use crate::failure::Failure;
use crate::screen::titled;

pub(crate) async fn snapshot(
    context: &Context,
    client: &Client,
    command: Snapshot,
) -> Result<(), Failure> {
    let screen = &context.screen;
    let (volume, named) = match &command {
        Snapshot::Create { volume, .. } | Snapshot::List { volume } => (volume.clone(), None),
        Snapshot::Get { volume, snapshot }
        | Snapshot::Delete { volume, snapshot }
        | Snapshot::Restore { volume, snapshot } => (volume.clone(), Some(snapshot.clone())),
    };
    // The service calls both by the same name when it does not know one of them.
    known_volume(client, &volume).await?;
    if let Some(snapshot) = named {
        soon(client.snapshot(&volume, &snapshot)).await.map_err(|failure| {
            failure.named(
                &format!("{volume} has no snapshot {snapshot}"),
                &format!("`s0 volume snapshot list {volume}` shows those that it has"),
            )
        })?;
    }
    match command {
        Snapshot::Create { volume, name, description } => {
            let taken = client.create_snapshot(&volume, &name, &description).await?;
            screen.show(&taken, || taken.id.clone());
        }
        Snapshot::List { volume } => {
            let all = soon(client.snapshots(&volume)).await?;
            screen.show(&all, || table(&all));
        }
        Snapshot::Get { volume, snapshot } => {
            let taken = soon(client.snapshot(&volume, &snapshot)).await?;
            screen.show(&taken, || table(std::slice::from_ref(&taken)));
        }
        Snapshot::Delete { volume, snapshot } => {
            soon(client.delete_snapshot(&volume, &snapshot)).await?;
            screen.show(&json!({ "deleted": snapshot }), || format!("deleted {snapshot}"));
        }
        Snapshot::Restore { volume, snapshot } => {
            let restoring = Restoring { replica_id: context.replica_of(&volume)? };
            client.restore_snapshot(&volume, &snapshot, &restoring).await?;
            screen.show(&json!({ "restored": snapshot }), || {
                format!("{volume} holds what {snapshot} holds; attached workspaces follow")
            });
        }
    }
    Ok(())
}

fn table(snapshots: &[Taken]) -> String {
    let head = ["SNAPSHOT", "NAME", "BYTES", "CREATED", "DESCRIPTION"];
    let rows = snapshots.iter().map(|taken| {
        vec![
            taken.id.clone(),
            taken.name.clone(),
            taken.size_bytes.to_string(),
            taken.created_at.clone(),
            taken.description.clone(),
        ]
    });
    titled(&head, rows)
}

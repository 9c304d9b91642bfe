//! `s0 volume files watch`.

use s0_api::Client;
use s0_api::watch::Told;

use crate::context::{Context, soon};
use crate::failure::{Failure, code};
use crate::platform;
use crate::screen::{Tint, plain, tinted};

/// Tells of changes until the user ends it.
pub(crate) async fn watch(
    context: &Context,
    client: &Client,
    volume: &str,
    path: &str,
    recursive: bool,
) -> Result<(), Failure> {
    let screen = &context.screen;
    let end = platform::asked_to_end();
    tokio::pin!(end);
    let mut changes = soon(client.watch_files(volume, path, recursive)).await?;
    loop {
        let told = tokio::select! {
            () = &mut end => return Ok(()),
            told = changes.next() => told?,
        };
        match &told {
            Told::Error { error } => {
                return Err(Failure::other(format!(
                    "the service does not watch {}: {}",
                    plain(path),
                    plain(error)
                )));
            }
            Told::Unsubscribed { .. } => {
                let said = "the service has ended the watch; watch again to go on";
                return Err(Failure::with_code(said, code::OFFLINE));
            }
            _ if screen.is_for_programs() => screen.document(&told),
            Told::Subscribed { path, .. } => {
                screen.line(format!("watching {}; Ctrl-C ends it", plain(path)));
            }
            Told::Event { event, path, old_path, .. } => {
                let from = if old_path.is_empty() {
                    String::new()
                } else {
                    format!(" (from {})", plain(old_path))
                };
                let event = format!("{:<10}", plain(event));
                screen.line(format!("{} {}{from}", tinted(Tint::Strong, &event), plain(path)));
            }
        }
    }
}

//! The HTTP API: its routes, and what all of them share.

use std::sync::Arc;
use std::time::Duration;

use aide::axum::ApiRouter;
use aide::axum::routing::{delete_with, get_with, post_with, put_with};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use serde::Serialize;
use serde_json::Value;
use tower_http::timeout::RequestBodyTimeoutLayer;

use crate::problem::Problem;
use crate::service::Service;
use document::{OCTETS, does, gives};

mod answers;
mod archive;
mod asked;
mod changes;
mod clone;
mod conflicts;
mod contents;
mod document;
mod events;
mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
mod health;
mod history;
mod mount_tokens;
mod mounts;
mod observe;
mod posix;
mod ranges;
mod replicas;
mod sandboxes;
mod snapshots;
mod tokens;
mod upload;
mod volumes;
mod watch;

/// How long the next piece of a body may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What Prometheus reads.
const METRICS: &str = "application/openmetrics-text";
/// The largest body of a request without bytes of files.
const SMALL: usize = 1024 * 1024;
/// The largest body of a request with lists of contents.
const LIST: usize = 32 * 1024 * 1024;
/// The largest body of a request with changes and the contents that they bring.
const LARGE: usize = 160 * 1024 * 1024;

type State = axum::extract::State<Arc<Service>>;

/// All routes, with their description. Each says what it does and how its handler itself
/// refuses; what its extractors refuse they say.
pub(crate) fn routes(service: Arc<Service>) -> Router {
    let routes = ApiRouter::new()
        .api_route("/healthz", get_with(health::runs, does("Says that the service runs.", &[])))
        .api_route("/readyz", get_with(health::is_ready, does("Says that its store answers.", &[])))
        .api_route(
            "/metrics",
            get_with(observe::metrics, gives("What is measured.", &[(200, METRICS)], &[401, 403])),
        )
        .nest("/api-keys", of_tokens())
        .api_route(
            "/api/v1/sandboxvolumes",
            get_with(volumes::list, does("The team's Volumes, newest first.", &[]))
                .post_with(volumes::create, does("Makes a Volume.", &[])),
        )
        .nest("/api/v1/sandboxvolumes/{volume}", of_a_volume())
        .nest("/api/v1/sandboxvolumes/{volume}/sync", of_sync())
        .nest("/api/v1/sandboxes/{sandbox}", of_a_sandbox());
    document::finish(routes)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .fallback(async || Problem::NotFound("not found"))
        .layer(DefaultBodyLimit::max(SMALL))
        .layer(RequestBodyTimeoutLayer::new(PATIENCE))
        .layer(from_fn_with_state(service.clone(), observe::observe))
        .with_state(service)
}

type Routes = ApiRouter<Arc<Service>>;

fn of_tokens() -> Routes {
    ApiRouter::new()
        .api_route(
            "/",
            get_with(tokens::list, does("The team's tokens, newest first.", &[403]))
                .post_with(tokens::create, does("Makes a token.", &[403, 409])),
        )
        .api_route("/current", get_with(tokens::current, does("The token that asks.", &[])))
        .api_route("/{id}", delete_with(tokens::delete, does("Deletes a token.", &[403, 404])))
        .api_route(
            "/{id}/deactivate",
            post_with(tokens::deactivate, does("Ends a token.", &[403, 404])),
        )
}

fn of_a_volume() -> Routes {
    ApiRouter::new()
        .api_route(
            "/",
            get_with(volumes::get, does("The Volume.", &[404]))
                .patch_with(volumes::change, does("Changes the Volume's quota.", &[]))
                .delete_with(
                    volumes::delete,
                    does("Deletes the Volume, if it is there.", &[404, 409]),
                ),
        )
        .api_route(
            "/fork",
            post_with(volumes::fork, does("Makes a Volume that starts as this one is.", &[])),
        )
        .api_route(
            "/files",
            get_with(files::read, does("A file's bytes, or JSON.", &[409, 413]))
                .post_with(
                    files::write,
                    gives("Writes a file, or makes a directory.", &[], &[409, 413, 507]),
                )
                .delete_with(files::remove, does("Removes what is at a path, and below.", &[409]))
                .layer(DefaultBodyLimit::disable()),
        )
        .api_route("/files/stat", get_with(files::stat, does("What is at a path.", &[409])))
        .api_route("/files/list", get_with(files::list, does("What is in a directory.", &[409])))
        .api_route(
            "/files/move",
            post_with(files::rename, does("Moves, as rename(2) does.", &[409])),
        )
        .api_route(
            "/files/clone",
            post_with(clone::files, does("Puts files of other Volumes here.", &[409, 507])),
        )
        .api_route(
            "/files/watch",
            get_with(watch::watch, gives("Tells of changes, over a WebSocket.", &[(101, "")], &[])),
        )
        .api_route(
            "/mounts/{session}",
            get_with(
                mounts::connect,
                gives("A mount's connection, a WebSocket.", &[(101, "")], &[403, 409]),
            ),
        )
        .api_route(
            "/mount-tokens",
            post_with(mount_tokens::create, does("Makes a token for a mount.", &[409])),
        )
        .api_route(
            "/mount-tokens/{token}",
            delete_with(mount_tokens::delete, does("Ends it, if it is there.", &[])),
        )
        .api_route(
            "/snapshots",
            get_with(snapshots::list, does("The snapshots, newest first.", &[]))
                .post_with(snapshots::create, does("Takes a snapshot.", &[])),
        )
        .api_route(
            "/snapshots/{snapshot}",
            get_with(snapshots::get, does("A snapshot.", &[]))
                .delete_with(snapshots::delete, does("Deletes a snapshot, if it is there.", &[])),
        )
        .api_route(
            "/snapshots/{snapshot}/restore",
            post_with(snapshots::restore, does("Goes back to a snapshot.", &[507])),
        )
}

fn of_a_sandbox() -> Routes {
    ApiRouter::new()
        .api_route(
            "/attend-tokens",
            post_with(sandboxes::create_token, does("Makes a token to be reached with.", &[409])),
        )
        .api_route(
            "/attend-tokens/{token}",
            delete_with(sandboxes::delete_token, does("Ends it, if it is there.", &[])),
        )
        .api_route(
            "/attend",
            get_with(
                sandboxes::attend,
                gives("A warden's connection, a WebSocket.", &[(101, "")], &[409]),
            ),
        )
        .api_route(
            "/sandboxvolumes/mount",
            post_with(sandboxes::mount, does("Mounts a Volume.", &[404, 409])),
        )
        .api_route(
            "/sandboxvolumes/unmount",
            post_with(sandboxes::unmount, does("Ends a mount, if it is there.", &[404])),
        )
        .api_route(
            "/sandboxvolumes/status",
            get_with(sandboxes::status, does("What is mounted.", &[404])),
        )
}

fn of_sync() -> Routes {
    let limit = DefaultBodyLimit::max;
    ApiRouter::new()
        .api_route(
            "/bootstrap",
            post_with(archive::bootstrap, does("A tree to start from.", &[409])),
        )
        .api_route(
            "/bootstrap/archive",
            get_with(
                archive::archive,
                gives("A snapshot's tree, as a gzipped tar.", &[(200, "application/gzip")], &[]),
            ),
        )
        .api_route("/changes", get_with(changes::list, does("Entries of the journal.", &[409])))
        .api_route("/replay-payload", get_with(changes::payload, does("A content.", &[])))
        .api_route("/conflicts", get_with(conflicts::list, does("Conflicts, newest first.", &[])))
        .api_route(
            "/conflicts/{conflict}",
            put_with(conflicts::set, does("Settles a conflict.", &[])),
        )
        .api_route(
            "/replicas/{replica}",
            put_with(replicas::register, does("Registers a replica, or hears from it.", &[]))
                .get_with(replicas::get, does("A replica, and the head.", &[]))
                .delete_with(replicas::unregister, does("Forgets a replica.", &[])),
        )
        .api_route(
            "/replicas/{replica}/cursor",
            put_with(replicas::set_cursor, does("Says how far a replica has read.", &[409])),
        )
        .api_route(
            "/replicas/{replica}/changes",
            post_with(upload::append, does("Changes of a replica.", &[409, 507]))
                .layer(limit(LARGE)),
        )
        .api_route(
            "/replicas/{replica}/submit",
            post_with(replicas::submit, does("Changes of one of our replicas.", &[409]))
                .layer(limit(LARGE)),
        )
        .api_route(
            "/events",
            get_with(
                events::events,
                gives("Entries, as they come.", &[(200, "text/event-stream")], &[409]),
            ),
        )
        .api_route("/history", get_with(history::list, does("The versions of a path.", &[])))
        .api_route("/history/version", get_with(history::version, does("What a path was.", &[409])))
        .api_route(
            "/history/restore",
            post_with(history::restore, does("Brings a version back.", &[409, 507])),
        )
        .api_route(
            "/tree",
            get_with(
                contents::tree,
                gives("The tree, encoded and compressed.", &[(200, "application/zstd")], &[]),
            ),
        )
        .api_route(
            "/contents",
            post_with(contents::upload, does("Takes frames of contents.", &[409]))
                .layer(DefaultBodyLimit::disable()),
        )
        .api_route(
            "/contents/missing",
            post_with(contents::missing, does("Which contents are lacking.", &[]))
                .layer(limit(LIST)),
        )
        .api_route(
            "/contents/fetch",
            post_with(contents::fetch, gives("Frames of contents.", &[(200, OCTETS)], &[]))
                .layer(limit(LIST)),
        )
        .api_route("/contents/{content}", get_with(contents::read, does("A content.", &[])))
}

/// The longest id that a client may choose. Ids are in every entry that they made.
const MAX_ID: usize = 256;

/// Refuses an id that is too long.
fn check_id(what: &str, id: &str) -> Result<(), Problem> {
    if id.len() > MAX_ID {
        return Err(Problem::BadRequest(format!("{what} has more than {MAX_ID} bytes")));
    }
    Ok(())
}

fn as_value(value: &impl Serialize) -> Result<Value, Problem> {
    serde_json::to_value(value).map_err(|error| Problem::Internal(error.to_string()))
}

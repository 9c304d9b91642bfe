//! What a watcher of files is told.

use serde::{Deserialize, Serialize};

/// One message over the WebSocket of a watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Told {
    /// Changes are told from here on.
    Subscribed {
        /// The subscription.
        watch_id: String,
        /// The path, as the service cleaned it.
        path: String,
    },
    /// The subscription has ended.
    Unsubscribed {
        /// The subscription.
        watch_id: String,
    },
    /// Something changed.
    Event {
        /// The subscription.
        watch_id: String,
        /// `create`, `write`, `remove`, `rename`, `chmod`, or `invalidate`: look again.
        event: String,
        /// Where.
        path: String,
        /// Where from; empty unless it was renamed.
        #[serde(default)]
        old_path: String,
    },
    /// A message was refused.
    Error {
        /// Why.
        error: String,
    },
}

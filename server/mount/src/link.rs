//! The connection to the service: changes go out in the order in which they were asked
//! for, a few submissions at a time, and entries come in.
//!
//! Whoever asks for a change waits for [`Done`]. A connection that breaks is made again,
//! and what was under way is sent again word for word: the service knows it by its number.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use s0_api::mounts::{MountQuery, OWN_LEASE_MS, Said, Told};
use s0_api::sync::Outcome;
use s0_tree::{Change, ContentId, Entry, Policy, Quota, Seq};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::kernel::answer::Errno;
use crate::reach::Reach;

mod connection;

pub(crate) use connection::Connection;

/// How long a mount goes by what it knows after the service was last heard.
pub(crate) const LEASE: Duration = Duration::from_millis(OWN_LEASE_MS);
/// How long a change may wait for its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What became of a change.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) outcome: Outcome,
    /// Where the journal was after it.
    pub(crate) head: Seq,
    /// Which change of which submission it was.
    pub(crate) which: (u64, usize),
}

/// What the link is asked.
#[derive(Debug)]
enum Order {
    Change(Box<Wanted>),
    Say(Said),
    End,
}

type Answered = oneshot::Sender<Result<Done, Errno>>;

/// What comes in, for the mount.
pub(crate) trait Incoming: Send + Sync {
    /// Up to where the journal is folded.
    fn head(&self) -> Seq;
    /// An entry, with its content when that is small and is text.
    fn entry(&self, entry: &Entry, text: Option<&str>) -> Result<(), String>;
    /// What the Volume takes.
    fn terms(&self, policy: Policy, quota: Quota);
    /// The connection is another one, perhaps to a service that began anew: what it knew of
    /// this mount is said again.
    fn reconnected(&self);
    /// Whether a name is kept for this mount.
    fn reserved(&self, id: u64, granted: bool);
    /// An answer about locks.
    fn lock(&self, told: Told);
    /// No other mount is there.
    fn alone(&self);
    /// Another mount comes: names that were made are to be kept, and then it is told so.
    fn company(&self);
    /// The service has heard what was said then.
    fn heard(&self, said: Instant);
    /// The service has not been heard for so long that nothing that is known here counts, until
    /// it is heard again.
    fn lapsed(&self);
    /// The Volume, or its journal, is not what it was.
    fn lost(&self, why: String);
}

/// The connection's handle; clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    orders: mpsc::UnboundedSender<Order>,
    settled: watch::Receiver<Seq>,
}

/// The other end of a link.
#[derive(Debug)]
pub(crate) struct Orders {
    queue: mpsc::UnboundedReceiver<Order>,
    settled: watch::Sender<Seq>,
}

/// What a link needs to connect.
pub(crate) struct Whereto {
    pub(crate) service: Reach,
    pub(crate) volume: String,
    pub(crate) session: Arc<str>,
    pub(crate) query: MountQuery,
}

impl Link {
    /// A link whose connection is not made yet.
    pub(crate) fn new() -> (Self, Orders) {
        let (orders, queue) = mpsc::unbounded_channel();
        let (settled, settles) = watch::channel(Seq(0));
        (Self { orders, settled: settles }, Orders { queue, settled })
    }

    /// Has a change committed. The small content that it brings goes with it. `taken` is told
    /// when the service has it and no other mount has to see it.
    pub(crate) async fn submit(
        &self,
        change: Change,
        inline: Option<(ContentId, Bytes)>,
        taken: Option<oneshot::Sender<()>>,
    ) -> Result<Done, Errno> {
        let (done, answered) = oneshot::channel();
        let wanted = Wanted { change, inline, taken, done };
        self.orders.send(Order::Change(Box::new(wanted))).map_err(|_| Errno::IO)?;
        match timeout(PATIENCE, answered).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(Errno::IO),
            Err(_) => Err(Errno::TIMEDOUT),
        }
    }

    /// Waits until every other mount has seen the journal up to here.
    pub(crate) async fn settle(&self, seq: Seq) -> Result<(), Errno> {
        let mut settled = self.settled.clone();
        let seen = settled.wait_for(|settled| *settled >= seq);
        match timeout(PATIENCE, seen).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Errno::IO),
            Err(_) => Err(Errno::TIMEDOUT),
        }
    }

    /// Says something to the service.
    pub(crate) fn say(&self, said: Said) {
        // The task ends with the mount; then there is nobody to say it to.
        let _ = self.orders.send(Order::Say(said));
    }

    /// Ends the connection, in order.
    pub(crate) fn end(&self) {
        let _ = self.orders.send(Order::End);
    }
}

#[derive(Debug)]
struct Wanted {
    change: Change,
    inline: Option<(ContentId, Bytes)>,
    /// Whoever is content when the service has it.
    taken: Option<oneshot::Sender<()>>,
    done: Answered,
}

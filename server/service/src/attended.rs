//! The sandboxes that can be reached: each by a connection that its warden made.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use s0_api::sandboxes::{Ask, Reply};
use s0_tree::Hash;
use tokio::sync::{mpsc, oneshot};

use crate::problem::Problem;

/// How long a warden may take to do what it is asked. A mount waits for others for 30 seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many requests to a sandbox may wait.
const WAITING: usize = 16;

const GONE: Problem =
    Problem::NotFound("the sandbox is not there, or has no connection to this service");

/// A request to a warden, and where the answer goes.
pub(crate) type Wanted = (Ask, oneshot::Sender<Reply>);

#[derive(Debug)]
struct Attendant {
    connection: u64,
    /// The token that the connection's was made with, or the connection's own.
    of: Hash,
    wanted: mpsc::Sender<Wanted>,
}

/// All of them, by team and id.
#[derive(Debug, Default)]
pub(crate) struct Attended {
    all: DashMap<(String, String), Attendant>,
    connections: AtomicU64,
}

impl Attended {
    /// A warden has connected. Its older connection ends; another one's sandbox it cannot take.
    pub(crate) fn join(
        &self,
        (team, sandbox): (&str, &str),
        of: Hash,
    ) -> Result<(u64, mpsc::Receiver<Wanted>), Problem> {
        let (wanted, asked) = mpsc::channel(WAITING);
        let connection = self.connections.fetch_add(1, Ordering::Relaxed);
        let new = Attendant { connection, of, wanted };
        match self.all.entry((team.into(), sandbox.into())) {
            Entry::Occupied(known) if known.get().of != of => {
                return Err(Problem::conflict("another warden is connected for this sandbox"));
            }
            Entry::Occupied(mut known) => drop(known.insert(new)),
            Entry::Vacant(free) => drop(free.insert(new)),
        }
        Ok((connection, asked))
    }

    /// A connection has ended.
    pub(crate) fn leave(&self, (team, sandbox): (&str, &str), connection: u64) {
        let key = (team.to_owned(), sandbox.to_owned());
        self.all.remove_if(&key, |_, known| known.connection == connection);
    }

    /// Refuses a sandbox that cannot be reached.
    pub(crate) fn knows(&self, (team, sandbox): (&str, &str)) -> Result<(), Problem> {
        let key = (team.to_owned(), sandbox.to_owned());
        if self.all.contains_key(&key) { Ok(()) } else { Err(GONE) }
    }

    /// Asks the warden of a sandbox. Without an answer, what was asked may be done or not.
    pub(crate) async fn ask(
        &self,
        (team, sandbox): (&str, &str),
        ask: Ask,
    ) -> Result<Option<Reply>, Problem> {
        let key = (team.to_owned(), sandbox.to_owned());
        let wanted = self.all.get(&key).map(|known| known.wanted.clone()).ok_or(GONE)?;
        let (reply, replied) = oneshot::channel();
        wanted.try_send((ask, reply)).map_err(|refused| match refused {
            mpsc::error::TrySendError::Closed(_) => GONE,
            mpsc::error::TrySendError::Full(_) => {
                Problem::conflict("too much is asked of the sandbox at once; try again")
            }
        })?;
        Ok(tokio::time::timeout(PATIENCE, replied).await.ok().and_then(Result::ok))
    }
}

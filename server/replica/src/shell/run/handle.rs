//! What others do with a running replica.

use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::{broadcast, oneshot};

use super::{Engine, Flushed, Message, News, Report, RunLoop};
use crate::engine::{Difference, Resume};

/// The replica does not run: it has ended, or it halted before it could start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotRunning(pub String);

/// A running replica. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Handle {
    sender: Sender<Message>,
    news: broadcast::Sender<News>,
}

impl Handle {
    pub(super) fn new(sender: Sender<Message>, news: broadcast::Sender<News>) -> Self {
        Self { sender, news }
    }

    /// What happens from now on. Who reads too slowly misses the oldest.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<News> {
        let news = self.news.subscribe();
        // The thread notices that someone listens.
        let _ = self.sender.send(Message::Ask(Box::new(|_| {})));
        news
    }

    /// Ends the replica after what it is doing now.
    pub fn stop(&self) {
        // It has ended already if nobody hears it.
        let _ = self.sender.send(Message::Stop);
    }

    /// The status.
    ///
    /// # Errors
    /// The replica has ended.
    pub async fn status(&self) -> Result<Report, NotRunning> {
        self.on_thread(|this| this.status()).await
    }

    /// Asks the engine something, or has it do something, between its steps.
    ///
    /// # Errors
    /// There is no engine now.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Engine, u64) -> T + Send + 'static,
    ) -> Result<T, NotRunning> {
        self.on_thread(move |this| {
            let now = this.now();
            match &mut this.engine {
                Ok(engine) => Ok(question(engine, now)),
                Err(asleep) => Err(NotRunning(asleep.why.clone())),
            }
        })
        .await?
    }

    /// Waits until everything is across, `patience` at the longest.
    ///
    /// # Errors
    /// The replica has ended.
    pub async fn flush(&self, patience: Duration) -> Result<Flushed, NotRunning> {
        let (answer, answered) = oneshot::channel();
        self.send(move |this| this.begin_flush(patience, answer))?;
        answered.await.map_err(|_| ended())
    }

    /// Reads the whole disk and compares it with the Volume.
    ///
    /// # Errors
    /// The Volume is not known, or the disk cannot be read.
    pub async fn verify(&self) -> Result<Vec<Difference>, NotRunning> {
        let verified = self.ask(|engine, _| engine.verify());
        verified.await?.map_err(|error| NotRunning(error.to_string()))
    }

    /// Goes on after a halt.
    ///
    /// # Errors
    /// The replica has ended, or its state cannot be used.
    pub async fn resume(&self, how: Resume) -> Result<Report, NotRunning> {
        self.on_thread(move |this| {
            this.resume(how).map_err(|stop| NotRunning(stop.to_string()))?;
            Ok(this.status())
        })
        .await?
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut RunLoop) -> T + Send + 'static,
    ) -> Result<T, NotRunning> {
        let (answer, answered) = oneshot::channel();
        self.send(move |this| {
            // Whoever asked may have gone away.
            let _ = answer.send(work(this));
        })?;
        answered.await.map_err(|_| ended())
    }

    fn send(&self, work: impl FnOnce(&mut RunLoop) + Send + 'static) -> Result<(), NotRunning> {
        self.sender.send(Message::Ask(Box::new(work))).map_err(|_| ended())
    }
}

fn ended() -> NotRunning {
    NotRunning("the replica has ended; `s0 sync start` starts it".into())
}

//! What was written to a file becomes an entry of the journal.

use std::io::{self, Read};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use s0_api::mounts::Said;
use s0_api::sync::Outcome;
use s0_tree::{Chunker, Content, ContentBuilder, ContentId, INLINE_LIMIT, Seq};
use tokio::sync::oneshot;

use crate::core::{Core, Tell};
use crate::kernel::answer::Errno;
use crate::kernel::request::Ino;
use crate::names::errno_of;
use crate::view::{Commit, Committed, Stale};

/// How long a commit is tried that others are faster than.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause after the service could not commit.
const AGAIN: Duration = Duration::from_millis(100);
/// How many bytes of chunks are sent together.
const TOGETHER: usize = 8 * 1024 * 1024;
/// How much of a draft is read at once.
const PIECE: usize = 256 * 1024;

impl Core {
    /// Commits a file and waits until every other mount has seen it.
    pub(crate) async fn commit_and_settle(
        self: &Arc<Self>,
        ino: Ino,
        by: Option<Arc<str>>,
    ) -> Result<(), Errno> {
        match self.commit(ino, by).await? {
            Some(seq) => self.link.settle(seq).await,
            None => Ok(()),
        }
    }

    /// Commits a file that is closed. When no other mount could read it, it is enough that
    /// the service has it: if that dies now, it is sent again from here; if this dies, it is
    /// committed there. What goes wrong after that is told by the next `close` or `fsync`.
    pub(crate) async fn commit_for_close(
        self: &Arc<Self>,
        ino: Ino,
        by: Option<Arc<str>>,
    ) -> Result<(), Errno> {
        let (taken, is_taken) = oneshot::channel();
        let core = self.clone();
        let mut committing = self.runtime.spawn(async move {
            let mut taken = Some(taken);
            let done = core.commit_telling(ino, by, &mut taken).await;
            // While it is not taken, whoever closes the file waits for this.
            match done {
                Ok(Some(seq)) => core.link.settle(seq).await.inspect_err(|errno| {
                    tracing::warn!(?errno, ?seq, "other mounts have not seen what was written");
                }),
                Ok(None) => Ok(()),
                Err(errno) => {
                    core.note_failure(ino, errno);
                    Err(errno)
                }
            }
        });
        tokio::select! {
            Ok(()) = is_taken => Ok(()),
            done = &mut committing => {
                let done = done.map_err(|_| Errno::IO)?;
                // He is told now.
                let _ = self.failed(ino);
                done
            }
        }
    }

    /// What went wrong with a file since it was told last.
    pub(crate) fn failed(&self, ino: Ino) -> Result<(), Errno> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(&ino).map_or(Ok(()), Err)
    }

    fn note_failure(&self, ino: Ino, errno: Errno) {
        tracing::warn!(?errno, "what was written to a file is not committed");
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).insert(ino, errno);
    }

    /// Commits what was written to a file. Gives where the journal was after it; none when
    /// there was nothing to commit.
    pub(crate) async fn commit(
        self: &Arc<Self>,
        ino: Ino,
        by: Option<Arc<str>>,
    ) -> Result<Option<Seq>, Errno> {
        self.commit_telling(ino, by, &mut None).await
    }

    async fn commit_telling(
        self: &Arc<Self>,
        ino: Ino,
        by: Option<Arc<str>>,
        taken: &mut Option<oneshot::Sender<()>>,
    ) -> Result<Option<Seq>, Errno> {
        let turn = self.commit_turn(ino);
        let _turn = turn.lock().await;
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let Some(commit) = self.view().begin_commit(ino) else {
                // Whoever removed the file had seen it.
                self.conclude(ino);
                return Ok(None);
            };
            let done = self.try_commit(ino, &commit, by.clone(), taken).await;
            match done {
                Ok(Some(seq)) => {
                    self.conclude(ino);
                    // What others wrote may be in it now, so that it has another size and other
                    // times. Of attributes alone the kernel can be told anywhere.
                    self.device.tell(&Stale::Node { ino, contents: false }.message());
                    return Ok(Some(seq));
                }
                // Others were faster; what is written here is over what they made.
                Ok(None) => self.view().abandon_commit(ino),
                Err(Errno::AGAIN) => {
                    self.view().abandon_commit(ino);
                    tokio::time::sleep(AGAIN).await;
                }
                Err(Errno::TIMEDOUT) => {
                    self.view().give_up_commit(ino);
                    return Err(Errno::TIMEDOUT);
                }
                Err(errno) => {
                    self.view().abandon_commit(ino);
                    return Err(errno);
                }
            }
        }
        Err(Errno::TIMEDOUT)
    }

    /// What was taken of a file is nothing that this mount has yet to try again.
    fn conclude(&self, ino: Ino) {
        let mut stale = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, change) in stale.remove(&ino).into_iter().flatten() {
            self.link.say(Said::Concluded { number, change });
        }
    }

    async fn try_commit(
        self: &Arc<Self>,
        ino: Ino,
        commit: &Commit,
        by: Option<Arc<str>>,
        taken: &mut Option<oneshot::Sender<()>>,
    ) -> Result<Option<Seq>, Errno> {
        let (content, inline) = self.describe(ino, commit).await?;
        let change = self.view().commit_change(ino, commit, content)?;
        let Some(mut change) = change else {
            // It has lost its name meanwhile.
            return Ok(Some(Seq(0)));
        };
        change.by.clone_from(&by);
        let is_taken = taken.is_some();
        let done = self.link.submit(change, inline, taken.take()).await?;
        if is_taken && matches!(done.outcome, Outcome::Stale { .. } | Outcome::Refused { .. }) {
            let mut stale = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
            stale.entry(ino).or_default().push(done.which);
        }
        match done.outcome {
            Outcome::Accepted { node, .. } => {
                self.view().end_commit(ino, commit, content, Committed::As(node));
                Ok(Some(done.head))
            }
            Outcome::Held { node: Some(node), .. } => {
                if !self.view().end_commit(ino, commit, content, Committed::As(node)) {
                    return Ok(None);
                }
                let time = self.view().time_change(ino, commit);
                let Some(mut change) = time else { return Ok(Some(done.head)) };
                change.by = by;
                // That it was written again is worth no more than this try.
                let set = self.link.submit(change, None, None).await?;
                Ok(Some(set.head))
            }
            Outcome::Conflict { reason, .. } => {
                self.view().end_commit(ino, commit, content, Committed::Conflict);
                self.conclude(ino);
                self.tell(Tell::Stale(vec![Stale::Node { ino, contents: true }]));
                Err(if reason.is_about_names() { errno_of(reason) } else { Errno::STALE })
            }
            Outcome::NoRoom => Err(Errno::DQUOT),
            Outcome::Held { node: None, .. } | Outcome::Stale { .. } | Outcome::Refused { .. } => {
                Ok(None)
            }
        }
    }

    /// Names the content of a draft, and sees to it that the service has its bytes; those
    /// of a small one go with the change.
    async fn describe(
        self: &Arc<Self>,
        ino: Ino,
        commit: &Commit,
    ) -> Result<(Content, Option<(ContentId, Bytes)>), Errno> {
        if commit.size <= INLINE_LIMIT {
            let pieces = self.view().pieces(ino, 0..commit.size)?;
            let mut bytes = vec![0; usize::try_from(commit.size).unwrap_or(0)];
            self.read_pieces(ino, &pieces, &mut bytes).await?;
            let content = Content::of(&bytes);
            self.contents.keep(content.id.hash(), &bytes);
            return Ok((content, Some((content.id, bytes.into()))));
        }
        let (core, size) = (self.clone(), commit.size);
        let cut = tokio::task::spawn_blocking(move || core.cut(ino, size)).await;
        Ok((cut.map_err(|_| Errno::IO)??, None))
    }

    /// Cuts a large draft into chunks and uploads those that the service lacks. Blocks.
    fn cut(self: &Arc<Self>, ino: Ino, size: u64) -> Result<Content, Errno> {
        let reader = Reader { core: self, ino, at: 0, size, failed: None };
        let mut reader = io::BufReader::with_capacity(PIECE, reader);
        let mut builder = ContentBuilder::default();
        let (mut frames, mut waiting) = (Vec::new(), 0);
        for chunk in Chunker::new(&mut reader) {
            let Ok(chunk) = chunk else { break };
            builder.push(chunk.at.hash, chunk.bytes.len());
            self.contents.keep(chunk.at.hash, &chunk.bytes);
            waiting += chunk.bytes.len();
            frames.push((ContentId::Chunk(chunk.at.hash), Bytes::from(chunk.bytes)));
            if waiting >= TOGETHER {
                self.upload(std::mem::take(&mut frames))?;
                waiting = 0;
            }
        }
        if let Some(errno) = reader.get_ref().failed {
            return Err(errno);
        }
        let (content, recipe) = builder.finish();
        if let ContentId::Recipe(_) = content.id {
            // It goes after its chunks.
            frames.push((content.id, Bytes::from(recipe.encode())));
        }
        self.upload(frames)?;
        self.contents.keep_recipe(content, recipe);
        Ok(content)
    }

    fn upload(&self, mut frames: Vec<(ContentId, Bytes)>) -> Result<(), Errno> {
        frames.dedup_by_key(|(id, _)| *id);
        self.runtime.block_on(self.contents.upload(frames)).map_err(|error| {
            tracing::warn!(%error, "what was written cannot be uploaded");
            if error.is_transient() { Errno::AGAIN } else { Errno::IO }
        })
    }
}

/// The bytes of a file that has a draft, in order.
struct Reader<'a> {
    core: &'a Arc<Core>,
    ino: Ino,
    at: u64,
    size: u64,
    failed: Option<Errno>,
}

impl Read for Reader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = (into.len() as u64).min(self.size - self.at);
        let done = self.core.view().pieces(self.ino, self.at..self.at + length);
        let done = done.and_then(|pieces| {
            let length: u64 = pieces.iter().map(crate::draft::Piece::length).sum();
            let length = usize::try_from(length).unwrap_or(0);
            into[..length].fill(0);
            let read = self.core.read_pieces(self.ino, &pieces, &mut into[..length]);
            self.core.runtime.block_on(read)?;
            Ok(length)
        });
        match done {
            Ok(length) => {
                self.at += length as u64;
                Ok(length)
            }
            Err(errno) => {
                self.failed = Some(errno);
                Err(io::Error::other("a part of the file cannot be read"))
            }
        }
    }
}

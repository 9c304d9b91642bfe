//! Keep and Revert.

use s0_replica::engine::{LocalWrite, ResolveError};
use s0_replica::state::What;
use s0_review::{Action, Body, Left, Part, Reversion, Review, Selection, State, Why};
use s0_tree::{Content, New, TreePath};

use super::observe::{self, Seen};
use super::{Inner, caught_up};
use crate::contents::fetch;
use crate::host::Host;
use crate::protocol::{Choice, NotDone};

/// Larger files are not written back, in bytes.
const LARGEST: u64 = 256 << 20;

/// What was chosen counts as reviewed. Says how many paths are settled by it.
pub(crate) async fn keep(host: &Host, choice: Choice) -> Result<(usize, Vec<NotDone>), String> {
    let mut inner = caught_up(host).await;
    let selection = inner.select(host, choice).await?;
    let before = paths(&inner.review, &selection);
    let left = inner.review.keep(&selection).map_err(|error| error.to_string())?;
    host.review.keep(&inner.review);
    Ok((before.saturating_sub(left.len()), left.into_iter().map(not_done).collect()))
}

/// What was chosen is written back as it was reviewed. Says how many paths are.
pub(crate) async fn revert(host: &Host, choice: Choice) -> Result<(usize, Vec<NotDone>), String> {
    let mut inner = caught_up(host).await;
    let selection = inner.select(host, choice).await?;
    let Reversion { actions, left } =
        inner.review.revert(&selection).map_err(|error| error.to_string())?;
    let mut left: Vec<NotDone> = left.into_iter().map(not_done).collect();
    let mut done = 0;
    for action in actions {
        let path = match &action {
            Action::Write { path, .. } | Action::Remove { path, .. } => path.clone(),
            Action::Rename { from, .. } => from.clone(),
            Action::SetMode { path, .. } => path.clone(),
        };
        match inner.carry_out(host, action).await {
            Ok(()) => done += 1,
            Err(why) => {
                // It is shown as it is now.
                inner.observe(host, &path).await;
                left.push(NotDone { path, why });
            }
        }
    }
    host.review.keep(&inner.review);
    Ok((done, left))
}

/// Gives a path another name, in the user's.
pub(crate) async fn rename(host: &Host, from: &TreePath, to: TreePath) -> Result<(), String> {
    let mut inner = caught_up(host).await;
    inner.carry_out(host, Action::Rename { from: from.clone(), to }).await?;
    host.review.keep(&inner.review);
    Ok(())
}

fn paths(review: &Review, selection: &Selection) -> usize {
    match &selection.part {
        Part::Hunks { .. } | Part::File { .. } => 1,
        Part::All { .. } => review.items().count(),
    }
}

fn not_done(left: Left) -> NotDone {
    let why = match left.why {
        Why::OtherAgents => {
            "several agents changed it as a whole, so that one agent's part cannot be told apart"
        }
        Why::EditedSince => "you have changed it since, and that would go as well",
        Why::Circle => "files were renamed in a circle; rename one of them first",
    };
    NotDone { path: left.path, why: why.into() }
}

impl Inner {
    /// What a choice is about. What was edited since it was shown is looked at first, so
    /// that the choice is refused where it is about something that is not there any more.
    async fn select(&mut self, host: &Host, choice: Choice) -> Result<Selection, String> {
        Ok(match choice {
            Choice::Hunks { path, hunks } => {
                self.observe(host, &path).await;
                Selection::of(Part::Hunks { path, hunks })
            }
            Choice::Path { path, version, agent } => {
                self.observe(host, &path).await;
                let now = self.review.item(&path).map(|item| item.version).unwrap_or_default();
                let part = Part::File { path, version: version.unwrap_or(now) };
                Selection { part, agent }
            }
            Choice::All { version, agent } => {
                let paths: Vec<TreePath> =
                    self.review.items().map(|item| item.path.clone()).collect();
                for path in paths {
                    self.observe(host, &path).await;
                }
                let version = version.unwrap_or_else(|| self.review.version());
                Selection { part: Part::All { version }, agent }
            }
        })
    }

    async fn carry_out(&mut self, host: &Host, action: Action) -> Result<(), String> {
        match action {
            Action::Write { path, body, mode, expect } => {
                let write = match body {
                    Body::Text(text) => LocalWrite::File { bytes: text.into_bytes(), mode },
                    Body::File(content) => {
                        LocalWrite::File { bytes: large(host, content).await?, mode }
                    }
                    Body::Symlink(target) => LocalWrite::Symlink(target),
                    Body::Directory => LocalWrite::Directory(mode),
                    Body::Fifo => return Err("a named pipe cannot be made here".into()),
                };
                self.write(host, &path, expect.as_ref(), write).await?;
                self.observe(host, &path).await;
            }
            Action::Remove { path, expect } => {
                self.write(host, &path, Some(&expect), LocalWrite::Remove).await?;
                self.observe(host, &path).await;
            }
            Action::SetMode { path, mode, expect } => {
                self.write(host, &path, Some(&expect), LocalWrite::Mode(mode)).await?;
                self.observe(host, &path).await;
            }
            Action::Rename { from, to } => {
                let there = observe::at(host, &from).await?;
                let there = there.ok_or_else(|| format!("{from} is gone"))?;
                let state = there.observed().state;
                self.write(host, &from, Some(&state), LocalWrite::Rename(to.clone())).await?;
                if let Some(seen) = observe::at(host, &to).await? {
                    self.review.moved(&from, &to, &Seen::observed(&seen));
                }
            }
        }
        Ok(())
    }

    async fn write(
        &self,
        host: &Host,
        path: &TreePath,
        expect: Option<&State>,
        write: LocalWrite,
    ) -> Result<(), String> {
        let expect = match expect.map(|state| &state.what) {
            None => None,
            Some(New::File { content }) => Some(What::File(*content)),
            Some(New::Directory) => Some(What::Directory),
            Some(New::Symlink { target }) => Some(What::Symlink(target.clone())),
            Some(New::Fifo) => return Err("a named pipe is not touched".into()),
        };
        let deadline = std::time::Instant::now() + crate::conflicts::PATIENCE;
        loop {
            let (at, expect, write) = (path.clone(), expect.clone(), write.clone());
            let written = host
                .replica
                .ask(move |engine, now| engine.write_local(&at, expect.as_ref(), write, now));
            match written.await.map_err(|error| error.to_string())? {
                Ok(()) => return Ok(()),
                Err(ResolveError::NotYet(_)) if std::time::Instant::now() < deadline => {
                    tokio::time::sleep(crate::conflicts::AGAIN).await;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

async fn large(host: &Host, content: Content) -> Result<Vec<u8>, String> {
    if content.size > LARGEST {
        return Err("it is too large to be written back (more than 256 MiB)".into());
    }
    fetch(host, content).await
}

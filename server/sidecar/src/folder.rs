//! A folder's host: found or started, listened to, asked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use s0_host::protocol::{Answer, ConflictView, HostStatus, News, Request, ReviewView};
use s0_host::{Attachment, AttachmentDir, Control, ControlError, Feed};
use s0_tree::TreePath;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::program::Program;

/// How often it is looked whether a folder was attached or its host started.
const LOOK: Duration = Duration::from_millis(1500);
/// News are told when nothing was heard for so long,
const QUIET: Duration = Duration::from_millis(10);
/// and at the latest when the first of them is so old.
const TOGETHER: Duration = Duration::from_millis(40);

/// What is known of a folder.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// The attachment that it belongs to.
    pub(crate) attached: Option<(AttachmentDir, Attachment)>,
    /// The host's last word; nothing when none runs.
    pub(crate) status: Option<HostStatus>,
    /// Why there is none.
    pub(crate) trouble: Option<String>,
    pub(crate) conflicts: Vec<ConflictView>,
    pub(crate) review: ReviewView,
}

/// What a folder's task tells.
#[derive(Debug)]
pub(crate) enum Told {
    View(Box<View>),
    Applied(Vec<(TreePath, bool, Option<String>)>),
}

/// What a folder's task is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// These documents have unsaved text.
    Unsaved(BTreeSet<TreePath>),
    /// Something was done that may have changed what is attached, or started a host.
    Look,
    /// No host shall be started until one is asked for.
    Rest,
}

/// Follows a folder until nobody gives orders any more.
pub(crate) async fn follow(
    folder: PathBuf,
    program: Program,
    tell: mpsc::UnboundedSender<Told>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let mut follower = Follower {
        folder: s0_host::canonical(&folder),
        program,
        tell,
        view: View::default(),
        unsaved: BTreeSet::new(),
        resting: false,
    };
    // What is attached is known at once, and how it is when its host has answered.
    follower.find();
    follower.say();
    let mut told = None;
    loop {
        follower.find();
        let connected = match &follower.view.attached {
            Some((directory, _)) => follower.connect(&directory.clone()).await,
            None => None,
        };
        match connected {
            Some((control, feed)) => {
                let ended = follower.listen(control, feed, &mut orders).await;
                follower.view.status = None;
                if !ended {
                    return;
                }
                // Who stopped it wants it to rest; one that was killed is started again.
                let stopped = |(directory, _): &(AttachmentDir, _)| directory.was_stopped();
                follower.resting |= follower.view.attached.as_ref().is_none_or(stopped);
                follower.find();
                follower.say();
            }
            None => {
                let now = follower.view.attached.as_ref().map(|(_, it)| it.replica_id.clone());
                if told.as_ref() != Some(&now) {
                    follower.say();
                    told = Some(now);
                }
                match tokio::time::timeout(LOOK, orders.recv()).await {
                    Ok(None) => return,
                    Ok(Some(order)) => follower.heed(order),
                    Err(_) => {}
                }
            }
        }
    }
}

struct Follower {
    folder: PathBuf,
    program: Program,
    tell: mpsc::UnboundedSender<Told>,
    view: View,
    unsaved: BTreeSet<TreePath>,
    /// A host is joined, but not started.
    resting: bool,
}

impl Follower {
    fn say(&self) {
        let _ = self.tell.send(Told::View(Box::new(self.view.clone())));
    }

    fn heed(&mut self, order: Order) {
        match order {
            Order::Unsaved(unsaved) => self.unsaved = unsaved,
            Order::Look => self.resting = false,
            Order::Rest => self.resting = true,
        }
    }

    /// Finds the attachment of the folder, or of one above it.
    fn find(&mut self) {
        let listed = self.program.state.list().unwrap_or_default();
        let mut found: Vec<_> =
            listed.into_iter().filter(|(_, it)| contains(&it.root, &self.folder)).collect();
        found.sort_by_key(|(_, it)| it.root.as_os_str().len());
        let found = found.pop();
        if found.as_ref().map(|(_, it)| &it.replica_id)
            != self.view.attached.as_ref().map(|(_, it)| &it.replica_id)
        {
            self.view = View::default();
            self.resting = false;
        }
        self.view.attached = found;
    }

    async fn connect(&mut self, directory: &AttachmentDir) -> Option<(Control, Feed)> {
        let connected = if self.resting {
            Control::connect(directory).await.map_err(|error| error.to_string())
        } else {
            let spawned = s0_host::spawn(&self.program.path, &self.program.state, directory).await;
            spawned.map_err(|error| error.to_string())
        };
        let listening = match connected {
            Ok(control) => self.greet(control, directory).await.map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        match listening {
            Ok(listening) => {
                self.view.trouble = None;
                Some(listening)
            }
            Err(trouble) => {
                let trouble = Some(trouble).filter(|_| !self.resting);
                if self.view.trouble != trouble {
                    self.view.trouble = trouble;
                    self.say();
                }
                None
            }
        }
    }

    /// Listens first, so that nothing is missed between the first look and the news.
    async fn greet(
        &mut self,
        mut control: Control,
        directory: &AttachmentDir,
    ) -> Result<(Control, Feed), ControlError> {
        let feed = Control::connect(directory).await?.subscribe().await?;
        if !self.unsaved.is_empty() {
            control.ask(&Request::Unsaved { documents: self.unsaved.clone() }).await?;
        }
        if let Answer::Status(status) = control.ask(&Request::Status).await? {
            self.view.status = Some(*status);
        }
        self.look_at_conflicts(&mut control).await?;
        self.look_at_review(&mut control).await?;
        self.say();
        Ok((control, feed))
    }

    async fn look_at_conflicts(&mut self, control: &mut Control) -> Result<(), ControlError> {
        if let Answer::Conflicts { conflicts } = control.ask(&Request::Conflicts).await? {
            self.view.conflicts = conflicts;
        }
        Ok(())
    }

    async fn look_at_review(&mut self, control: &mut Control) -> Result<(), ControlError> {
        if let Answer::Review(review) = control.ask(&Request::Review).await? {
            self.view.review = *review;
        }
        Ok(())
    }

    /// Until the host ends (true), or nobody gives orders any more.
    async fn listen(
        &mut self,
        mut control: Control,
        mut feed: Feed,
        orders: &mut mpsc::UnboundedReceiver<Order>,
    ) -> bool {
        let mut news = Unsaid::default();
        let mut told: Option<Instant> = None;
        loop {
            let until = news.due();
            let pause = async move {
                match until {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                heard = feed.next() => match heard {
                    Ok(heard) => {
                        news.hear(heard, &mut self.view);
                        // The first write at once, and what follows closely together: an editor marks what is about
                        // to change before it has read the file.
                        if told.is_none_or(|told| told.elapsed() >= TOGETHER) {
                            self.tell_applied(&mut news, &mut told);
                        }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the host has ended");
                        return true;
                    }
                },
                order = orders.recv() => match order {
                    None => return false,
                    Some(Order::Unsaved(unsaved)) => {
                        self.unsaved = unsaved;
                        let documents = self.unsaved.clone();
                        if control.ask(&Request::Unsaved { documents }).await.is_err() {
                            return true;
                        }
                    }
                    Some(order) => self.heed(order),
                },
                () = pause => {
                    self.tell_applied(&mut news, &mut told);
                    let unsaid = std::mem::take(&mut news);
                    if self.pass_on(unsaid, &mut control).await.is_err() {
                        return true;
                    }
                }
            }
        }
    }

    /// Tells which writes came to the disk since it was told last.
    fn tell_applied(&self, news: &mut Unsaid, told: &mut Option<Instant>) {
        if !news.applied.is_empty() {
            let _ = self.tell.send(Told::Applied(std::mem::take(&mut news.applied)));
            *told = Some(Instant::now());
        }
    }

    async fn pass_on(&mut self, news: Unsaid, control: &mut Control) -> Result<(), ControlError> {
        if news.conflicts {
            self.look_at_conflicts(control).await?;
        }
        if news.review {
            self.look_at_review(control).await?;
        }
        if news.conflicts || news.review || news.status {
            self.say();
        }
        Ok(())
    }
}

/// News that were heard and not passed on yet.
#[derive(Default)]
struct Unsaid {
    /// When the first and the last were heard.
    heard: Option<(Instant, Instant)>,
    applied: Vec<(TreePath, bool, Option<String>)>,
    conflicts: bool,
    review: bool,
    status: bool,
}

impl Unsaid {
    fn hear(&mut self, news: News, view: &mut View) {
        match news {
            News::Applied { path, removed, actor } => self.applied.push((path, removed, actor)),
            News::Conflict { .. } | News::Settled { .. } => self.conflicts = true,
            News::Review { .. } => self.review = true,
            News::Status { status } => {
                self.conflicts |= view.status.as_ref().is_none_or(|old| {
                    old.report.status.conflicts != status.report.status.conflicts
                });
                self.status = true;
                view.status = Some(*status);
            }
            News::Missed { .. } => (self.conflicts, self.review) = (true, true),
            _ => return,
        }
        let now = Instant::now();
        self.heard = Some((self.heard.map_or(now, |(first, _)| first), now));
    }

    fn due(&self) -> Option<Instant> {
        self.heard.map(|(first, last)| (first + TOGETHER).min(last + QUIET))
    }
}

fn contains(root: &Path, folder: &Path) -> bool {
    folder.starts_with(root)
}

//! A workspace on a real disk beside a Volume that admits and folds as the
//! service does, so that what is refused here would be refused there.

use std::collections::HashMap;
use std::sync::Arc;

use s0_api::sync::{Answer, Outcome, Registered, Submission};
use s0_replica::engine::{Config, Effect, Event, Fetched, Init, Pause};
use s0_tree::{
    Action, Actor, AttributeChange, Batch, Change, Content, ContentId, Entry, News, Origin, Policy,
    Quota, Reason, Seq, Source, Tree, Verdict, admit_batch,
};

use crate::room::{Room, path, workspace};
use crate::volume::{At, tree};

pub(crate) struct Played {
    pub(crate) room: Room,
    pub(crate) tree: Tree,
    contents: HashMap<ContentId, Arc<[u8]>>,
    /// Entries that the replica has not been told of.
    unread: Vec<Entry>,
    /// All that the replica has sent.
    pub(crate) sent: Vec<Change>,
    /// What was refused, and why.
    pub(crate) refused: Vec<(String, Reason)>,
    /// Whether contents can be fetched.
    pub(crate) fetches: bool,
}

impl Played {
    /// In sync with a Volume that holds all this.
    pub(crate) fn synced(all: &[(&str, At)]) -> Self {
        Self::around(Room::synced(all), tree(all), all)
    }

    /// A directory with these files that meets a Volume with those for the first time.
    pub(crate) fn meeting(files: &[(&str, &str)], init: Init, all: &[(&str, At)]) -> Self {
        let dir = workspace();
        for (name, text) in files {
            let at = dir.path().join("root").join(name);
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            std::fs::write(at, text).unwrap();
        }
        Self::around(Room::connected(dir, init, tree(all)), tree(all), all)
    }

    /// An empty directory that a Volume with all this has come down to, and where an open
    /// conflict holds back so much.
    pub(crate) fn pausing(pause: Pause, all: &[(&str, At)]) -> Self {
        let config = Config { pause, ..Config::default() };
        let room = Room::configured(workspace(), config, tree(all));
        let mut played = Self::around(room, tree(all), all);
        played.rest();
        played
    }

    fn around(room: Room, tree: Tree, all: &[(&str, At)]) -> Self {
        let mut played = Self {
            room,
            tree,
            contents: HashMap::new(),
            unread: Vec::new(),
            sent: Vec::new(),
            refused: Vec::new(),
            fetches: true,
        };
        for (_, what) in all {
            if let At::File(text) = what {
                played.hold(text);
            }
        }
        played
    }

    fn hold(&mut self, text: &str) -> Content {
        let content = Content::of(text.as_bytes());
        self.contents.insert(content.id, text.as_bytes().into());
        content
    }

    /// An agent does this in the Volume, with nothing expected; the replica has not heard of it.
    pub(crate) fn agent(&mut self, action: Action) {
        let actor = Actor { sandbox: Some("sb".into()), ..Actor::default() };
        let mut change = Change::unstated(action);
        change.make_parents = true;
        let verdict = self.admit(Source::Sandbox, actor, &[change]).remove(0);
        assert!(matches!(verdict, Verdict::Accepted { .. }), "{verdict:?}");
    }

    pub(crate) fn agent_writes(&mut self, at: &str, text: &str) {
        let (content, set) = (self.hold(text), AttributeChange::default());
        self.agent(Action::Write { path: path(at), content, set });
    }

    fn admit(&mut self, source: Source, actor: Actor, changes: &[Change]) -> Vec<Verdict> {
        let origin = Origin { source, actor, ..Origin::default() };
        let (policy, news) = (Policy::default(), News::default());
        let batch =
            Batch { origin: &origin, policy, quota: Quota::default(), news: &news, changes };
        let (entries, verdicts) = admit_batch(&mut self.tree, &batch).unwrap();
        self.unread.extend(entries);
        verdicts
    }

    /// The replica is told of all that is in the journal, and works until it rests.
    pub(crate) fn rest(&mut self) {
        self.deliver();
        self.work();
    }

    /// The replica looks at everything, and works until it rests.
    pub(crate) fn look(&mut self) {
        self.room.tell(Event::Rescan(path("")));
        self.work();
    }

    fn deliver(&mut self) {
        let unread = std::mem::take(&mut self.unread);
        if !unread.is_empty() {
            self.room.tell(Event::Entries(unread.into_iter().map(|it| (it, None)).collect()));
        }
    }

    fn work(&mut self) {
        let end = self.room.now + 20_000;
        loop {
            let wake = self.room.engine.step(self.room.now).unwrap();
            let effects: Vec<_> = self.room.engine.effects().collect();
            let idle = effects.is_empty();
            effects.into_iter().for_each(|effect| self.serve(effect));
            match wake {
                Some(at) if at <= end => self.room.now = self.room.now.max(at) + 1,
                _ if idle && self.unread.is_empty() => return,
                _ if idle => self.deliver(),
                _ => {}
            }
        }
    }

    fn serve(&mut self, effect: Effect) {
        match effect {
            Effect::Submit(submission, contents) => {
                self.contents.extend(contents);
                let answer = self.answer(&submission);
                // The answer is there long before the journal was followed that far.
                self.room.tell(Event::Answered(submission.number, Ok(answer)));
            }
            Effect::Fetch { slot, content, .. } => {
                let bytes = self.contents.get(&content.id).filter(|_| self.fetches);
                let fetched = bytes.cloned().map_or(Fetched::Failed, Fetched::Bytes);
                self.room.tell(Event::Fetched(slot, fetched));
            }
            Effect::FetchTree { .. } => {
                self.unread.clear();
                let (epoch, tree) = ("e".to_owned(), self.tree.clone());
                self.room.tell(Event::Tree { epoch, tree, since: None });
            }
            _ => {}
        }
    }

    fn answer(&mut self, submission: &Submission) -> Answer {
        self.sent.extend(submission.changes.iter().cloned());
        let actor = Actor { replica: Some("here".into()), ..Actor::default() };
        let verdicts = self.admit(Source::Replica, actor, &submission.changes);
        let mut outcomes = Vec::new();
        for (verdict, change) in verdicts.into_iter().zip(&submission.changes) {
            outcomes.push(match verdict {
                Verdict::Accepted { seq, node } => Outcome::Accepted { seq, node },
                Verdict::Held { node, version } => Outcome::Held { node, version },
                Verdict::NoRoom => Outcome::NoRoom,
                Verdict::Refused { by } => Outcome::Refused { by },
                Verdict::Conflict { reason, path, .. } => {
                    self.refused.push((change.path().to_string(), reason));
                    Outcome::Conflict { id: format!("c{}", self.refused.len()), reason, path }
                }
            });
        }
        Answer { head: self.tree.head(), outcomes }
    }

    /// The connection comes back, and the journal does not reach back to the cursor.
    pub(crate) fn reseed(&mut self) {
        self.room.tell(Event::Offline);
        self.online();
        self.room.tell(Event::CannotFollow);
        self.work();
    }

    /// The program is killed, and starts again.
    pub(crate) fn restarted(mut self) -> Self {
        self.room = self.room.reopened();
        self.online();
        self.work();
        self
    }

    fn online(&mut self) {
        self.room.tell(Event::Online(Registered {
            instance: 2,
            last_number: self.room.engine.state().facts.number,
            epoch: "e".into(),
            head: self.tree.head(),
            cursor: Seq(0),
        }));
    }

    /// What the Volume holds at a path.
    pub(crate) fn volume(&self, at: &str) -> Option<String> {
        let (_, node) = self.tree.at(&path(at))?;
        let content = node.content()?;
        Some(String::from_utf8(self.contents[&content.id].to_vec()).unwrap())
    }

    /// What the disk holds at a path.
    pub(crate) fn disk(&self, at: &str) -> Option<String> {
        std::fs::read_to_string(self.room.at(at)).ok()
    }
}

//! What machines and the service say to each other, and what the network makes of it.

use std::sync::Arc;

use s0_api::sync::{Answer, Outcome, Submission, SubmitError};
use s0_replica::engine::{Effect, Event, Fetched, Halt, Notice};
use s0_tree::{Content, Seq};

use super::{Ask, Message, World};
use crate::service::Waiting;

impl World {
    pub(super) fn perform(&mut self, at: usize, effect: Effect) {
        if self.trace {
            let text = match &effect {
                Effect::Submit(submission, _) => {
                    format!("submit {}", serde_json::to_string(&**submission).unwrap_or_default())
                }
                effect => format!("{effect:?}"),
            };
            self.tell(&format!("m{at} {}", text.chars().take(1500).collect::<String>()));
        }
        match effect {
            Effect::FetchTree { since } => self.ask(at, Ask::Tree(since)),
            Effect::Follow(after) => {
                if after < self.service.floor || after > self.service.head() {
                    self.count("reseed");
                    self.deliver(at, Event::CannotFollow);
                    let now = self.now;
                    let Some(replica) = &mut self.machines[at].replica else { return };
                    let effects: Vec<Effect> = replica.effects().collect();
                    let _ = now;
                    for effect in effects {
                        self.perform(at, effect);
                    }
                } else {
                    self.machines[at].following = Some(after);
                }
            }
            Effect::Submit(submission, inline) => {
                self.ask(at, Ask::Submit(submission.clone(), inline.clone()));
                if self.rng.u8(..) < self.loss {
                    // The network says it twice, the second time much later.
                    let message = Message {
                        due: self.now + self.rng.u64(..3000),
                        machine: at,
                        session: self.machines[at].session,
                        instance: self.machines[at].instance,
                        ask: Ask::Submit(submission, inline),
                    };
                    self.messages.push(message);
                }
            }
            Effect::Fetch { slot, content, .. } => self.ask(at, Ask::Fetch(slot, content)),
            Effect::Upload { path, content, .. } => self.ask(at, Ask::Upload(path, content)),
            Effect::Settle(id, _) => self.ask(at, Ask::Settle(id)),
            Effect::Cursor(cursor) => self.ask(at, Ask::Cursor(cursor)),
            Effect::Author(_, entry) => self.ask(at, Ask::Author(entry)),
            Effect::Notice(notice) => self.hear(notice),
        }
    }

    pub(super) fn hear(&mut self, notice: Notice) {
        match notice {
            Notice::Uploaded { .. } => self.count("uploaded"),
            Notice::Applied { .. } => self.count("applied"),
            Notice::Kept { .. } => self.count("kept beside"),
            Notice::Settled { resolution, .. } => self.count(&format!("settled {resolution}")),
            Notice::Conflict { path, reason } if self.lonely && !reason.is_about_names() => {
                let what = format!("a conflict with nobody: {path} {reason:?}");
                self.registry.borrow_mut().violate(what);
            }
            Notice::Halted(halt) if !matches!(halt, Halt::Vanished { .. } | Halt::Fenced) => {
                self.registry.borrow_mut().violate(format!("halted: {halt:?}"));
            }
            _ => {}
        }
    }

    pub(super) fn ask(&mut self, at: usize, ask: Ask) {
        if self.rng.u8(..) < self.loss / 2 {
            self.lose(at, &ask);
            if self.rng.bool() {
                return;
            }
        }
        let machine = &self.machines[at];
        self.messages.push(Message {
            due: self.now + self.rng.u64(..60),
            machine: at,
            session: machine.session,
            instance: machine.instance,
            ask,
        });
    }

    /// An answer that never comes: after a while the machine gives up waiting.
    pub(super) fn lose(&mut self, at: usize, ask: &Ask) {
        let event = match ask {
            Ask::Submit(submission, _) => {
                self.count("answer lost");
                Event::Unanswered(submission.number)
            }
            Ask::Fetch(slot, _) => Event::Fetched(*slot, Fetched::Failed),
            Ask::Upload(_, content) => Event::Uploaded(content.id, false),
            Ask::Tree(_) => Event::CannotFollow,
            // It is asked until it is answered.
            Ask::Author(entry) => self.author(at, *entry),
            Ask::Settle(..) | Ask::Cursor(_) => return,
        };
        let session = self.machines[at].session;
        let due = self.now + 50;
        self.machines[at].inbox.push((due, session, event));
    }

    /// The service takes what has arrived, and commits.
    pub(super) fn serve(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) =
            self.messages.drain(..).partition(|message| message.due <= now);
        self.messages = later;
        for message in due {
            self.answer(message);
        }
        if self.rng.u8(..) < 200 {
            self.commit();
        }
    }

    pub(super) fn commit(&mut self) {
        if self.trace {
            for entry in &self.service.uncommitted {
                let text = serde_json::to_string(entry).unwrap_or_default();
                let bytes = entry.content().and_then(|content| self.service.bytes(content));
                self.tell(&format!(
                    "journal {text} {:?}",
                    bytes.map(|b| String::from_utf8_lossy(&b).into_owned())
                ));
            }
        }
        let waiting = self.service.commit(&mut self.registry.borrow_mut());
        self.lines.borrow_mut().commit();
        for Waiting { machine, session, number, answer } in waiting {
            let due = self.now + self.rng.u64(..60);
            self.machines[machine].inbox.push((due, session, Event::Answered(number, answer)));
        }
    }

    pub(super) fn answer(&mut self, message: Message) {
        let Message { machine: at, session, instance, ask, .. } = message;
        let due = self.now + self.rng.u64(..60);
        self.tell(&format!("the service hears m{at}"));
        let event = match ask {
            Ask::Tree(since) => {
                let tree = self.service.tree().clone();
                let since = since.and_then(|since| self.service.entries_after(since));
                if since.is_none() {
                    // Nobody can tell what of it is new to the user.
                    let all = self.known_to_who_decides();
                    self.machines[at].site.borrow_mut().handled.extend(all);
                }
                Event::Tree { epoch: self.service.epoch().to_owned(), tree, since }
            }
            Ask::Submit(submission, inline) => {
                let id = self.machines[at].id.clone();
                let seen = self.machines[at].site.borrow().seen.clone();
                let (answer, repeated) = self.service.submit(
                    &id,
                    instance,
                    &submission,
                    &inline,
                    self.now,
                    &mut self.registry.borrow_mut(),
                    &seen,
                );
                if repeated {
                    self.count("submission repeated");
                }
                self.count_renames(&submission, &answer);
                self.tell(&format!("answers {answer:?}"));
                let number = submission.number;
                self.service.waiting.push(Waiting { machine: at, session, number, answer });
                return;
            }
            Ask::Fetch(slot, content) => {
                if session != self.machines[at].session {
                    return;
                }
                match self.service.bytes(content) {
                    Some(bytes) if self.rng.bool() => {
                        Event::Fetched(slot, Fetched::Bytes(Arc::from(&*bytes)))
                    }
                    Some(bytes) => {
                        // A large download goes to the part file directly.
                        let site = &mut *self.machines[at].site.borrow_mut();
                        site.fs.who = crate::fs::Who::Engine;
                        let part = format!(".s0/staging/{}.part", slot.0);
                        let _ = site.fs.unlink(&part);
                        let made = site.fs.create(&part, &bytes, 0o600).is_ok();
                        site.fs.who = crate::fs::Who::Actor;
                        Event::Fetched(slot, if made { Fetched::Part } else { Fetched::Failed })
                    }
                    None => Event::Fetched(slot, Fetched::Failed),
                }
            }
            Ask::Upload(path, content) => {
                let site = self.machines[at].site.borrow();
                let data = site.fs.find(path.as_str()).and_then(|inode| site.fs.data(inode));
                let good = data.filter(|data| Content::of(data) == content);
                let done = good.is_some();
                if let Some(data) = good {
                    self.service.contents.insert(content.id, data);
                }
                Event::Uploaded(content.id, done)
            }
            Ask::Settle(id) => Event::SettlementHeard(id),
            Ask::Author(entry) => self.author(at, entry),
            Ask::Cursor(cursor) => {
                let id = self.machines[at].id.clone();
                // An older one, or one of another epoch, is refused.
                let _ = self.service.ledger.set_cursor(&id, cursor, s0_tree::Time(0));
                return;
            }
        };
        self.machines[at].inbox.push((due, session, event));
    }

    fn author(&self, at: usize, entry: Seq) -> Event {
        let author = self.service.author(entry);
        if author.is_none() {
            self.machines[at].site.borrow_mut().handled.extend(self.known_to_who_decides());
        }
        Event::Author(entry, author)
    }

    pub(super) fn count_renames(
        &self,
        submission: &Submission,
        answer: &Result<Answer, SubmitError>,
    ) {
        let Ok(answer) = answer else { return };
        for (change, outcome) in submission.changes.iter().zip(&answer.outcomes) {
            if let (s0_tree::Action::Rename { to, .. }, Outcome::Accepted { .. }) =
                (&change.action, outcome)
            {
                let directory =
                    self.service.ledger.tree().at(to).is_some_and(|(_, n)| n.directory().is_some());
                self.count(if directory {
                    "rename uploaded directory"
                } else {
                    "rename uploaded file"
                });
            }
        }
    }

    /// Brings a machine the next entries of the journal.
    pub(super) fn pump(&mut self, at: usize) {
        let Some(after) = self.machines[at].following else { return };
        if !self.machines[at].online || self.machines[at].replica.is_none() {
            return;
        }
        self.deliver(at, Event::Terms(self.service.ledger.policy(), self.service.ledger.quota()));
        let head = self.service.head();
        if after >= head {
            return;
        }
        let count = self.rng.u64(1..20);
        let first = self.service.journal.first().map_or(Seq(1), |entry| entry.seq);
        let from = usize::try_from(after.0 + 1 - first.0).unwrap_or(0);
        let entries: Vec<_> = self
            .service
            .journal
            .iter()
            .skip(from)
            .take(usize::try_from(count).unwrap_or(1))
            .cloned()
            .collect();
        let Some(last) = entries.last().map(|entry| entry.seq) else { return };
        let with: Vec<_> = entries
            .into_iter()
            .map(|entry| {
                let bytes = entry
                    .content()
                    .filter(|_| self.rng.bool())
                    .and_then(|content| self.service.bytes(content))
                    .map(|bytes| Arc::from(&*bytes));
                (entry, bytes)
            })
            .collect();
        for (entry, _) in &with {
            if matches!(entry.op, s0_tree::Op::Rename { .. }) {
                self.count("rename applied");
            }
        }
        self.machines[at].following = Some(last);
        self.deliver(at, Event::Entries(with));
    }
}

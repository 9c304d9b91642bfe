//! One run: machines, a service and a network between them, all driven by one
//! seed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use s0_api::sync::{Capabilities, Registration, Submission};
use s0_replica::disk::{IntentId, Rules};
use s0_replica::engine::{
    Config, Effect, Event, Fetched, Halt, Init, Notice, Pause, Pending, Replica, WayOut,
};
use s0_replica::state::ConflictStatus;
use s0_tree::{Content, ContentId, Seq, TreePath};

use crate::coverage::{Coverage, Shared};
use crate::disk::{Durable, SimDisk, SimStore};
use crate::fs::{Fs, Node, Traits};
use crate::service::{Service, Waiting, in_words};
use crate::site::{Registry, Site};

/// Steps of actors in one run, at least.
const STEPS: u32 = 200;
/// Rounds after which a world that has not come to rest never will.
const ROUNDS: u32 = 4000;

struct SimRules;

impl Rules for SimRules {
    fn is_ignored(&mut self, path: &TreePath, _: bool) -> bool {
        path.names().any(|name| name.as_str().to_lowercase().starts_with("ign"))
    }
    fn changed(&mut self, _: &TreePath) -> bool {
        false
    }
    fn is_tracked(&mut self, _: &TreePath) -> bool {
        false
    }
    fn read_again(&mut self) {}
}

/// What a machine asks of the service.
#[derive(Clone)]
enum Ask {
    Tree,
    Submit(Arc<Submission>, Vec<(ContentId, Arc<[u8]>)>),
    Fetch(IntentId, Content),
    Upload(TreePath, Content),
    Settle(String),
    Cursor,
}

struct Message {
    due: u64,
    machine: usize,
    session: u64,
    instance: u64,
    ask: Ask,
}

struct Machine {
    id: String,
    site: Rc<RefCell<Site>>,
    durable: Rc<RefCell<Durable>>,
    replica: Option<Replica<SimDisk, SimStore>>,
    config: Config,
    sandbox: bool,
    online: bool,
    session: u64,
    instance: u64,
    following: Option<Seq>,
    inbox: Vec<(u64, u64, Event)>,
    wake: Option<u64>,
    /// It is switched on after so many steps of the others.
    from_step: u32,
}

/// A whole simulated world.
pub struct World {
    rng: fastrand::Rng,
    now: u64,
    machines: Vec<Machine>,
    service: Service,
    messages: Vec<Message>,
    registry: Rc<RefCell<Registry>>,
    coverage: Shared,
    names: Vec<&'static str>,
    agent: bool,
    lonely: bool,
    loss: u8,
    agent_steps: u32,
    trace: bool,
}

/// Runs one seed. Says what was reached, and what went wrong if anything did.
pub fn run(seed: u64) -> (Coverage, Result<(), String>) {
    let mut world = World::new(seed);
    let result = world.play().map_err(|why| format!("[{}] {why}", world.in_words()));
    let coverage = world.coverage.borrow().clone();
    (coverage, result)
}

/// Runs one seed in which the planner is alone: what was one tree becomes three,
/// on the disks, in what is synced, and in the Volume; then only replicas work.
pub fn run_apart(seed: u64) -> (Coverage, Result<(), String>) {
    let mut world = World::new(seed);
    let result = world.part_and_meet().map_err(|why| format!("[{}] {why}", world.in_words()));
    let coverage = world.coverage.borrow().clone();
    (coverage, result)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let registry = Rc::new(RefCell::new(Registry::default()));
        let coverage = Shared::default();
        let odd = rng.u8(..) < 110;
        // Of a stream of its own, so that the worlds without it stay as they were.
        let meddling = fastrand::Rng::with_seed(!seed).u8(..) < 40;
        let lonely = rng.u8(..) < 30;
        let count = if lonely { 1 } else { rng.usize(1..4) };
        let mut names = crate::site::PLAIN.to_vec();
        if odd {
            names.extend(crate::site::ODD);
        }
        names.push("ign.log");
        let mut machines = Vec::new();
        for number in 0..count {
            let insensitive = odd && rng.u8(..) < 80;
            let traits = Traits {
                case_insensitive: insensitive,
                preserving: !insensitive || rng.bool(),
                windows_names: insensitive && rng.bool(),
                modes: !insensitive || rng.bool(),
                exchange: rng.u8(..) < 190,
                born: rng.u8(..) < 200,
                grain: [0, 0, 10_000_000, 2_000_000_000][rng.usize(..4)],
            };
            let sandbox = number > 0 && rng.u8(..) < 80;
            let fork = fastrand::Rng::with_seed(rng.u64(..));
            let mut site = Site::new(
                &format!("m{number}"),
                Fs::new(traits),
                fork,
                registry.clone(),
                coverage.clone(),
                odd,
            );
            site.names.clone_from(&names);
            if std::env::var_os("S0_SIM_TRACE").is_some() {
                site.fs.trace = Some(format!("m{number}"));
            }
            site.meddling = meddling;
            site.haste = [0, 4, 20, 60][rng.usize(..4)];
            machines.push(Machine {
                id: format!("replica {number}"),
                site: Rc::new(RefCell::new(site)),
                durable: Rc::default(),
                replica: None,
                config: Config {
                    init: Init::Auto,
                    pause: if sandbox || rng.u8(..) < 60 { Pause::Path } else { Pause::Workspace },
                    inline_limit: if rng.bool() { 30 } else { 1000 },
                    settle: 100,
                    boot: "boot 0".into(),
                },
                sandbox,
                online: false,
                session: 0,
                instance: 0,
                following: None,
                inbox: Vec::new(),
                wake: None,
                from_step: if insensitive && count > 1 { rng.u32(..80) } else { 0 },
            });
        }
        let mut service = Service::new();
        if odd && !lonely && rng.u8(..) < 80 {
            service.start_with_spellings(&mut registry.borrow_mut(), &mut rng);
        }
        Self {
            now: 1000,
            machines,
            service,
            messages: Vec::new(),
            registry,
            coverage,
            names,
            agent: !lonely,
            lonely,
            loss: [0, 10, 40][rng.usize(..3)],
            agent_steps: 0,
            trace: std::env::var_os("S0_SIM_TRACE").is_some(),
            rng,
        }
    }

    fn play(&mut self) -> Result<(), String> {
        while self.actor_steps() < STEPS {
            let passed = self.rng.u64(..8);
            self.pass(passed);
            match self.rng.u8(..200) {
                0..=59 => {
                    let at = self.rng.usize(..self.machines.len());
                    self.machines[at].site.borrow_mut().act();
                }
                60..=84 if self.agent => self.let_agent_work(),
                60..=149 => {
                    let at = self.rng.usize(..self.machines.len());
                    self.run_machine(at);
                }
                150..=171 => self.serve(),
                172..=185 => {
                    let at = self.rng.usize(..self.machines.len());
                    self.pump(at);
                }
                186..=188 => {
                    let passed = self.rng.u64(..2000);
                    self.pass(passed);
                }
                _ => self.trouble(),
            }
            self.verdict()?;
        }
        self.settle_down()?;
        self.compare()
    }

    fn part_and_meet(&mut self) -> Result<(), String> {
        for machine in &mut self.machines {
            machine.from_step = 0;
        }
        self.work(40);
        self.settle_down()?;
        for at in 0..self.machines.len() {
            self.stop(at);
        }
        let more = self.rng.u32(..80);
        self.work(more);
        self.settle_down()?;
        self.compare()
    }

    /// Users and agents work for so many steps, and nothing else happens.
    fn work(&mut self, steps: u32) {
        for _ in 0..steps {
            self.pass(10);
            if self.agent && self.rng.u8(..) < 80 {
                self.let_agent_work();
                self.service.commit(&mut self.registry.borrow_mut());
            } else {
                let at = self.rng.usize(..self.machines.len());
                self.machines[at].site.borrow_mut().act();
            }
        }
    }

    /// What kind of world it is.
    fn in_words(&self) -> String {
        let machines: Vec<String> = self
            .machines
            .iter()
            .map(|machine| {
                let traits = machine.site.borrow().fs.traits;
                let fold = match (traits.case_insensitive, traits.preserving) {
                    (false, _) => "exact",
                    (true, true) => "folds",
                    (true, false) => "lowers",
                };
                format!("{fold} exchange {} grain {}", traits.exchange, traits.grain)
            })
            .collect();
        format!("agent {} {}", self.agent, machines.join(", "))
    }

    fn actor_steps(&self) -> u32 {
        let sites: u32 = self.machines.iter().map(|m| m.site.borrow().steps).sum();
        sites + self.agent_steps
    }

    fn verdict(&self) -> Result<(), String> {
        match &self.registry.borrow().violation {
            Some(what) => Err(what.clone()),
            None => Ok(()),
        }
    }

    fn tell(&self, what: &str) {
        if self.trace {
            eprintln_trace(&format!("{} {what}", self.now));
        }
    }

    fn count(&self, what: &str) {
        Coverage::count(&self.coverage, what);
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now += milliseconds;
        let now = 1_000_000_000_000 + i64::try_from(self.now).unwrap_or(0) * 1_000_000;
        for machine in &self.machines {
            machine.site.borrow_mut().fs.now = now;
        }
    }

    fn let_agent_work(&mut self) {
        self.agent_steps += 1;
        let registry = &mut *self.registry.borrow_mut();
        self.service.agent(&mut self.rng, &self.names, self.now, registry, &self.coverage);
    }

    /// Something breaks.
    fn trouble(&mut self) {
        let at = self.rng.usize(..self.machines.len());
        let mut reboot = false;
        match self.rng.u8(..24) {
            0..=4 => {
                // A crash somewhere in what the replica does next.
                let site = &mut *self.machines[at].site.borrow_mut();
                if self.rng.bool() {
                    site.crash_in = Some(self.rng.u32(..60));
                } else {
                    let kinds: Vec<&str> = crate::coverage::REQUIRED
                        .iter()
                        .filter_map(|what| what.strip_prefix("crash "))
                        .collect();
                    site.crash_at = Some(kinds[self.rng.usize(..kinds.len())]);
                }
            }
            5 | 6 => {
                self.count("power cut");
                self.stop(at);
                let site = &mut *self.machines[at].site.borrow_mut();
                let before = site.fs.all_contents();
                site.forget_handles();
                site.fs.power_cut(&mut self.rng);
                let after = site.fs.contents();
                let registry = &mut *self.registry.borrow_mut();
                for data in before.iter().filter(|data| !after.contains(data)) {
                    // Nobody had synced it: that is what power cuts do.
                    registry.excuse(data);
                }
                self.machines[at].durable.borrow_mut().power_cut();
                reboot = true;
            }
            7..=12 => self.cut(at),
            13..=15 => {
                self.count("crash service");
                self.service.crash(&mut self.registry.borrow_mut());
                for at in 0..self.machines.len() {
                    self.cut(at);
                }
            }
            16 | 17 => self.service.back_up(),
            18 if !self.lonely && self.rng.u8(..) < 60 => {
                let registry = &mut *self.registry.borrow_mut();
                if self.service.restore_backup(&mut self.rng, registry) {
                    Coverage::count(&self.coverage, "epoch");
                    for at in 0..self.machines.len() {
                        let machine = &mut self.machines[at];
                        machine.online = false;
                        machine.following = None;
                        machine.session += 1;
                        machine.inbox.clear();
                        if let Some(replica) = &mut machine.replica {
                            let _ = replica.handle(Event::Offline, self.now);
                        }
                    }
                    self.messages.clear();
                }
            }
            19 | 20 => {
                let keep = self.rng.u64(..20);
                let head = self.service.head().0;
                self.service.floor = Seq(self.service.floor.0.max(head.saturating_sub(keep)));
            }
            21 | 22 => {
                self.count("watch overflow");
                self.machines[at].site.borrow_mut().fs.events.clear();
                self.deliver(at, Event::Rescan(TreePath::root()));
            }
            _ => {
                // The system writes everything out.
                self.machines[at].site.borrow_mut().fs.sync();
            }
        }
        if reboot {
            self.machines[at].config.boot = format!("boot {}", self.now);
        }
    }

    /// The connection of a machine breaks. What it sent may still arrive.
    fn cut(&mut self, at: usize) {
        self.tell(&format!("m{at} is cut off"));
        let machine = &mut self.machines[at];
        machine.online = false;
        machine.following = None;
        machine.session += 1;
        machine.inbox.clear();
        if let Some(replica) = &mut machine.replica {
            let _ = replica.handle(Event::Offline, self.now);
        }
    }

    /// The replica's process ends.
    fn stop(&mut self, at: usize) {
        self.tell(&format!("m{at} stops"));
        let machine = &mut self.machines[at];
        machine.replica = None;
        machine.online = false;
        machine.following = None;
        machine.session += 1;
        machine.inbox.clear();
        let site = &mut *machine.site.borrow_mut();
        site.crashed = false;
        site.crash_in = None;
        site.fs.watched.clear();
        site.fs.events.clear();
    }

    fn deliver(&mut self, at: usize, event: Event) {
        let now = self.now;
        let Some(replica) = &mut self.machines[at].replica else { return };
        if replica.handle(event, now).is_err() {
            self.stop(at);
        }
    }

    /// Lets a machine's replica do what it can.
    fn run_machine(&mut self, at: usize) {
        if self.actor_steps() < self.machines[at].from_step {
            return;
        }
        if self.machines[at].site.borrow().crashed {
            self.stop(at);
        }
        if self.machines[at].replica.is_none() && !self.start(at) {
            return;
        }
        if !self.machines[at].online && self.rng.bool() {
            self.connect(at);
        }
        let events = std::mem::take(&mut self.machines[at].site.borrow_mut().fs.events);
        if !events.is_empty() {
            self.deliver(at, Event::Touched(events));
        }
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) =
            self.machines[at].inbox.drain(..).partition(|(due, ..)| *due <= now);
        self.machines[at].inbox = later;
        for (_, session, event) in due {
            if session == self.machines[at].session {
                self.deliver(at, event);
            }
        }
        self.step(at);
    }

    fn step(&mut self, at: usize) {
        let now = self.now;
        let Some(replica) = &mut self.machines[at].replica else { return };
        let stepped = replica.step(now);
        let effects: Vec<Effect> = replica.effects().collect();
        self.machines[at].site.borrow_mut().note_seen();
        if self.trace
            && std::env::var_os("S0_SIM_DEBUG").is_some()
            && let Some(replica) = &self.machines[at].replica
        {
            self.tell(&format!("m{at} is now\n{}", replica.debug()));
        }
        if let Some(replica) = &mut self.machines[at].replica
            && matches!(replica.status().halt, Some(Halt::Vanished { .. }))
        {
            // The user meant it.
            Coverage::count(&self.coverage, "halt");
            let _ = replica.resume(s0_replica::engine::Resume::ConfirmDeletions, now);
        }
        match stepped {
            Ok(wake) => self.machines[at].wake = wake,
            Err(_) => {
                self.stop(at);
                return;
            }
        }
        if self.machines[at].site.borrow().crashed {
            // Nothing that it wanted to send was sent.
            self.stop(at);
            return;
        }
        for effect in effects {
            self.perform(at, effect);
        }
    }

    fn start(&mut self, at: usize) -> bool {
        self.tell(&format!("m{at} starts"));
        let machine = &mut self.machines[at];
        let disk = SimDisk(machine.site.clone());
        let store = SimStore::new(machine.site.clone(), machine.durable.clone());
        match Replica::open(machine.config.clone(), disk, store, Box::new(SimRules), self.now) {
            Ok(replica) => {
                machine.replica = Some(replica);
                true
            }
            Err(_) => {
                self.stop(at);
                false
            }
        }
    }

    fn connect(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let traits = machine.site.borrow().fs.traits;
        let registration = Registration {
            display_name: machine.id.clone(),
            platform: "sim".into(),
            root_path: "/".into(),
            case_sensitive: !traits.case_insensitive,
            capabilities: Capabilities {
                case_sensitive: !traits.case_insensitive,
                unicode_normalization_insensitive: traits.case_insensitive,
                windows_compatible_paths: traits.windows_names,
            },
            take_instance: true,
            sandbox_id: machine.sandbox.then(|| "sb_sim".into()),
        };
        machine.online = true;
        machine.session += 1;
        let registered = self.service.register(&machine.id, &registration);
        machine.instance = registered.instance;
        self.commit();
        self.deliver(at, Event::Online(registered));
    }

    fn perform(&mut self, at: usize, effect: Effect) {
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
            Effect::FetchTree => self.ask(at, Ask::Tree),
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
            Effect::Upload { path, content } => self.ask(at, Ask::Upload(path, content)),
            Effect::Settle(id, _) => self.ask(at, Ask::Settle(id)),
            Effect::Cursor(_) => self.ask(at, Ask::Cursor),
            Effect::Notice(notice) => self.hear(notice),
        }
    }

    fn hear(&mut self, notice: Notice) {
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

    fn ask(&mut self, at: usize, ask: Ask) {
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
    fn lose(&mut self, at: usize, ask: &Ask) {
        let event = match ask {
            Ask::Submit(submission, _) => {
                self.count("answer lost");
                Event::Unanswered(submission.number)
            }
            Ask::Fetch(slot, _) => Event::Fetched(*slot, Fetched::Failed),
            Ask::Upload(_, content) => Event::Uploaded(content.id, false),
            Ask::Tree => Event::CannotFollow,
            Ask::Settle(..) | Ask::Cursor => return,
        };
        let session = self.machines[at].session;
        let due = self.now + 50;
        self.machines[at].inbox.push((due, session, event));
    }

    /// The service takes what has arrived, and commits.
    fn serve(&mut self) {
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

    fn commit(&mut self) {
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
        for Waiting { machine, session, number, answer } in waiting {
            let due = self.now + self.rng.u64(..60);
            self.machines[machine].inbox.push((due, session, Event::Answered(number, answer)));
        }
    }

    fn answer(&mut self, message: Message) {
        let Message { machine: at, session, instance, ask, .. } = message;
        let due = self.now + self.rng.u64(..60);
        self.tell(&format!("the service hears m{at}"));
        let event = match ask {
            Ask::Tree => Event::Tree {
                epoch: self.service.epoch().to_owned(),
                tree: self.service.tree().clone(),
            },
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
            Ask::Cursor => return,
        };
        self.machines[at].inbox.push((due, session, event));
    }

    fn count_renames(
        &self,
        submission: &Submission,
        answer: &Result<s0_api::sync::Answer, s0_api::sync::SubmitError>,
    ) {
        let Ok(answer) = answer else { return };
        for (change, outcome) in submission.changes.iter().zip(&answer.outcomes) {
            if let (s0_tree::Action::Rename { to, .. }, s0_api::sync::Outcome::Accepted { .. }) =
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
    fn pump(&mut self, at: usize) {
        let Some(after) = self.machines[at].following else { return };
        if !self.machines[at].online || self.machines[at].replica.is_none() {
            return;
        }
        self.deliver(at, Event::Policy(self.service.ledger.policy()));
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

    /// Actors stop, everything heals, and the world must come to rest; then the
    /// conflicts are settled, and it must come to rest again, with all equal.
    fn settle_down(&mut self) -> Result<(), String> {
        self.loss = 0;
        for machine in &self.machines {
            let site = &mut *machine.site.borrow_mut();
            if !site.fs.writers.is_empty() {
                Coverage::count(&self.coverage, "open writer");
            }
            site.active = false;
            site.crash_in = None;
            site.crash_at = None;
        }
        for round in 0..30 {
            // For a while programs still have their files open.
            if round == 1 {
                for machine in &self.machines {
                    machine.site.borrow_mut().close_all();
                }
            }
            if round > 0 {
                self.rest()?;
                if !self.settle_some(round)? {
                    return Ok(());
                }
            } else {
                for _ in 0..20 {
                    self.round();
                    self.verdict()?;
                }
            }
        }
        Err("conflicts do not end".into())
    }

    fn round(&mut self) {
        self.pass(60);
        for at in 0..self.machines.len() {
            self.run_machine(at);
            self.pump(at);
        }
        self.serve();
        self.commit();
    }

    fn rest(&mut self) -> Result<(), String> {
        let mut quiet = 0;
        for _ in 0..ROUNDS {
            self.round();
            self.verdict()?;
            let head = self.service.head();
            let still = self.messages.is_empty()
                && self.machines.iter().all(|machine| {
                    machine.replica.as_ref().is_some_and(|replica| {
                        let blocked = replica
                            .state()
                            .conflicts
                            .values()
                            .any(|conflict| conflict.status == ConflictStatus::Open);
                        let pending = replica.pending();
                        let uploads = if blocked { 0 } else { pending.uploads };
                        machine.online
                            && machine.inbox.is_empty()
                            && machine.following == Some(head)
                            && replica.state().outgoing.is_none()
                            && replica.state().intents.is_empty()
                            && Pending { uploads, ..pending } == Pending::default()
                            && replica.status().halt.is_none()
                    })
                });
            quiet = if still { quiet + 1 } else { 0 };
            if quiet == 8 {
                return Ok(());
            }
        }
        let mut why = String::from("it does not come to rest:");
        for machine in &self.machines {
            let Some(replica) = &machine.replica else { continue };
            let status = replica.status();
            let still = Pending { uploads: 0, ..status.pending } == Pending::default()
                && replica.state().intents.is_empty()
                && machine.inbox.is_empty()
                && replica.state().outgoing.is_none()
                && (status.pending.uploads == 0 || !replica.state().conflicts.is_empty());
            if still {
                continue;
            }
            why += &format!(
                "\n{} {:?} {:?} halt {:?} outgoing {:?}\n{}",
                machine.id,
                status.condition,
                status.pending,
                status.halt,
                replica.state().outgoing.as_ref().map(|outgoing| &outgoing.submission),
                replica.debug(),
            );
        }
        Err(why)
    }

    /// Settles the open conflicts, each in some way. Says whether there were any.
    fn settle_some(&mut self, round: u32) -> Result<bool, String> {
        let mut any = false;
        for at in 0..self.machines.len() {
            let Some(replica) = &self.machines[at].replica else { continue };
            let open: Vec<_> = replica
                .state()
                .conflicts
                .iter()
                .filter(|(_, conflict)| conflict.status == ConflictStatus::Open)
                .map(|(path, conflict)| (path.clone(), conflict.reason))
                .collect();
            for (path, reason) in open {
                any = true;
                self.settle_one(at, &path, reason.is_about_names(), round);
                self.verdict()?;
            }
        }
        Ok(any)
    }

    fn settle_one(&mut self, at: usize, path: &TreePath, name: bool, round: u32) {
        let now = self.now;
        if name {
            // The user gives the file a name that everyone can hold.
            let site = &mut *self.machines[at].site.borrow_mut();
            site.fs.who = crate::fs::Who::Actor;
            let to = format!("renamed{}", self.rng.u32(..));
            if site.fs.rename(path.as_str(), &to, false).is_err() {
                let _ = site.fs.unlink(path.as_str());
            }
            site.account();
            return;
        }
        let way = match self.rng.u8(..4) {
            0 => WayOut::Mark,
            1 => WayOut::TakeTheirs,
            2 => WayOut::KeepBoth,
            // Meanwhile new conflicts arise, so that this must have an end.
            _ if round > 10 => WayOut::Mark,
            _ => return self.merge(at, path),
        };
        let below = self.known_to_who_decides();
        let Some(replica) = &mut self.machines[at].replica else { return };
        let ways = [way, WayOut::Mark, WayOut::KeepBoth, WayOut::TakeTheirs];
        let mut tried = ways.map(|way| (way, None));
        for (way, result) in &mut tried {
            let settled = replica.resolve(path, *way, now);
            let done = settled.is_ok();
            *result = Some(settled);
            if done {
                break;
            }
        }
        let settled = tried.iter().any(|(_, result)| matches!(result, Some(Ok(()))));
        self.tell(&format!("m{at} settles {path}: {tried:?}"));
        if settled {
            self.machines[at].site.borrow_mut().seen.extend(below);
        }
    }

    /// The user merges while programs go on and the machine may fail. What comes
    /// of it is settled in the next round.
    fn merge(&mut self, at: usize, path: &TreePath) {
        let below = self.known_to_who_decides();
        let machine = &mut self.machines[at];
        let Some(replica) = &mut machine.replica else { return };
        let Ok(sides) = replica.sides(path, self.now) else { return };
        let merged = self.registry.borrow_mut().fresh("merged", &mut self.rng);
        let mine = machine.site.borrow().fs.contents();
        let mine = mine.into_iter().find(|data| Content::of(data) == sides.mine);
        let crash_in = (self.rng.u8(..) < 80).then(|| self.rng.u32(..20));
        let haste = std::mem::replace(&mut machine.site.borrow_mut().haste, 20);
        machine.site.borrow_mut().active = true;
        machine.site.borrow_mut().crash_in = crash_in;
        let done = replica.merge(path, sides, &merged, self.rng.bool(), self.now);
        let site = &mut *machine.site.borrow_mut();
        (site.active, site.crash_in, site.haste) = (false, None, haste);
        site.close_all();
        let replaced = self.registry.borrow().written.get(&merged) == Some(&true);
        let is_merged = |(_, inode): &(String, u64)| site.fs.data(*inode).as_ref() == Some(&merged);
        let is_there = replaced || site.fs.walk().iter().any(is_merged);
        // One of them is where its writer wanted it, the other is in it or was
        // never there.
        let gone = if is_there { mine.as_ref() } else { Some(&merged) };
        gone.into_iter().for_each(|data| self.registry.borrow_mut().excuse(data));
        // Even if it failed: it may have done so after all was said and done.
        site.seen.extend(below);
        if done.is_err() {
            Coverage::count(&self.coverage, "merge refused");
        }
    }

    /// Whoever decides has looked at what the Volume has.
    fn known_to_who_decides(&self) -> Vec<Rc<[u8]>> {
        let nodes = self.service.tree().walk().map(|(_, _, node)| node);
        nodes.filter_map(|node| self.service.bytes(node.content()?)).collect()
    }

    /// Every disk holds what the Volume holds, and nothing is lost.
    fn compare(&mut self) -> Result<(), String> {
        let tree = self.service.tree();
        let volume: BTreeMap<String, String> = tree
            .walk()
            .map(|(path, _, node)| {
                let bytes = node.content().and_then(|content| self.service.bytes(content));
                (path.to_string(), in_words(node, bytes))
            })
            .filter(|(path, what)| {
                !path.split('/').any(|n| n.to_lowercase().starts_with("ign")) && what != "fifo"
            })
            .collect();
        for machine in &self.machines {
            let site = machine.site.borrow();
            let replica = machine.replica.as_ref().ok_or("a replica is not running")?;
            let disk: BTreeMap<String, String> = site
                .fs
                .walk()
                .into_iter()
                .filter(|(path, _)| {
                    !path.split('/').any(|name| name.to_lowercase().starts_with("ign"))
                })
                .map(|(path, inode)| {
                    let entry = &site.fs.inodes[&inode];
                    let what = match &entry.node {
                        Node::File(data) => {
                            format!("file {:o} {}", entry.mode, String::from_utf8_lossy(data))
                        }
                        Node::Dir(_) => format!("directory {:o}", entry.mode),
                        Node::Link(target) => format!("symlink {target}"),
                    };
                    (path, what)
                })
                .collect();
            let spelled = |path: &String| {
                if site.fs.traits.preserving { path.clone() } else { s0_tree::comparison_key(path) }
            };
            let volume: BTreeMap<String, String> =
                volume.iter().map(|(path, what)| (spelled(path), what.clone())).collect();
            let disk: BTreeMap<String, String> =
                disk.iter().map(|(path, what)| (spelled(path), what.clone())).collect();
            let strip = |what: &String| {
                if site.fs.traits.modes {
                    what.clone()
                } else {
                    what.split(' ').enumerate().filter(|(i, _)| *i != 1).map(|(_, w)| w).collect()
                }
            };
            let excused = |path: &String| {
                let Ok(path) = TreePath::new(path) else { return false };
                let state = replica.state();
                let status = replica.status();
                let low = |path: &TreePath| {
                    TreePath::new(&spelled(&path.to_string())).unwrap_or_default()
                };
                state.kept.iter().any(|kept| low(kept).is_at_or_below(&path))
                    || status.problems.keys().any(|p| path.is_at_or_below(&low(p)))
                    || (!status.problems.is_empty() && replica.is_waiting(&path))
                    || state.conflicts.keys().any(|p| path.is_at_or_below(&low(p)))
            };
            for path in volume.keys().chain(disk.keys()) {
                let (a, b) = (volume.get(path).map(strip), disk.get(path).map(strip));
                if a != b && !excused(path) {
                    return Err(format!(
                        "{}: {path} is {b:?}, the Volume has {a:?}\n  row {:?}\n{}",
                        machine.id,
                        TreePath::new(path).ok().and_then(|path| replica.row_for(&path)),
                        replica.debug(),
                    ));
                }
            }
        }
        let registry = self.registry.borrow();
        for (data, excused) in &registry.written {
            let lives = || {
                registry.known.contains(data)
                    || self.machines.iter().any(|m| m.site.borrow().fs.contents().contains(data))
            };
            if !excused && !lives() {
                return Err(format!("{:?} is lost", String::from_utf8_lossy(data)));
            }
        }
        // What is on a disk was written by somebody, whole.
        for machine in &self.machines {
            for data in machine.site.borrow().fs.contents() {
                if !data.is_empty() && !registry.written.contains_key(&data) {
                    return Err(format!("torn: {:?}", String::from_utf8_lossy(&data)));
                }
            }
        }
        Ok(())
    }
}

#[expect(clippy::print_stderr, reason = "a trace is asked for by hand, to follow one seed")]
fn eprintln_trace(text: &str) {
    eprintln!("{text}");
}

//! One run: machines, a service and a network between them, all driven by one
//! seed.

mod compare;
mod connections;
mod desk;
mod mounts;
mod network;
mod rest;

pub(crate) use desk::GUARDED;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use s0_api::sync::{Capabilities, Registration, Submission};
use s0_replica::disk::{IntentId, Rules};
use s0_replica::engine::{Config, Effect, Event, Halt, Init, Pause, Replica};
use s0_tree::{Content, ContentId, Seq, TreePath};

use crate::coverage::{Coverage, Shared};
use crate::disk::{Durable, SimDisk, SimStore};
use crate::fs::{Fs, Traits};
use crate::lines;
use crate::service::Service;
use crate::site::{Registry, Site};

/// Steps of actors in one run, at least.
const STEPS: u32 = 200;
/// Rounds after which a world that has not come to rest never will.
const ROUNDS: u32 = 4000;

struct SimRules {
    guards: bool,
}

impl Rules for SimRules {
    fn is_ignored(&mut self, path: &TreePath, _: bool) -> bool {
        path.names().any(|name| name.as_str().to_lowercase().starts_with("ign"))
    }
    fn changed(&mut self, _: &TreePath) -> bool {
        false
    }
    fn is_guarded(&self, path: &TreePath) -> bool {
        self.guards && path.names().any(|name| name.as_str() == desk::GUARDED)
    }
    fn is_tracked(&mut self, _: &TreePath) -> bool {
        false
    }
    fn read_again(&mut self) {}
}

/// What a machine asks of the service.
#[derive(Clone)]
enum Ask {
    Tree(Option<Seq>),
    Submit(Arc<Submission>, Vec<(ContentId, Arc<[u8]>)>),
    Fetch(IntentId, Content),
    Upload(TreePath, Content),
    Settle(String),
    Cursor(Seq),
    Author(Seq),
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
    /// Contents that its review was told of.
    told: BTreeSet<ContentId>,
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
    /// What happens at an editor, if there is one.
    desk: Option<fastrand::Rng>,
    /// What is mounted, in worlds with mounts.
    mounts: Option<mounts::Mounts>,
    lines: lines::Shared,
    trace: bool,
}

/// Runs one seed. Says what was reached, and what went wrong if anything did.
pub fn run(seed: u64) -> (Coverage, Result<(), String>) {
    let mut world = World::new(seed, desk::desk(seed));
    // A workspace alone has no conflicts; with mounts it is not alone.
    world.mounts = mounts::mounts(seed).filter(|_| !world.lonely);
    if world.mounts.is_some() {
        world.count("worlds with mounts");
    }
    let result = world.play().map_err(|why| format!("[{}] {why}", world.in_words()));
    let coverage = world.coverage.borrow().clone();
    (coverage, result)
}

/// Runs one seed in which the planner is alone: what was one tree becomes three,
/// on the disks, in what is synced, and in the Volume; then only replicas work.
pub fn run_apart(seed: u64) -> (Coverage, Result<(), String>) {
    let mut world = World::new(seed, None);
    let result = world.part_and_meet().map_err(|why| format!("[{}] {why}", world.in_words()));
    let coverage = world.coverage.borrow().clone();
    (coverage, result)
}

impl World {
    fn new(seed: u64, desk: Option<fastrand::Rng>) -> Self {
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
        if desk.is_some() {
            names.push(desk::GUARDED);
        }
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
                    review: desk.is_some() && !sandbox,
                    boot: "boot 0".into(),
                },
                sandbox,
                told: BTreeSet::new(),
                online: false,
                session: 0,
                instance: 0,
                following: None,
                inbox: Vec::new(),
                wake: None,
                from_step: if insensitive && count > 1 { rng.u32(..80) } else { 0 },
            });
        }
        let agents: Rc<[String]> = machines
            .iter()
            .enumerate()
            .filter(|(_, machine): &(usize, &Machine)| machine.sandbox)
            .map(|(number, _)| format!("m{number}"))
            .chain(["agent".into()])
            .collect();
        for machine in machines.iter().filter(|_| desk.is_some()) {
            let site = &mut *machine.site.borrow_mut();
            site.agents = agents.clone();
            site.is_users = !machine.sandbox;
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
            desk,
            mounts: None,
            lines: lines::Shared::default(),
            trace: std::env::var_os("S0_SIM_TRACE").is_some(),
            rng,
        }
    }

    fn play(&mut self) -> Result<(), String> {
        while self.actor_steps() < STEPS {
            let passed = self.rng.u64(..8);
            self.pass(passed);
            if self.desk.as_mut().is_some_and(|rng| rng.u8(..) < 30) {
                self.sit_at_editor();
            }
            self.use_mounts();
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
        self.check_review()?;
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
                // What was written down of it may be gone, and the file there.
                site.handled.extend(after.iter().cloned());
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
                self.forget_mounts();
                for at in 0..self.machines.len() {
                    self.cut(at);
                }
            }
            16 | 17 => self.service.back_up(),
            18 if !self.lonely && self.rng.u8(..) < 60 => {
                let registry = self.registry.clone();
                if self.service.restore_backup(&mut self.rng, &mut registry.borrow_mut()) {
                    Coverage::count(&self.coverage, "epoch");
                    self.forget_mounts();
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
        site.unsaved.clear();
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
        let rules = SimRules { guards: self.desk.is_some() && !machine.sandbox };
        match Replica::open(machine.config.clone(), disk, store, Box::new(rules), self.now) {
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
}

#[expect(clippy::print_stderr, reason = "a trace is asked for by hand, to follow one seed")]
fn eprintln_trace(text: &str) {
    eprintln!("{text}");
}

//! Mounts of one Volume in random orders of everything, and what must hold all the same.

use std::collections::HashMap;
use std::ops::Range;

use proptest::prelude::*;
use s0_tree::{
    Action, Actor, AttributeChange, Batch, Change, Content, ContentId, Entry, Expected, New,
    News as Since, Origin, Policy, Quota, Source, Time, Verdict, admit_batch,
};

use super::*;
use crate::draft::Piece;

/// The service, as far as a mount sees it.
#[derive(Default)]
struct Service {
    tree: Tree,
    log: Vec<Entry>,
    bytes: HashMap<ContentId, Vec<u8>>,
    conflicts: Vec<Content>,
}

#[derive(Debug, Clone, PartialEq)]
enum Told {
    As(NodeId),
    Stale,
    Conflict,
}

impl Service {
    fn submit(&mut self, who: &str, source: Source, change: &Change) -> Told {
        let actor = Actor { replica: Some(who.into()), ..Actor::default() };
        let time = Time(self.log.len() as i64 + 1);
        let origin = Origin { source, actor, time, ..Origin::default() };
        let batch = Batch {
            origin: &origin,
            policy: Policy::default(),
            quota: Quota::default(),
            news: &Since::default(),
            changes: std::slice::from_ref(change),
        };
        let (entries, verdicts) = admit_batch(&mut self.tree, &batch).unwrap();
        self.log.extend(entries);
        match verdicts[0] {
            Verdict::Accepted { node, .. } | Verdict::Held { node: Some(node), .. } => {
                Told::As(node)
            }
            Verdict::Conflict { .. } if !change.looks_again => {
                self.conflicts.extend(change.content());
                Told::Conflict
            }
            _ => Told::Stale,
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Content {
        let content = Content::of(bytes);
        self.bytes.insert(content.id, bytes.to_vec());
        content
    }

    fn read(&self, content: Content) -> &[u8] {
        if content.size == 0 { b"" } else { &self.bytes[&content.id] }
    }

    fn file(&self, name: &str) -> Option<(NodeId, Seq, Content)> {
        let (id, node) = self.tree.at(&TreePath::new(name).unwrap())?;
        Some((id, node.version, node.content()?))
    }
}

/// A commit on its way.
struct Flight {
    ino: Ino,
    commit: Commit,
    content: Content,
    /// What it was told, and where the journal was.
    told: Option<(Told, usize)>,
}

struct Mount {
    name: &'static str,
    view: View,
    folded: usize,
    flight: Option<Flight>,
    open: HashMap<&'static str, Handle>,
}

const NOW: Time = Time(1);

impl Mount {
    fn new(name: &'static str, service: &Service) -> Self {
        let view = View::new(service.tree.clone(), name.into());
        let folded = service.log.len();
        Self { name, view, folded, flight: None, open: HashMap::new() }
    }

    fn open(&mut self, file: &'static str, append: bool) -> Handle {
        if let Some(handle) = self.open.get(file) {
            return *handle;
        }
        let name = OsStr::new(file);
        let found = self.view.lookup(Ino::ROOT, name).unwrap();
        let ino = found.map(|attr| attr.ino).unwrap_or_else(|| {
            let at = self.view.may_make(Ino::ROOT, name).unwrap();
            self.view.make(at, (0o644, false), (0, 0), NOW)
        });
        let handle = self.view.open(ino, append).unwrap();
        self.open.insert(file, handle);
        handle
    }

    fn close(&mut self, file: &'static str) {
        if let Some(handle) = self.open.remove(file) {
            self.view.close(handle);
        }
    }

    fn is_gone(&self, handle: Handle) -> bool {
        let open = self.view.opened(handle).unwrap();
        self.view.attr(open.ino).unwrap().links == 0
    }

    fn bytes(&self, service: &Service, ino: Ino, range: Range<u64>) -> Vec<u8> {
        let mut all = Vec::new();
        for piece in self.view.pieces(ino, range).unwrap() {
            let length = piece.length() as usize;
            match piece {
                Piece::Own(range) => {
                    let mut part = vec![0; length];
                    self.view.read_own(ino, range.start, &mut part).unwrap();
                    all.extend(part);
                }
                Piece::Base(content, range) => {
                    let bytes = service.read(content);
                    all.extend(&bytes[range.start as usize..range.end as usize]);
                }
                Piece::Hole(_) => all.resize(all.len() + length, 0),
            }
        }
        all
    }

    /// Puts a commit together; it is sent later.
    fn begin(&mut self, service: &mut Service) {
        if self.flight.is_some() {
            return;
        }
        let Some(ino) = self.view.dirty().into_iter().min() else { return };
        let Some(commit) = self.view.begin_commit(ino) else { return };
        let bytes = self.bytes(service, ino, 0..commit.size);
        let content = service.keep(&bytes);
        self.flight = Some(Flight { ino, commit, content, told: None });
    }

    fn send(&mut self, service: &mut Service) {
        let Some(flight) = self.flight.as_mut().filter(|flight| flight.told.is_none()) else {
            return;
        };
        match self.view.commit_change(flight.ino, &flight.commit, flight.content) {
            Ok(Some(change)) => {
                let told = service.submit(self.name, Source::Sandbox, &change);
                flight.told = Some((told, service.log.len()));
            }
            _ => {
                self.view.abandon_commit(flight.ino);
                self.flight = None;
            }
        }
    }

    fn hear(&mut self, service: &Service) {
        let Some(entry) = service.log.get(self.folded) else { return };
        self.view.fold(entry).unwrap();
        self.folded += 1;
    }

    /// The answer comes after the entries before it.
    fn answer(&mut self) {
        let folded = self.folded;
        let ready = |flight: &mut Flight| flight.told.as_ref().is_some_and(|(_, at)| *at <= folded);
        let Some(flight) = self.flight.take_if(ready) else { return };
        let Some((told, _)) = flight.told else { return };
        let Flight { ino, commit, content, .. } = flight;
        match told {
            Told::As(node) => {
                if !self.view.end_commit(ino, &commit, content, Committed::As(node)) {
                    self.view.abandon_commit(ino);
                }
            }
            Told::Conflict => {
                self.view.end_commit(ino, &commit, content, Committed::Conflict);
            }
            Told::Stale => self.view.abandon_commit(ino),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize, usize),
    Close(usize, usize),
    Begin(usize),
    Send(usize),
    Hear(usize),
    Answer(usize),
    Developer(usize),
    Rename(usize),
    Remove(usize),
}

const LOGS: [&str; 2] = ["one.log", "two.log"];

fn step() -> impl Strategy<Value = Step> {
    let mount = 0..3_usize;
    prop_oneof![
        3 => (mount.clone(), 0..2_usize).prop_map(|(mount, log)| Step::Append(mount, log)),
        1 => (mount.clone(), 0..2_usize).prop_map(|(mount, log)| Step::Close(mount, log)),
        3 => mount.clone().prop_map(Step::Begin),
        3 => mount.clone().prop_map(Step::Send),
        6 => mount.clone().prop_map(Step::Hear),
        3 => mount.prop_map(Step::Answer),
        1 => (0..2_usize).prop_map(Step::Developer),
        1 => (0..2_usize).prop_map(Step::Rename),
        1 => (0..2_usize).prop_map(Step::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Everybody appends lines of his own to two logs, a developer too, who also moves them
    /// away and back, and takes them away. In the end each line is in its log once, or in a
    /// conflict, or the developer took it away when he had seen it.
    #[test]
    fn no_line_is_lost_or_twice(steps in prop::collection::vec(step(), 0..120)) {
        let mut service = Service::default();
        let mut mounts = ["a", "b", "c"].map(|name| Mount::new(name, &service));
        let (mut lines, mut number): (Vec<String>, _) = (Vec::new(), 0);
        let mut removed = String::new();
        for step in steps {
            match step {
                Step::Append(mount, log) => {
                    let mut handle = mounts[mount].open(LOGS[log], true);
                    if mounts[mount].is_gone(handle) {
                        // What is written to it is for nobody.
                        mounts[mount].close(LOGS[log]);
                        handle = mounts[mount].open(LOGS[log], true);
                    }
                    number += 1;
                    let text = format!("{}{number}\n", mounts[mount].name);
                    match mounts[mount].view.write(handle, 0, text.as_bytes(), false, NOW) {
                        Ok(_) => lines.push(text),
                        // He was told, and opens the file again.
                        Err(errno) => {
                            assert_eq!(errno, Errno::STALE);
                            mounts[mount].close(LOGS[log]);
                        }
                    }
                }
                Step::Close(mount, log) => mounts[mount].close(LOGS[log]),
                Step::Begin(mount) => mounts[mount].begin(&mut service),
                Step::Send(mount) => mounts[mount].send(&mut service),
                Step::Hear(mount) => mounts[mount].hear(&service),
                Step::Answer(mount) => mounts[mount].answer(),
                Step::Developer(log) => {
                    let Some((id, version, content)) = service.file(LOGS[log]) else { continue };
                    let mut bytes = service.read(content).to_vec();
                    number += 1;
                    lines.push(format!("d{number}\n"));
                    bytes.extend(format!("d{number}\n").as_bytes());
                    let content = service.keep(&bytes);
                    let path = TreePath::new(LOGS[log]).unwrap();
                    let action = Action::Write { path, content, set: AttributeChange::default() };
                    let change = Change::new(action, Expected::Node { id, version });
                    service.submit("developer", Source::Replica, &change);
                }
                Step::Remove(log) => {
                    let Some((id, version, content)) = service.file(LOGS[log]) else { continue };
                    let remove = Action::Remove { path: TreePath::new(LOGS[log]).unwrap() };
                    let change = Change::new(remove, Expected::Node { id, version });
                    service.submit("developer", Source::Replica, &change);
                    removed += std::str::from_utf8(service.read(content)).unwrap();
                }
                Step::Rename(log) => {
                    let (here, there) = (LOGS[log], ["one.old", "two.old"][log]);
                    let (from, to) = if service.file(here).is_some() { (here, there) } else { (there, here) };
                    let (from, to) = (TreePath::new(from).unwrap(), TreePath::new(to).unwrap());
                    if service.tree.lookup(&from).is_some() && service.tree.lookup(&to).is_none() {
                        let how = s0_tree::RenameHow::NoReplace;
                        let change = Change::unstated(Action::Rename { from, to, how });
                        service.submit("developer", Source::Replica, &change);
                    }
                }
            }
        }
        // All come to rest.
        for _ in 0..200 {
            for mount in &mut mounts {
                mount.begin(&mut service);
                mount.send(&mut service);
                while mount.folded < service.log.len() {
                    mount.hear(&service);
                }
                mount.answer();
            }
        }
        let mut all = String::new();
        for (_, _, node) in service.tree.walk() {
            let content = node.content().unwrap();
            all += std::str::from_utf8(service.read(content)).unwrap();
        }
        let mut conflicts = String::new();
        for content in &service.conflicts {
            conflicts += std::str::from_utf8(service.read(*content)).unwrap();
        }
        for mount in &mounts {
            prop_assert_eq!(&mount.view.tree, &service.tree);
            prop_assert!(mount.view.dirty().is_empty(), "{} is dirty: {:?}", mount.name, mount.view.inodes);
            prop_assert!(mount.flight.is_none());
        }
        for line in &lines {
            let count = all.matches(line.as_str()).count();
            prop_assert!(count <= 1, "{line:?} is there {count} times in\n{all}");
            let elsewhere = conflicts.contains(line.as_str()) || removed.contains(line.as_str());
            prop_assert!(count == 1 || elsewhere, "{line:?} is lost from\n{all}\nand conflicts\n{conflicts}");
        }
    }
}

#[test]
fn a_file_without_a_name_is_there_until_it_is_closed() {
    let mut service = Service::default();
    let content = service.keep(b"text");
    let path = TreePath::new("f").unwrap();
    let set = AttributeChange::default();
    let create = Action::Create { path: path.clone(), what: New::File { content }, set };
    service.submit("x", Source::Sandbox, &Change::new(create, Expected::Absent));
    let mut mount = Mount::new("a", &service);
    let handle = mount.open("f", false);
    let ino = mount.view.opened(handle).unwrap().ino;
    service.submit("x", Source::Sandbox, &Change::unstated(Action::Remove { path }));
    mount.hear(&service);
    assert_eq!(mount.view.lookup(Ino::ROOT, OsStr::new("f")), Ok(None));
    assert_eq!(mount.view.attr(ino).unwrap().links, 0);
    assert_eq!(mount.bytes(&service, ino, 0..99), b"text");
    mount.view.write(handle, 4, b" more", false, NOW).unwrap();
    assert_eq!(mount.bytes(&service, ino, 0..99), b"text more");
    // There is nowhere to commit it to.
    assert_eq!(mount.view.begin_commit(ino), None);
    mount.view.close(handle);
    mount.view.forget(ino, 9);
    assert!(mount.view.inodes.is_empty());
}

#[test]
fn a_new_file_keeps_its_number_and_its_name_is_one() {
    let mut service = Service::default();
    let mut mount = Mount::new("a", &service);
    let handle = mount.open("f", false);
    let ino = mount.view.opened(handle).unwrap().ino;
    mount.view.write(handle, 0, b"x", false, NOW).unwrap();
    let listed = |mount: &mut Mount| {
        let names = mount.view.names(Ino::ROOT, Handle(99), true).unwrap();
        names.iter().filter(|(name, ..)| &**name == OsStr::new("f")).count()
    };
    assert_eq!(listed(&mut mount), 1);
    mount.begin(&mut service);
    mount.send(&mut service);
    mount.hear(&service);
    assert_eq!(listed(&mut mount), 1);
    mount.answer();
    assert_eq!(mount.view.lookup(Ino::ROOT, OsStr::new("f")).unwrap().unwrap().ino, ino);
    assert!(!mount.view.is_dirty(ino));
}

#[test]
fn what_a_developer_saved_is_not_written_over() {
    let mut service = Service::default();
    let old = service.keep(b"old");
    let path = TreePath::new("f").unwrap();
    let set = AttributeChange::default();
    let create =
        Action::Create { path: path.clone(), what: New::File { content: old }, set: set.clone() };
    service.submit("x", Source::Sandbox, &Change::new(create, Expected::Absent));
    let mut mount = Mount::new("a", &service);
    let handle = mount.open("f", false);
    let ino = mount.view.opened(handle).unwrap().ino;
    mount.view.write(handle, 0, b"agent", false, NOW).unwrap();
    let saved = service.keep(b"developer");
    let write = Action::Write { path, content: saved, set };
    service.submit("developer", Source::Replica, &Change::unstated(write));
    mount.hear(&service);
    mount.begin(&mut service);
    mount.send(&mut service);
    mount.answer();
    assert_eq!(service.file("f").unwrap().2, saved);
    assert_eq!(service.conflicts.len(), 1);
    assert_eq!(service.read(service.conflicts[0]), b"agent");
    assert_eq!(mount.bytes(&service, ino, 0..99), b"developer");
    // From there it goes on.
    mount.view.write(handle, 9, b" and agent", false, NOW).unwrap();
    mount.begin(&mut service);
    mount.send(&mut service);
    mount.hear(&service);
    mount.answer();
    assert_eq!(service.read(service.file("f").unwrap().2), b"developer and agent");
}

#[test]
fn what_a_developer_takes_away_unseen_is_a_conflict() {
    let mut service = Service::default();
    let content = service.keep(b"old");
    let set = AttributeChange::default();
    let (file, directory) = (TreePath::new("f").unwrap(), TreePath::new("d").unwrap());
    for (path, what) in [(&file, New::File { content }), (&directory, New::Directory)] {
        let create = Action::Create { path: path.clone(), what, set: set.clone() };
        service.submit("x", Source::Sandbox, &Change::new(create, Expected::Absent));
    }
    let mut mount = Mount::new("a", &service);
    let handle = mount.open("f", false);
    mount.view.write(handle, 0, b"agent", false, NOW).unwrap();
    let above = mount.view.lookup(Ino::ROOT, OsStr::new("d")).unwrap().unwrap().ino;
    let at = mount.view.may_make(above, OsStr::new("new")).unwrap();
    let new = mount.view.make(at, (0o644, false), (0, 0), NOW);
    let new = mount.view.open(new, false).unwrap();
    mount.view.write(new, 0, b"new", false, NOW).unwrap();
    for path in [file, directory] {
        let remove = Change::unstated(Action::Remove { path });
        service.submit("developer", Source::Replica, &remove);
        mount.hear(&service);
    }
    // They may be closed before there is time to commit them.
    for handle in [handle, new] {
        mount.view.close(handle);
    }
    for _ in 0..2 {
        mount.begin(&mut service);
        mount.send(&mut service);
        mount.answer();
    }
    let mut kept: Vec<_> = service.conflicts.iter().map(|it| service.read(*it)).collect();
    kept.sort_unstable();
    assert_eq!(kept, [&b"agent"[..], b"new"]);
    assert!(mount.view.dirty().is_empty());
}

#[test]
fn what_a_rename_takes_one_of_two_names_from_is_committed_all_the_same() {
    let mut service = Service::default();
    let old = service.keep(b"old");
    let path = |name| TreePath::new(name).unwrap();
    let set = AttributeChange::default;
    for name in ["f", "g"] {
        let create =
            Action::Create { path: path(name), what: New::File { content: old }, set: set() };
        service.submit("x", Source::Sandbox, &Change::new(create, Expected::Absent));
    }
    let link = Action::Link { path: path("second"), existing: path("f") };
    service.submit("x", Source::Sandbox, &Change::unstated(link));
    let mut mount = Mount::new("a", &service);
    let handle = mount.open("f", false);
    mount.view.write(handle, 0, b"new", false, NOW).unwrap();
    let (from, to) = (path("g"), path("second"));
    let rename = Action::Rename { from, to, how: s0_tree::RenameHow::Replace };
    service.submit("x", Source::Sandbox, &Change::unstated(rename));
    mount.hear(&service);
    mount.begin(&mut service);
    mount.send(&mut service);
    mount.hear(&service);
    mount.answer();
    assert!(mount.view.dirty().is_empty());
    assert_eq!(service.read(service.file("f").unwrap().2), b"new");
}

#[test]
fn what_a_developer_made_in_the_place_of_a_new_file_is_not_written_over() {
    for is_under_way in [false, true] {
        let mut service = Service::default();
        let mut mount = Mount::new("a", &service);
        let at = mount.view.may_make(Ino::ROOT, OsStr::new("f")).unwrap();
        let ino = mount.view.make(at, (0o644, true), (0, 0), NOW);
        let handle = mount.view.open(ino, false).unwrap();
        mount.view.write(handle, 0, b"agent", false, NOW).unwrap();
        if is_under_way {
            mount.begin(&mut service);
        }
        let content = service.keep(b"developer");
        let (path, set) = (TreePath::new("f").unwrap(), AttributeChange::default());
        let create = Action::Create { path, what: New::File { content }, set };
        service.submit("developer", Source::Replica, &Change::new(create, Expected::Absent));
        for _ in 0..4 {
            mount.begin(&mut service);
            mount.send(&mut service);
            mount.hear(&service);
            mount.answer();
        }
        assert_eq!(service.file("f").unwrap().2, content);
        assert_eq!(service.conflicts.len(), 1);
        assert_eq!(service.read(service.conflicts[0]), b"agent");
        assert!(mount.view.dirty().is_empty());
    }
}

/// The service stood still for so long that nobody waited any more, and then did all of it.
#[test]
fn a_commit_that_was_given_up_is_not_taken_for_the_next() {
    let mut service = Service::default();
    let mut mount = Mount::new("a", &service);
    let handle = mount.open("f", true);
    mount.view.write(handle, 0, b"one\n", false, NOW).unwrap();
    mount.begin(&mut service);
    let first = mount.flight.take().unwrap();
    let create =
        mount.view.commit_change(first.ino, &first.commit, first.content).unwrap().unwrap();
    mount.view.give_up_commit(first.ino);
    mount.view.write(handle, 0, b"two\n", false, NOW).unwrap();
    mount.begin(&mut service);
    service.submit("a", Source::Sandbox, &create);
    mount.send(&mut service);
    mount.hear(&service);
    mount.answer();
    assert_eq!(mount.view.dirty(), [first.ino]);
    for _ in 0..3 {
        mount.begin(&mut service);
        mount.send(&mut service);
        mount.hear(&service);
        mount.answer();
    }
    assert!(mount.view.dirty().is_empty());
    assert_eq!(service.read(service.file("f").unwrap().2), b"one\ntwo\n");
}

#[test]
fn a_new_file_that_is_gone_before_its_commit_is_answered_is_gone() {
    let mut service = Service::default();
    let mut mount = Mount::new("a", &service);
    let handle = mount.open("f", true);
    let ino = mount.view.opened(handle).unwrap().ino;
    mount.view.known(ino).unwrap();
    mount.view.write(handle, 0, b"one\n", false, NOW).unwrap();
    mount.begin(&mut service);
    mount.send(&mut service);
    let remove = Action::Remove { path: TreePath::new("f").unwrap() };
    service.submit("x", Source::Sandbox, &Change::unstated(remove));
    mount.hear(&service);
    mount.hear(&service);
    mount.answer();
    assert_eq!(mount.view.attr(ino).unwrap().links, 0);
    mount.view.write(handle, 0, b"two\n", false, NOW).unwrap();
    assert_eq!(mount.view.begin_commit(ino), None);
}

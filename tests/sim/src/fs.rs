//! A file system in memory: inodes that are reused at once, names that may fold
//! case, coarse clocks, open writers, events for watched directories only, and
//! power cuts that lose what was not synced.

use std::collections::BTreeMap;
use std::rc::Rc;

use imbl::OrdMap;
use s0_replica::engine::Hint;
use s0_tree::{TreePath, comparison_key};

/// Who is at the disk right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// A user or agent.
    Actor,
    /// The replica under test.
    Engine,
}

/// What the file system is like.
#[derive(Debug, Clone, Copy)]
pub struct Traits {
    pub case_insensitive: bool,
    /// Names are listed as they were given, not in lower case.
    pub preserving: bool,
    pub windows_names: bool,
    pub modes: bool,
    pub exchange: bool,
    pub born: bool,
    /// Nanoseconds between two distinguishable times; zero: all differ.
    pub grain: i64,
}

#[derive(Debug, Clone)]
pub enum Node {
    File(Rc<[u8]>),
    Dir(OrdMap<String, u64>),
    Link(String),
}

#[derive(Debug, Clone)]
pub struct Inode {
    pub node: Node,
    pub mode: u32,
    pub mtime: i64,
    pub ctime: i64,
    pub born: i64,
    /// What a power cut leaves of a file: the data when it was last synced.
    safe: Option<Rc<[u8]>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    NotFound,
    Exists,
    NotEmpty,
    NotADirectory,
    BadName,
    Invalid,
}

pub type Outcome<T> = Result<T, Error>;

pub const ROOT: u64 = 1;

/// The file system of one machine. The workspace is its root.
pub struct Fs {
    pub traits: Traits,
    pub inodes: OrdMap<u64, Inode>,
    pub now: i64,
    ticks: i64,
    pub who: Who,
    pub events: Vec<(TreePath, Hint)>,
    /// Watched directories, by the paths that they were watched under: events tell
    /// of those, wherever the directories are by now.
    pub watched: BTreeMap<u64, String>,
    pub writers: BTreeMap<u64, u32>,
    /// Contents that are on no disk of this machine any more, and by whom.
    pub destroyed: Vec<(Rc<[u8]>, Who)>,
    /// Names as they were after each change since the last sync of everything.
    history: Vec<OrdMap<u64, Inode>>,
    /// Who took the last name of an inode that is still open.
    orphaned: BTreeMap<u64, Who>,
    /// Whose disk this is, when a trace is asked for.
    pub trace: Option<String>,
}

impl Fs {
    pub fn new(traits: Traits) -> Self {
        let mut fs = Self {
            traits,
            inodes: OrdMap::new(),
            now: 1_000_000_000_000,
            ticks: 0,
            who: Who::Engine,
            events: Vec::new(),
            watched: BTreeMap::new(),
            writers: BTreeMap::new(),
            destroyed: Vec::new(),
            history: Vec::new(),
            orphaned: BTreeMap::new(),
            trace: None,
        };
        let root = fs.inode(Node::Dir(OrdMap::new()), 0o755);
        fs.inodes.insert(ROOT, root);
        for dir in [".s0", ".s0/staging", ".s0/aside"] {
            fs.mkdir(dir, 0o700).expect("a new file system has room");
        }
        fs.sync();
        fs
    }

    /// The time that a change gets.
    pub fn stamp(&mut self) -> i64 {
        self.ticks += 1;
        let exact = self.now + self.ticks;
        if self.traits.grain == 0 { exact } else { exact - exact % self.traits.grain }
    }

    pub fn clock(&mut self) -> i64 {
        self.ticks += 1;
        self.now + self.ticks
    }

    fn inode(&mut self, node: Node, mode: u32) -> Inode {
        let at = self.stamp();
        let mode = if self.traits.modes { mode } else { 0o644 };
        let safe = None;
        Inode { node, mode, mtime: at, ctime: at, born: self.now + self.ticks, safe }
    }

    fn free_number(&self) -> u64 {
        (2..).find(|n| !self.inodes.contains_key(n)).unwrap_or(2)
    }

    /// Tells what is done, to follow one seed.
    #[expect(clippy::print_stderr, reason = "a trace is asked for by hand")]
    pub fn tell(&self, what: &str) {
        if let Some(name) = &self.trace {
            eprintln!("{} {name} {:?} {what}", self.now / 1_000_000 % 1_000_000_000, self.who);
        }
    }

    fn changed(&mut self) {
        self.history.push(self.inodes.clone());
    }

    /// The name in a directory as the disk spells it.
    fn spelled(&self, dir: u64, name: &str) -> Option<String> {
        let Node::Dir(children) = &self.inodes.get(&dir)?.node else { return None };
        if children.contains_key(name) {
            return Some(name.to_owned());
        }
        if !self.traits.case_insensitive {
            return None;
        }
        let key = comparison_key(name);
        children.keys().find(|other| comparison_key(other) == key).cloned()
    }

    fn child(&self, dir: u64, name: &str) -> Option<u64> {
        let spelled = self.spelled(dir, name)?;
        let Node::Dir(children) = &self.inodes.get(&dir)?.node else { return None };
        children.get(&spelled).copied()
    }

    /// The inode at a path, by any spelling that the disk takes for it.
    pub fn find(&self, path: &str) -> Option<u64> {
        path.split('/').filter(|p| !p.is_empty()).try_fold(ROOT, |at, name| self.child(at, name))
    }

    /// The inode at a path, if it is spelled as on the disk.
    pub fn find_exact(&self, path: &str) -> Option<u64> {
        if !self.traits.preserving {
            return self.find(path);
        }
        path.split('/').filter(|p| !p.is_empty()).try_fold(ROOT, |at, name| {
            match &self.inodes.get(&at)?.node {
                Node::Dir(children) => children.get(name).copied(),
                _ => None,
            }
        })
    }

    fn parent<'p>(&self, path: &'p str) -> Outcome<(u64, &'p str)> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = self.find(above).ok_or(Error::NotFound)?;
        match self.inodes[&dir].node {
            Node::Dir(_) => Ok((dir, name)),
            _ => Err(Error::NotADirectory),
        }
    }

    fn legal(&self, name: &str) -> Outcome<()> {
        let policy = s0_tree::Policy {
            windows_names: self.traits.windows_names,
            ..s0_tree::Policy::default()
        };
        if s0_tree::portable_issues(name, policy).is_empty() { Ok(()) } else { Err(Error::BadName) }
    }

    /// Tells of a name in a directory, as whoever used it spelled it.
    fn note(&mut self, dir: u64, path: &str, hint: Hint) {
        if let Some(path) = self.watched_path(dir, path) {
            self.events.push((path, hint));
        }
    }

    fn watched_path(&self, dir: u64, path: &str) -> Option<TreePath> {
        let name = path.rsplit('/').next().unwrap_or(path);
        let path = match self.watched.get(&dir)?.as_str() {
            "" => name.to_owned(),
            above => format!("{above}/{name}"),
        };
        TreePath::new(&path).ok()
    }

    fn insert(&mut self, dir: u64, name: &str, inode: u64) {
        let at = self.stamp();
        let name = if self.traits.preserving { name.to_owned() } else { name.to_lowercase() };
        if let Some(entry) = self.inodes.get_mut(&dir)
            && let Node::Dir(children) = &mut entry.node
        {
            children.insert(name, inode);
            entry.mtime = at;
        }
    }

    fn take_out(&mut self, dir: u64, name: &str) {
        let at = self.stamp();
        if let Some(entry) = self.inodes.get_mut(&dir)
            && let Node::Dir(children) = &mut entry.node
        {
            children.remove(name);
            entry.mtime = at;
        }
    }

    fn add(&mut self, path: &str, node: Node, mode: u32) -> Outcome<u64> {
        self.tell(&format!("make {path} {}", brief(&node)));
        let (dir, name) = self.parent(path)?;
        self.legal(name)?;
        if self.child(dir, name).is_some() {
            return Err(Error::Exists);
        }
        let number = self.free_number();
        let inode = self.inode(node, mode);
        self.inodes.insert(number, inode);
        self.insert(dir, name, number);
        self.changed();
        self.note(dir, path, Hint::Unsettled);
        Ok(number)
    }

    pub fn create(&mut self, path: &str, data: &[u8], mode: u32) -> Outcome<u64> {
        self.add(path, Node::File(data.into()), mode)
    }

    pub fn mkdir(&mut self, path: &str, mode: u32) -> Outcome<u64> {
        self.add(path, Node::Dir(OrdMap::new()), mode)
    }

    pub fn symlink(&mut self, path: &str, target: &str) -> Outcome<u64> {
        self.add(path, Node::Link(target.to_owned()), 0o777)
    }

    pub fn data(&self, inode: u64) -> Option<Rc<[u8]>> {
        match &self.inodes.get(&inode)?.node {
            Node::File(data) => Some(data.clone()),
            _ => None,
        }
    }

    /// Replaces a file's data through an open handle. The path is where it was
    /// opened; the event goes to where it is.
    pub fn write(&mut self, inode: u64, data: &[u8]) {
        self.tell(&format!(
            "write inode {inode} {:?} {:?}",
            self.path_of(inode),
            String::from_utf8_lossy(data)
        ));
        let at = self.stamp();
        let who = self.who;
        let Some(entry) = self.inodes.get_mut(&inode) else { return };
        if let Node::File(old) = &entry.node {
            if !old.is_empty() && **old != *data {
                self.destroyed.push((old.clone(), who));
            }
            entry.node = Node::File(data.into());
            entry.mtime = at;
            entry.ctime = at;
            if let Some((dir, path)) = self.path_of(inode) {
                self.note(dir, &path, Hint::Unsettled);
            }
        }
    }

    /// A program that wrote closes the file.
    pub fn close(&mut self, inode: u64) {
        if let Some((dir, path)) = self.path_of(inode) {
            self.note(dir, &path, Hint::Complete);
        }
        self.reap(inode);
    }

    pub fn path_of(&self, inode: u64) -> Option<(u64, String)> {
        self.search(ROOT, "", inode)
    }

    fn search(&self, dir: u64, above: &str, inode: u64) -> Option<(u64, String)> {
        let Node::Dir(children) = &self.inodes.get(&dir)?.node else { return None };
        for (name, child) in children {
            let path = if above.is_empty() { name.clone() } else { format!("{above}/{name}") };
            if *child == inode {
                return Some((dir, path));
            }
            if let Some(found) = self.search(*child, &path, inode) {
                return Some(found);
            }
        }
        None
    }

    /// Frees an inode that has neither name nor writer. Whoever took the last
    /// name has destroyed it, whoever closes it.
    fn reap(&mut self, inode: u64) {
        if self.path_of(inode).is_some() {
            return;
        }
        let who = *self.orphaned.entry(inode).or_insert(self.who);
        if self.writers.contains_key(&inode) {
            return;
        }
        self.orphaned.remove(&inode);
        if let Some(entry) = self.inodes.remove(&inode)
            && let Node::File(data) = entry.node
            && !data.is_empty()
        {
            self.destroyed.push((data, who));
        }
        self.watched.remove(&inode);
    }

    pub fn unlink(&mut self, path: &str) -> Outcome<()> {
        self.tell(&format!("unlink {path}"));
        let (dir, name) = self.parent(path)?;
        let spelled = self.spelled(dir, name).ok_or(Error::NotFound)?;
        let inode = self.child(dir, name).ok_or(Error::NotFound)?;
        if matches!(self.inodes[&inode].node, Node::Dir(_)) {
            return Err(Error::Invalid);
        }
        self.take_out(dir, &spelled);
        self.note(dir, path, Hint::Unsettled);
        self.reap(inode);
        self.changed();
        Ok(())
    }

    pub fn rmdir(&mut self, path: &str) -> Outcome<()> {
        self.tell(&format!("rmdir {path}"));
        let (dir, name) = self.parent(path)?;
        let spelled = self.spelled(dir, name).ok_or(Error::NotFound)?;
        let inode = self.child(dir, name).ok_or(Error::NotFound)?;
        match &self.inodes[&inode].node {
            Node::Dir(children) if children.is_empty() => {}
            Node::Dir(_) => return Err(Error::NotEmpty),
            _ => return Err(Error::NotADirectory),
        }
        self.take_out(dir, &spelled);
        self.inodes.remove(&inode);
        self.watched.remove(&inode);
        self.note(dir, path, Hint::Unsettled);
        self.changed();
        Ok(())
    }

    /// rename(2); with `replace` false it fails where something is.
    pub fn rename(&mut self, from: &str, to: &str, replace: bool) -> Outcome<()> {
        self.tell(&format!("rename {from} -> {to}"));
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        let spelled = self.spelled(from_dir, from_name).ok_or(Error::NotFound)?;
        let inode = self.child(from_dir, from_name).ok_or(Error::NotFound)?;
        self.legal(to_name)?;
        if let Node::Dir(_) = self.inodes[&inode].node
            && (to == from || to.starts_with(&format!("{from}/")) || self.is_below(to_dir, inode))
        {
            return Err(Error::Invalid);
        }
        if let Some(other) = self.child(to_dir, to_name)
            && other != inode
        {
            if !replace {
                return Err(Error::Exists);
            }
            match (&self.inodes[&inode].node, &self.inodes[&other].node) {
                (Node::Dir(_), Node::Dir(children)) if children.is_empty() => {}
                (Node::Dir(_), _) | (_, Node::Dir(_)) => return Err(Error::Exists),
                _ => {}
            }
            let standing = self.spelled(to_dir, to_name).ok_or(Error::NotFound)?;
            self.take_out(to_dir, &standing);
            self.move_entry(from_dir, &spelled, to_dir, to_name, inode);
            if matches!(self.inodes[&other].node, Node::Dir(_)) {
                self.inodes.remove(&other);
            } else {
                self.reap(other);
            }
        } else {
            self.move_entry(from_dir, &spelled, to_dir, to_name, inode);
        }
        self.note(from_dir, from, Hint::Unsettled);
        self.note(to_dir, to, Hint::Complete);
        if let Some(from) = self.watched_path(from_dir, from) {
            self.note(to_dir, to, Hint::MovedFrom(from));
        }
        self.changed();
        Ok(())
    }

    fn is_below(&self, mut dir: u64, top: u64) -> bool {
        loop {
            if dir == top {
                return true;
            }
            match self.path_of(dir) {
                Some((above, _)) => dir = above,
                None => return false,
            }
        }
    }

    fn move_entry(&mut self, from: u64, old: &str, to: u64, new: &str, inode: u64) {
        self.take_out(from, old);
        self.insert(to, new, inode);
        let at = self.stamp();
        if let Some(entry) = self.inodes.get_mut(&inode) {
            entry.ctime = at;
        }
    }

    /// Two names change places in one step.
    pub fn exchange(&mut self, a: &str, b: &str) -> Outcome<()> {
        self.tell(&format!("exchange {a} {b}"));
        let (a_dir, a_name) = self.parent(a)?;
        let (b_dir, b_name) = self.parent(b)?;
        let a_inode = self.child(a_dir, a_name).ok_or(Error::NotFound)?;
        let b_inode = self.child(b_dir, b_name).ok_or(Error::NotFound)?;
        let a_spelled = self.spelled(a_dir, a_name).ok_or(Error::NotFound)?;
        let b_spelled = self.spelled(b_dir, b_name).ok_or(Error::NotFound)?;
        self.insert(a_dir, &a_spelled, b_inode);
        self.insert(b_dir, &b_spelled, a_inode);
        for inode in [a_inode, b_inode] {
            let at = self.stamp();
            if let Some(entry) = self.inodes.get_mut(&inode) {
                entry.ctime = at;
            }
        }
        self.note(a_dir, a, Hint::Complete);
        self.note(b_dir, b, Hint::Complete);
        self.changed();
        Ok(())
    }

    pub fn chmod(&mut self, path: &str, mode: u32) -> Outcome<()> {
        self.tell(&format!("chmod {path} {mode:o}"));
        let (dir, _) = self.parent(path)?;
        let inode = self.find(path).ok_or(Error::NotFound)?;
        let at = self.stamp();
        let modes = self.traits.modes;
        if let Some(entry) = self.inodes.get_mut(&inode) {
            if modes {
                entry.mode = mode;
            }
            entry.ctime = at;
        }
        self.note(dir, path, Hint::Unsettled);
        Ok(())
    }

    pub fn touch(&mut self, path: &str) {
        let at = self.stamp();
        if let (Some(inode), Ok((dir, _))) = (self.find(path), self.parent(path)) {
            if let Some(entry) = self.inodes.get_mut(&inode) {
                entry.mtime = at;
                entry.ctime = at;
            }
            self.note(dir, path, Hint::Unsettled);
        }
    }

    /// Makes one file's data survive a power cut.
    pub fn sync_file(&mut self, path: &str) {
        if let Some(inode) = self.find(path)
            && let Some(entry) = self.inodes.get_mut(&inode)
            && let Node::File(data) = &entry.node
        {
            entry.safe = Some(data.clone());
        }
        // The journal of names is written in order, so all earlier ones too.
        self.history.clear();
        let safe = self.inodes.clone();
        self.history.push(safe);
    }

    /// Makes everything survive a power cut.
    pub fn sync(&mut self) {
        let all: Vec<u64> = self.inodes.keys().copied().collect();
        for inode in all {
            if let Some(entry) = self.inodes.get_mut(&inode)
                && let Node::File(data) = &entry.node
            {
                entry.safe = Some(data.clone());
            }
        }
        self.history.clear();
        let safe = self.inodes.clone();
        self.history.push(safe);
    }

    /// The power is cut: names go back to some moment since the last sync, and
    /// files that were not synced may be as they were, or empty.
    pub fn power_cut(&mut self, rng: &mut fastrand::Rng) {
        self.tell("power cut");
        let at = rng.usize(..self.history.len());
        let lately = self.inodes.clone();
        self.inodes = self.history[at].clone();
        let all: Vec<u64> = self.inodes.keys().copied().collect();
        for number in all {
            let newest = lately.get(&number).map(|inode| inode.safe.clone());
            let Some(entry) = self.inodes.get_mut(&number) else { continue };
            let Node::File(data) = &entry.node else { continue };
            // What was synced later is safe even if this moment is older.
            let safe = newest.flatten().or(entry.safe.clone());
            if entry.safe.as_ref() != Some(data) && rng.bool() {
                let lost = safe.unwrap_or_else(|| Rc::from(&b""[..]));
                if *lost != **data {
                    entry.node = Node::File(lost);
                    entry.mtime += 1;
                }
            }
        }
        self.writers.clear();
        self.orphaned.clear();
        self.events.clear();
        self.watched.clear();
        self.sync();
    }

    /// Everything below the root but our own directory: path, inode.
    pub fn walk(&self) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        self.walk_dir(ROOT, "", &mut found);
        found.retain(|(path, _)| path != ".s0" && !path.starts_with(".s0/"));
        found
    }

    /// Every content on this disk that has a name, our own directory included.
    pub fn contents(&self) -> Vec<Rc<[u8]>> {
        let mut found = Vec::new();
        self.walk_dir(ROOT, "", &mut found);
        found.into_iter().filter_map(|(_, inode)| self.data(inode)).collect()
    }

    /// The same with what has no name any more, but is open.
    pub fn all_contents(&self) -> Vec<Rc<[u8]>> {
        self.inodes.keys().filter_map(|inode| self.data(*inode)).collect()
    }

    fn walk_dir(&self, dir: u64, above: &str, found: &mut Vec<(String, u64)>) {
        let Some(Node::Dir(children)) = self.inodes.get(&dir).map(|inode| &inode.node) else {
            return;
        };
        for (name, child) in children {
            let path = if above.is_empty() { name.clone() } else { format!("{above}/{name}") };
            found.push((path.clone(), *child));
            self.walk_dir(*child, &path, found);
        }
    }
}

fn brief(node: &Node) -> String {
    match node {
        Node::File(data) => format!("file {:?}", String::from_utf8_lossy(data)),
        Node::Dir(_) => "directory".into(),
        Node::Link(target) => format!("link {target}"),
    }
}

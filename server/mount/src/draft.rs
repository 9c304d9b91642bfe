//! What was written to a file and is not in the journal yet.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use s0_tree::{Content, Time};

use crate::ranges::Ranges;

/// Drafts up to this many bytes are kept in memory; larger ones in a file without a name.
const IN_MEMORY: u64 = 1024 * 1024;

/// Where a part of a file's bytes is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// In the draft.
    Own(Range<u64>),
    /// In the content that it is based on.
    Base(Content, Range<u64>),
    /// Nowhere: zeros.
    Hole(Range<u64>),
}

impl Piece {
    /// How many bytes it is.
    pub(crate) fn length(&self) -> u64 {
        let (Self::Own(range) | Self::Base(_, range) | Self::Hole(range)) = self;
        range.end - range.start
    }
}

/// The bytes that were written.
#[derive(Debug)]
enum Store {
    Memory(Vec<u8>),
    File(File),
}

/// What was done since a commit began.
#[derive(Debug)]
struct Since {
    generation: u64,
    /// What was written.
    own: Ranges,
    /// How short the file was cut.
    cut: Option<u64>,
}

/// A file's bytes as they were written here, over what they were before.
#[derive(Debug)]
pub(crate) struct Draft {
    store: Store,
    /// Which bytes are in the store.
    own: Ranges,
    /// What was done since commits began whose end is not known.
    since: Vec<Since>,
    /// What is below: a content, and how many of its bytes still count.
    base: Option<(Content, u64)>,
    /// How long the file was cut to, at the shortest. What others write beyond does not
    /// come back by it.
    cut: Option<u64>,
    /// Where what was appended begins. It moves when others append, too.
    tail: Option<u64>,
    size: u64,
    pub(crate) mtime: Time,
    /// Counts changes, so that a commit knows whether more came meanwhile.
    generation: u64,
    committed: u64,
}

impl Draft {
    /// The draft of a file with this content; of a new one where there is none.
    pub(crate) fn of(base: Option<Content>, mtime: Time) -> Self {
        let base = base.filter(|base| base.size > 0);
        let size = base.map_or(0, |base| base.size);
        Self {
            store: Store::Memory(Vec::new()),
            own: Ranges::default(),
            since: Vec::new(),
            base: base.map(|base| (base, base.size)),
            cut: None,
            tail: None,
            size,
            mtime,
            generation: 0,
            committed: 0,
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Whether there is something to commit.
    pub(crate) fn is_dirty(&self) -> bool {
        self.generation != self.committed
    }

    /// Whether something was written since a generation.
    pub(crate) fn is_newer(&self, generation: u64) -> bool {
        self.generation != generation
    }

    /// Notes a change of nothing, so that it is committed: of a new file.
    pub(crate) fn touch(&mut self) {
        self.generation += 1;
    }

    /// Whatever is below does not count: the file began as an empty one.
    pub(crate) fn begin_empty(&mut self) {
        self.base = None;
        self.cut = Some(0);
    }

    /// Writes.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8], now: Time) -> io::Result<()> {
        let end = offset + data.len() as u64;
        self.put(offset, data)?;
        if self.tail.is_some_and(|tail| end > tail) {
            self.tail = None;
        }
        self.own.insert(offset..end);
        self.since.iter_mut().for_each(|since| since.own.insert(offset..end));
        self.size = self.size.max(end);
        self.mtime = now;
        self.generation += 1;
        Ok(())
    }

    /// Writes to the end, wherever that will be. Gives where it is now.
    pub(crate) fn append(&mut self, data: &[u8], now: Time) -> io::Result<u64> {
        let (at, tail) = (self.size, self.tail);
        self.write(at, data, now)?;
        self.tail = tail.or(Some(at));
        Ok(at)
    }

    /// Cuts or extends.
    pub(crate) fn truncate(&mut self, size: u64, now: Time) -> io::Result<()> {
        self.tail = None;
        if size < self.size {
            self.own.truncate(size);
            for since in &mut self.since {
                since.own.truncate(size);
                since.cut = Some(since.cut.map_or(size, |cut| cut.min(size)));
            }
            self.base = self.base.map(|(base, counts)| (base, counts.min(size)));
            self.cut = Some(self.cut.map_or(size, |cut| cut.min(size)));
            match &mut self.store {
                Store::Memory(bytes) => bytes.truncate(usize::try_from(size).unwrap_or(usize::MAX)),
                Store::File(file) => file.set_len(size)?,
            }
        }
        self.size = size;
        self.mtime = now;
        self.generation += 1;
        Ok(())
    }

    /// Where the bytes of a range are.
    pub(crate) fn pieces(&self, range: Range<u64>) -> Vec<Piece> {
        let end = range.end.min(self.size);
        let mut pieces = Vec::new();
        if range.start >= end {
            return pieces;
        }
        for (part, own) in self.own.cut(range.start..end) {
            if own {
                pieces.push(Piece::Own(part));
                continue;
            }
            let below =
                self.base.map_or(part.start, |(_, counts)| counts.clamp(part.start, part.end));
            if let Some((base, _)) = self.base
                && part.start < below
            {
                pieces.push(Piece::Base(base, part.start..below));
            }
            if below < part.end {
                pieces.push(Piece::Hole(below..part.end));
            }
        }
        pieces
    }

    /// Reads bytes of the draft's own.
    pub(crate) fn read_own(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        match &self.store {
            Store::Memory(bytes) => {
                let at = usize::try_from(offset).unwrap_or(usize::MAX);
                let from = bytes.get(at..).and_then(|rest| rest.get(..into.len()));
                into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
            Store::File(file) => file.read_exact_at(into, offset),
        }
    }

    /// Another content came below; what was written here stays over it. So of two who
    /// write different parts both are in, and of the same part the last.
    pub(crate) fn rebase(&mut self, base: Content) -> io::Result<()> {
        let counts = self.cut.map_or(base.size, |cut| cut.min(base.size));
        if let Some(tail) = self.tail {
            self.move_tail(tail, counts)?;
        }
        self.base = (counts > 0).then_some((base, counts));
        let cut = self.cut.is_some();
        // Who cut the file decides how long it is.
        self.size = if cut { self.size } else { self.own.end().max(base.size) };
        Ok(())
    }

    /// Moves what was appended behind so much of what others made of the file, and behind what
    /// was written here before it.
    fn move_tail(&mut self, from: u64, below: u64) -> io::Result<()> {
        let length = usize::try_from(self.size - from).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.read_own(from, &mut bytes)?;
        self.own.truncate(from);
        let to = self.own.end().max(below);
        self.put(to, &bytes)?;
        self.own.insert(to..to + length as u64);
        self.size = to + length as u64;
        self.tail = Some(to);
        Ok(())
    }

    /// A commit begins: what is written from here on is not in it.
    pub(crate) fn begin_commit(&mut self) -> u64 {
        let generation = self.generation;
        self.abandon_commit(generation);
        self.since.push(Since { generation, own: Ranges::default(), cut: None });
        generation
    }

    /// A commit ended, and nothing came of it.
    pub(crate) fn abandon_commit(&mut self, generation: u64) {
        self.since.retain(|since| since.generation != generation);
    }

    /// What was written up to a generation is now this content.
    pub(crate) fn commit(&mut self, generation: u64, content: Content) {
        self.committed = generation;
        let mut counts = content.size;
        if self.generation == generation {
            // All of it is in the content.
            self.own = Ranges::default();
            self.store = Store::Memory(Vec::new());
            self.size = content.size;
            self.cut = None;
            self.tail = None;
        } else if let Some(at) = self.since.iter().position(|it| it.generation == generation) {
            let Since { own, cut, .. } = self.since.swap_remove(at);
            self.own = own;
            self.cut = cut;
            counts = counts.min(cut.unwrap_or(u64::MAX));
            // What was appended since is behind it, unless the file was cut before.
            if cut.is_none() {
                self.tail = self.tail.map(|tail| tail.max(content.size));
            }
        }
        // Those that began before are in it.
        self.since.retain(|since| since.generation > generation);
        self.base = (counts > 0).then_some((content, counts));
    }

    fn put(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset + data.len() as u64;
        if let Store::Memory(bytes) = &mut self.store {
            if end <= IN_MEMORY {
                let (at, end) = (usize::try_from(offset), usize::try_from(end));
                let at = at.map_err(io::Error::other)?;
                let end = end.map_err(io::Error::other)?;
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[at..end].copy_from_slice(data);
                return Ok(());
            }
            let file = tempfile::tempfile()?;
            file.write_all_at(bytes, 0)?;
            self.store = Store::File(file);
        }
        match &self.store {
            Store::File(file) => file.write_all_at(data, offset),
            Store::Memory(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use s0_tree::describe;

    use super::*;

    fn content(bytes: &[u8]) -> Content {
        describe(bytes).unwrap().0
    }

    /// All bytes, where those of the base are at hand.
    fn read(draft: &Draft, range: Range<u64>, base: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        for piece in draft.pieces(range) {
            match piece {
                Piece::Own(range) => {
                    let mut bytes = vec![0; (range.end - range.start) as usize];
                    draft.read_own(range.start, &mut bytes).unwrap();
                    all.extend(bytes);
                }
                Piece::Base(of, range) => {
                    assert_eq!(of, content(base));
                    all.extend(&base[range.start as usize..range.end as usize]);
                }
                Piece::Hole(range) => all.resize(all.len() + (range.end - range.start) as usize, 0),
            }
        }
        all
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        Truncate(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..300_u64, prop::collection::vec(1..255_u8, 1..60)).prop_map(|(at, data)| Step::Write(at, data)),
            1 => (0..400_u64).prop_map(Step::Truncate),
        ]
    }

    fn run(draft: &mut Draft, model: &mut Vec<u8>, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Write(at, data) => {
                    let (at, end) = (*at as usize, *at as usize + data.len());
                    if model.len() < end {
                        model.resize(end, 0);
                    }
                    model[at..end].copy_from_slice(data);
                    draft.write(at as u64, data, Time(1)).unwrap();
                }
                Step::Truncate(size) => {
                    model.resize(*size as usize, 0);
                    draft.truncate(*size, Time(1)).unwrap();
                }
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_a_file(
            base in prop::collection::vec(any::<u8>(), 0..300),
            first in prop::collection::vec(step(), 0..20),
            then in prop::collection::vec(step(), 0..20),
            from in 0..400_u64,
            length in 0..400_u64,
        ) {
            let mut model = base.clone();
            let mut draft = Draft::of(Some(content(&base)), Time(0));
            run(&mut draft, &mut model, &first);
            prop_assert_eq!(draft.size(), model.len() as u64);
            prop_assert_eq!(&read(&draft, 0..u64::MAX, &base), &model);
            // Committed, and written to on.
            let base = model.clone();
            let generation = draft.begin_commit();
            draft.commit(generation, content(&base));
            prop_assert!(!draft.is_dirty());
            run(&mut draft, &mut model, &then);
            prop_assert_eq!(draft.is_dirty(), !then.is_empty());
            let until = (from + length).min(model.len() as u64) as usize;
            let part = model.get(from as usize..until).unwrap_or_default();
            prop_assert_eq!(&read(&draft, from..from + length, &base), part);
        }
    }

    #[test]
    fn what_others_write_meanwhile_is_below() {
        let (old, new) = (b"aaaaaaaaaa", b"bbbbbbbbbbbb");
        let mut draft = Draft::of(Some(content(old)), Time(0));
        draft.write(2, b"XX", Time(1)).unwrap();
        draft.rebase(content(new)).unwrap();
        assert_eq!(read(&draft, 0..99, new), b"bbXXbbbbbbbb");
        // One that was cut stays as long as it is.
        draft.truncate(3, Time(1)).unwrap();
        draft.rebase(content(old)).unwrap();
        assert_eq!(read(&draft, 0..99, old), b"aaX");
    }

    #[test]
    fn what_is_appended_goes_behind_what_others_appended() {
        let mut draft = Draft::of(Some(content(b"log\n")), Time(0));
        assert_eq!(draft.append(b"mine\n", Time(1)).unwrap(), 4);
        assert_eq!(draft.append(b"too\n", Time(1)).unwrap(), 9);
        let theirs = b"log\ntheirs\n";
        draft.rebase(content(theirs)).unwrap();
        assert_eq!(read(&draft, 0..99, theirs), b"log\ntheirs\nmine\ntoo\n");
        draft.rebase(content(b"")).unwrap();
        assert_eq!(read(&draft, 0..99, b""), b"mine\ntoo\n");
    }

    #[test]
    fn what_is_appended_stays_behind_what_was_written_here() {
        let mut draft = Draft::of(Some(content(b"a long beginning")), Time(0));
        draft.write(0, b"A LONG", Time(1)).unwrap();
        draft.append(b" end", Time(1)).unwrap();
        draft.rebase(content(b"ab")).unwrap();
        assert_eq!(read(&draft, 0..99, b"ab"), b"A LONG end");
        // Of a file that was made empty here, nothing of others' is below.
        draft.truncate(0, Time(1)).unwrap();
        draft.append(b"anew", Time(1)).unwrap();
        draft.rebase(content(b"longer again")).unwrap();
        assert_eq!(read(&draft, 0..99, b"longer again"), b"anew");
    }

    #[test]
    fn what_is_appended_to_what_was_cut_during_a_commit_goes_behind_what_is_left() {
        let mut draft = Draft::of(Some(content(b"log\n")), Time(0));
        draft.append(b"a long line\n", Time(1)).unwrap();
        let generation = draft.begin_commit();
        draft.truncate(0, Time(1)).unwrap();
        draft.append(b"anew\n", Time(1)).unwrap();
        let committed = b"log\na long line\n";
        draft.commit(generation, content(committed));
        assert_eq!(read(&draft, 0..99, committed), b"anew\n");
        draft.rebase(content(b"theirs\n")).unwrap();
        assert_eq!(read(&draft, 0..99, b"theirs\n"), b"anew\n");
    }

    #[test]
    fn a_large_one_is_in_a_file() {
        let mut draft = Draft::of(None, Time(0));
        draft.write(0, b"begin", Time(1)).unwrap();
        draft.write(3 << 20, b"end", Time(1)).unwrap();
        let all = read(&draft, 0..u64::MAX, b"");
        assert_eq!(all.len(), (3 << 20) + 3);
        assert!(all.starts_with(b"begin\0\0"));
        assert!(all.ends_with(b"\0\0end"));
        draft.truncate(2, Time(1)).unwrap();
        draft.truncate(4, Time(1)).unwrap();
        assert_eq!(read(&draft, 0..u64::MAX, b""), b"be\0\0");
    }
}

//! `fsck`: whether all that the service keeps is there, true, and one with itself.
//!
//! It only reads, through the same traits as the service, and may do so while the
//! service runs: a Volume is looked at as it was when its look began. What it finds is
//! told, one by one, and nothing is mended but what can be sent again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use s0_api::documented::ConflictStatus;
use s0_tree::{Content, ContentId, Entry, Hash, Seq, Tree, fold};
use serde::Serialize;

use crate::contents::Contents;
use crate::disk::DiskContents;
use crate::holdings::Holdings;
use crate::journal::{Journal, Kept, StoreError, Stored, VolumeRecord, blocking};
use crate::serve::{ServeError, opening};
use crate::sqlite::SqliteJournal;
use crate::volume::{PAGE, unpack};

/// How often a Volume is looked at anew whose journal was cut meanwhile.
const ATTEMPTS: usize = 3;

/// What to look at, and what to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Check {
    /// Looks only whether contents are there, and not at their bytes.
    pub quick: bool,
    /// Puts contents that are damaged out of the way, so that they can be sent again.
    pub set_aside: bool,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The database itself.
    Store,
    /// An entry is missing, or does not fit the tree before it.
    Journal,
    /// A checkpoint cannot be read, or is not the tree of its entry.
    Checkpoint,
    /// What is counted as used is not what is there.
    Usage,
    /// A content that something names is missing or damaged.
    Content,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub kind: Kind,
    /// In which Volume, if it is in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// Where in it: an entry, a snapshot, a path.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// What is wrong.
    pub why: String,
}

/// What was looked at, and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many Volumes.
    pub volumes: usize,
    /// How many entries were folded.
    pub entries: u64,
    /// How many checkpoints were read.
    pub checkpoints: usize,
    /// How many contents, chunks of larger ones not counted.
    pub contents: usize,
    /// How many bytes of contents were read.
    pub bytes: u64,
    /// All that is wrong.
    pub findings: Vec<Finding>,
}

/// Looks at all that is kept in a data directory. `progress` hears of each step.
///
/// # Errors
/// It cannot be read at all, or another version of the program wrote it.
pub async fn fsck(
    data_dir: &Path,
    check: Check,
    progress: &mut (dyn FnMut(&Report) + Send),
) -> Result<Report, ServeError> {
    let path = data_dir.join("journal.db");
    let journal = SqliteJournal::open_to_read(&path).map_err(opening(&path))?;
    let journal = Arc::new(journal);
    let contents = Arc::new(DiskContents::open_to_read(&data_dir.join("contents")));
    let mut look = Look::new(journal, contents, check, progress);
    look.all().await?;
    Ok(look.report)
}

struct Look<'a> {
    journal: Arc<dyn Journal>,
    holdings: Holdings,
    check: Check,
    report: Report,
    /// What was read, by team, with what is wrong with it: Volumes share contents.
    read: HashMap<(String, ContentId), Option<String>>,
    progress: &'a mut (dyn FnMut(&Report) + Send),
}

/// The contents that a Volume names, each with one place that does.
type Named = BTreeMap<Content, String>;

impl<'a> Look<'a> {
    fn new(
        journal: Arc<dyn Journal>,
        contents: Arc<dyn Contents>,
        check: Check,
        progress: &'a mut (dyn FnMut(&Report) + Send),
    ) -> Self {
        let holdings = Holdings::new(journal.clone(), contents);
        Self { journal, holdings, check, report: Report::default(), read: HashMap::new(), progress }
    }

    async fn all(&mut self) -> Kept<()> {
        for why in self.journal.check().await? {
            self.report.findings.push(Finding {
                kind: Kind::Store,
                volume: None,
                place: String::new(),
                why,
            });
        }
        for record in self.journal.volumes(None).await? {
            let mut named = Named::new();
            for attempt in 1..=ATTEMPTS {
                named.clear();
                let before = self.report.clone();
                if self.journal_of(&record, &mut named).await? {
                    break;
                }
                // The service has cut the journal under this look.
                if attempt < ATTEMPTS {
                    self.report = before;
                }
            }
            self.conflicts_of(&record, &mut named).await?;
            self.contents_of(&record, named).await?;
            self.report.volumes += 1;
            (self.progress)(&self.report);
        }
        Ok(())
    }

    fn found(&mut self, kind: Kind, volume: &VolumeRecord, place: String, why: &impl ToString) {
        let (volume, why) = (Some(volume.id.clone()), why.to_string());
        self.report.findings.push(Finding { kind, volume, place, why });
    }

    /// Folds the journal from its first checkpoint, and compares each later one with the
    /// tree of its entry. False when the journal was cut meanwhile.
    async fn journal_of(&mut self, record: &VolumeRecord, named: &mut Named) -> Kept<bool> {
        let Some(stored) = self.journal.load(&record.id).await? else { return Ok(true) };
        let known = self.report.findings.len();
        let checkpoints = self.checkpoints_of(&stored, named).await?;
        let Stored { head, retained_after, .. } = stored;
        let mut tree = match retained_after {
            Seq(0) => Some(Tree::default()),
            _ => None,
        };
        let mut at = retained_after;
        loop {
            if let Some(kept) = checkpoints.get(&at) {
                match &tree {
                    Some(tree) if tree != kept => {
                        let why = "it is not the tree that the entries up to it make";
                        self.found(Kind::Checkpoint, record, format!("checkpoint {at}"), &why);
                    }
                    _ => tree = Some(kept.clone()),
                }
            }
            if at >= head {
                break;
            }
            let page = self.journal.entries(&record.id, at, PAGE).await?;
            if page.first().is_none_or(|first| first.seq != at.next()) {
                let now = self.journal.load(&record.id).await?;
                if now.is_none_or(|now| now.retained_after > at) {
                    return Ok(false);
                }
            }
            let Some(next) =
                self.fold_page(record, page, (at, head), &checkpoints, &mut tree, named)
            else {
                break;
            };
            at = next;
            (self.progress)(&self.report);
        }
        match tree {
            Some(tree) if tree.head() == head => {
                if let Some(used) = stored.record.used.filter(|used| *used != tree.usage()) {
                    let why = format!("{used:?} is noted, and {:?} is there", tree.usage());
                    self.found(Kind::Usage, record, String::new(), &why);
                }
                // A path that is there is the best name for what is in it.
                let here = tree.walk().filter_map(|(path, _, node)| Some((node.content()?, path)));
                named.extend(here.map(|(content, path)| (content, path.to_string())));
            }
            None if self.report.findings.len() == known => {
                let why = "no checkpoint can be read from which the journal goes on";
                self.found(Kind::Journal, record, String::new(), &why);
            }
            // What is wrong was told.
            _ => {}
        }
        Ok(true)
    }

    /// Folds entries up to the next checkpoint. Gives where it has come to, or nothing
    /// when the journal does not go on.
    fn fold_page(
        &mut self,
        record: &VolumeRecord,
        page: Vec<Entry>,
        (mut at, head): (Seq, Seq),
        checkpoints: &BTreeMap<Seq, Tree>,
        tree: &mut Option<Tree>,
        named: &mut Named,
    ) -> Option<Seq> {
        let begin = at;
        for entry in page {
            if entry.seq != at.next() {
                break;
            }
            if let Some(content) = entry.content() {
                let place = format!("entry {} ({})", entry.seq, entry.path);
                named.entry(content).or_insert(place);
            }
            if let Some(Err(misfit)) = tree.as_mut().map(|tree| fold(tree, &entry)) {
                self.found(Kind::Journal, record, format!("entry {}", entry.seq), &misfit);
                // From the next checkpoint on it may be whole again.
                *tree = None;
            }
            at = entry.seq;
            self.report.entries += 1;
            if at >= head || checkpoints.contains_key(&at) {
                return Some(at);
            }
        }
        if at == begin {
            self.found(Kind::Journal, record, format!("entry {}", at.next()), &"it is missing");
            return None;
        }
        Some(at)
    }

    /// The trees of all checkpoints that can be read.
    async fn checkpoints_of(
        &mut self,
        stored: &Stored,
        named: &mut Named,
    ) -> Kept<BTreeMap<Seq, Tree>> {
        let record = &stored.record;
        let snapshots = self.journal.snapshots(&record.id).await?;
        let mut trees = BTreeMap::new();
        let seqs: BTreeSet<Seq> =
            stored.checkpoints.iter().copied().chain(snapshots.iter().map(|it| it.seq)).collect();
        for seq in seqs {
            let snapshot = snapshots.iter().find(|snapshot| snapshot.seq == seq);
            let place = match snapshot {
                Some(snapshot) => format!("snapshot {} ({})", snapshot.id, snapshot.name),
                None => format!("checkpoint {seq}"),
            };
            let tree = match self.journal.checkpoint(&record.id, seq).await? {
                Some(checkpoint) => unpack(checkpoint.packed).await,
                None => Err(StoreError::Damaged("its tree is missing".into())),
            };
            match tree {
                Ok(tree) if tree.head() == seq => {
                    self.report.checkpoints += 1;
                    name_tree(&tree, named, |path| format!("{path} in {place}"));
                    trees.insert(seq, tree);
                }
                Ok(tree) => {
                    let why = format!("it is the tree of entry {}", tree.head());
                    self.found(Kind::Checkpoint, record, place, &why);
                }
                Err(StoreError::Damaged(why)) => {
                    self.found(Kind::Checkpoint, record, place, &why);
                }
                Err(failed) => return Err(failed),
            }
        }
        Ok(trees)
    }

    /// What open conflicts name stays readable until they are settled.
    async fn conflicts_of(&mut self, record: &VolumeRecord, named: &mut Named) -> Kept<()> {
        let open = Some(ConflictStatus::Open.as_str().to_owned());
        for conflict in self.journal.conflicts(&record.id, open, usize::MAX).await? {
            for prefix in ["", "existing_", "base_"] {
                let text = |key: &str| conflict.metadata.get(format!("{prefix}{key}"));
                let id = text("content_ref").and_then(|id| ContentId::parse(id.as_str()?));
                let size = text("size_bytes").and_then(serde_json::Value::as_u64);
                if let (Some(id), Some(size)) = (id, size) {
                    let place = format!("conflict {} ({})", conflict.id, conflict.path);
                    named.entry(Content { id, size }).or_insert(place);
                }
            }
        }
        Ok(())
    }

    async fn contents_of(&mut self, record: &VolumeRecord, named: Named) -> Kept<()> {
        let ids: Vec<ContentId> = named.keys().map(|content| content.id).collect();
        let mut readable = BTreeSet::new();
        for some in ids.chunks(PAGE) {
            readable.extend(self.journal.named(&record.id, some.to_vec()).await?);
        }
        for (content, place) in named {
            if content.size > 0 && !readable.contains(&content.id) {
                let why =
                    format!("{} is not noted as the Volume's, so nobody may read it", content.id);
                self.found(Kind::Content, record, place.clone(), &why);
            }
            match self.content(&record.team, content).await {
                Ok(None) => {}
                Ok(Some(why)) | Err(StoreError::Damaged(why)) => {
                    self.found(Kind::Content, record, place, &why);
                }
                Err(failed) => return Err(failed),
            }
            self.report.contents += 1;
            if self.report.contents.is_multiple_of(256) {
                (self.progress)(&self.report);
            }
        }
        Ok(())
    }

    /// What is wrong with a content, if something is.
    async fn content(&mut self, team: &str, content: Content) -> Kept<Option<String>> {
        let ContentId::Recipe(_) = content.id else {
            return self.chunk(team, content.id, content.size).await;
        };
        let key = (team.to_owned(), content.id);
        if let Some(known) = self.read.get(&key) {
            return Ok(known.clone());
        }
        let wrong = self.recipe(team, content).await?;
        self.read.insert(key, wrong.clone());
        Ok(wrong)
    }

    async fn recipe(&mut self, team: &str, content: Content) -> Kept<Option<String>> {
        let recipe = match self.holdings.recipe(team, content.id).await {
            Ok(Some(recipe)) => recipe,
            Ok(None) => return Ok(Some(format!("{} is missing", content.id))),
            Err(StoreError::Damaged(why)) => {
                self.set_aside(team, content.id).await?;
                return Ok(Some(why));
            }
            Err(failed) => return Err(failed),
        };
        if recipe.content() != content {
            return Ok(Some(format!("{} has another length", content.id)));
        }
        for chunk in &recipe.chunks {
            let id = ContentId::Chunk(chunk.hash);
            if let Some(why) = self.chunk(team, id, chunk.size.into()).await? {
                return Ok(Some(why));
            }
        }
        Ok(None)
    }

    async fn chunk(&mut self, team: &str, id: ContentId, size: u64) -> Kept<Option<String>> {
        if id == Content::empty().id {
            return Ok(None);
        }
        let key = (team.to_owned(), id);
        if let Some(known) = self.read.get(&key) {
            return Ok(known.clone());
        }
        let wrong = if self.check.quick {
            match self.holdings.sizes(team, &[id]).await?.get(&id) {
                Some(found) if *found == size => None,
                Some(found) => Some(format!("{id} has {found} bytes, not {size}")),
                None => Some(format!("{id} is missing")),
            }
        } else {
            self.bytes(team, id, size).await?
        };
        self.read.insert(key, wrong.clone());
        Ok(wrong)
    }

    /// Reads a chunk.
    async fn bytes(&mut self, team: &str, id: ContentId, size: u64) -> Kept<Option<String>> {
        let bytes = match self.holdings.get(team, id).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Some(format!("{id} is missing"))),
            Err(StoreError::Damaged(why)) => {
                self.set_aside(team, id).await?;
                return Ok(Some(why));
            }
            Err(failed) => return Err(failed),
        };
        let length = bytes.len() as u64;
        self.report.bytes += length;
        // Those of the journal's database were not compared with their name yet.
        let hash = blocking(move || Ok(Hash::of(&bytes))).await?;
        Ok(match (hash == id.hash(), length == size) {
            (true, true) => None,
            (false, _) => Some(format!("{id} is damaged")),
            (true, false) => Some(format!("{id} has {length} bytes, not {size}")),
        })
    }

    async fn set_aside(&self, team: &str, id: ContentId) -> Kept<()> {
        if self.check.set_aside {
            self.holdings.verify(team, id).await?;
        }
        Ok(())
    }
}

/// Notes the contents that a tree names, by their paths.
fn name_tree(tree: &Tree, named: &mut Named, place: impl Fn(String) -> String) {
    for (path, _, node) in tree.walk() {
        if let Some(content) = node.content() {
            named.entry(content).or_insert_with(|| place(path.to_string()));
        }
    }
}

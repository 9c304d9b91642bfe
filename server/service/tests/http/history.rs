//! What was at a path, and bringing it back.

use std::time::{Duration, Instant};

use reqwest::Method;
use s0_api::history::{PathHistory, PathVersion, PathVersionId, RestorePath, RestoredPath};
use s0_api::volumes::Restoring;
use s0_api::{Client, Error};
use s0_tree::{
    Action, AttributeChange, Change, Content, New, PathChange, PathKind, RenameHow, Seq, Source,
};
use serde_json::{Value, json};

use crate::rig::{Rig, code, create, inline, path, registration, submission};

/// A Volume with a replica that submits whatever it likes.
struct Volume {
    rig: Rig,
    id: String,
    number: u64,
}

impl Volume {
    async fn start() -> Self {
        Self::of(Rig::start().await).await
    }

    async fn of(rig: Rig) -> Self {
        let id = rig.volume().await;
        rig.client.register(&id, "r", &registration()).await.unwrap();
        Self { rig, id, number: 0 }
    }

    async fn write(&self, at: &str, text: &str) {
        self.rig.write(&self.id, at, text).await;
    }

    /// Has changes admitted without expectations.
    async fn submit(&mut self, actions: Vec<Action>, texts: &[&str]) {
        self.number += 1;
        let changes: Vec<Change> = actions.into_iter().map(Change::unstated).collect();
        let sent = submission(self.number, &changes);
        let answer = self.rig.client.submit(&self.id, "r", 1, &sent, &inline(texts)).await.unwrap();
        let said = serde_json::to_value(answer.outcomes).unwrap();
        assert!(said.as_array().unwrap().iter().all(|it| it["outcome"] == "accepted"), "{said}");
    }

    async fn rename(&mut self, from: &str, to: &str, how: RenameHow) {
        self.submit(vec![Action::Rename { from: path(from), to: path(to), how }], &[]).await;
    }

    async fn chmod(&mut self, at: &str, mode: u32) {
        let set = AttributeChange::mode(mode);
        self.submit(vec![Action::Attributes { path: path(at), set }], &[]).await;
    }

    async fn remove(&mut self, at: &str) {
        self.submit(vec![Action::Remove { path: path(at) }], &[]).await;
    }

    async fn try_history(&self, at: &str) -> Result<PathHistory, Error> {
        self.rig.client.path_history(&self.id, &path(at), true, None, 100).await
    }

    async fn history(&self, at: &str) -> Vec<PathVersion> {
        self.try_history(at).await.unwrap().versions
    }

    /// The history as a person would say it: seq, change, path, and the text after.
    async fn told(&self, at: &str) -> Vec<String> {
        let mut told = Vec::new();
        for version in self.history(at).await {
            told.push(self.tell(&version).await);
        }
        told
    }

    async fn tell(&self, version: &PathVersion) -> String {
        let change = match &version.change {
            PathChange::Renamed { from } => format!("renamed from {from}"),
            PathChange::RenamedAway { to } => format!("renamed to {to}"),
            other => serde_json::to_value(other).unwrap()["change"].as_str().unwrap().to_owned(),
        };
        let text = match version.state.content {
            Some(content) => self.content(content).await,
            None => format!("{:?}", version.state.kind).to_lowercase(),
        };
        format!("{} {change}: {} {text}", version.seq, version.path)
    }

    async fn content(&self, content: Content) -> String {
        let bytes = self.rig.client.content(&self.id, content.id, None).await.unwrap();
        String::from_utf8(Client::collect(bytes).await.unwrap()).unwrap()
    }

    async fn text_at(&self, at: &str, seq: u64, follow: bool) -> Option<String> {
        let version = PathVersionId { path: path(at), at: Seq(seq), follow };
        match self.rig.client.path_at(&self.id, &version).await.unwrap().state.content {
            Some(content) => Some(self.content(content).await),
            None => None,
        }
    }

    async fn restore(&self, at: &str, seq: u64, seen: Option<u64>) -> Result<RestoredPath, Error> {
        let version = PathVersionId { path: path(at), at: Seq(seq), follow: true };
        let restore = RestorePath { version, seen: seen.map(Seq) };
        self.rig.client.restore_path(&self.id, &restore, &Restoring::default()).await
    }

    async fn read(&self, at: &str) -> String {
        String::from_utf8(self.rig.read(&self.id, at).await).unwrap()
    }

    async fn head(&self) -> Seq {
        self.rig.client.tree(&self.id).await.unwrap().1.head()
    }

    fn route(&self, more: &str) -> String {
        format!("/api/v1/sandboxvolumes/{}/sync/history{more}", self.id)
    }
}

fn reason(refused: Result<RestoredPath, Error>) -> String {
    match refused {
        Err(Error::Conflict { details: Some(details), .. }) => {
            details["reason"].as_str().unwrap().into()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_file_is_followed_over_renames_of_itself_and_of_what_is_above() {
    let mut volume = Volume::start().await;
    volume.write("src/a.txt", "one").await; // 1 and 2
    volume.write("src/a.txt", "two").await;
    volume.write("other.txt", "beside it").await;
    volume.chmod("src/a.txt", 0o755).await;
    volume.rename("src/a.txt", "src/b.txt", RenameHow::NoReplace).await;
    volume.rename("src", "lib", RenameHow::NoReplace).await;
    volume.write("lib/b.txt", "three").await;
    assert_eq!(
        volume.told("lib/b.txt").await,
        [
            "8 written: lib/b.txt three",
            "7 renamed from src/b.txt: lib/b.txt two",
            "6 renamed from src/a.txt: src/b.txt two",
            "5 attributes: src/a.txt two",
            "3 written: src/a.txt two",
            "2 created: src/a.txt one",
        ]
    );
    let versions = volume.history("lib/b.txt").await;
    let modes: Vec<_> = versions.iter().map(|it| it.state.mode.unwrap()).collect();
    assert_eq!(modes, [0o755, 0o755, 0o755, 0o755, 0o644, 0o644]);
    assert_eq!(versions[0].source, Some(Source::Sandbox));
    assert_eq!(versions[1].actor.as_ref().unwrap().replica.as_deref(), Some("r"));
    let time = versions[0].time.as_deref().unwrap();
    assert!(s0_api::times::parse(time).is_some(), "{time}");

    // Under an old name it is found as well, and so is where it went.
    assert_eq!(volume.told("src/b.txt").await[0], "7 renamed to lib/b.txt: src/b.txt absent");
    assert_eq!(volume.told("src/b.txt").await[1..], volume.told("lib/b.txt").await[2..]);
    // A directory has a history, too.
    assert_eq!(
        volume.told("lib").await,
        ["7 renamed from src: lib directory", "1 created: src directory"]
    );
    // Any seq will do, not only those of its versions.
    for (seq, text) in [(8, Some("three")), (7, Some("two")), (4, Some("two")), (1, None)] {
        assert_eq!(volume.text_at("lib/b.txt", seq, true).await.as_deref(), text, "{seq}");
    }
    assert_eq!(volume.text_at("lib/b.txt", 6, false).await, None, "it was elsewhere then");
    assert_eq!(volume.text_at("src/b.txt", 6, false).await.as_deref(), Some("two"));
}

#[tokio::test]
async fn what_was_at_the_path_before_is_its_history_as_well() {
    let mut volume = Volume::start().await;
    volume.write("a", "first").await;
    volume.remove("a").await;
    volume.write("a", "second").await;
    // An editor's save by rename: what was replaced is what the path was.
    volume.write("a.tmp", "third").await;
    volume.rename("a.tmp", "a", RenameHow::Replace).await;
    assert_eq!(
        volume.told("a").await,
        [
            "5 renamed from a.tmp: a third",
            "3 created: a second",
            "2 removed: a absent",
            "1 created: a first",
        ]
    );
    assert_eq!(
        volume.told("a.tmp").await,
        ["5 renamed to a: a.tmp absent", "4 created: a.tmp third"]
    );
    volume.remove("a").await;
    assert_eq!(volume.told("a").await[0], "6 removed: a absent");
    // What came by a rename is followed to where it was, and so the path's own past
    // is left; it can be asked for.
    volume.write("b", "of b").await;
    volume.rename("b", "a", RenameHow::NoReplace).await;
    assert_eq!(volume.told("a").await, ["8 renamed from b: a of b", "7 created: b of b"]);
    let here = volume.rig.client.path_history(&volume.id, &path("a"), false, None, 9).await;
    let seqs: Vec<u64> = here.unwrap().versions.iter().map(|it| it.seq.0).collect();
    assert_eq!(seqs, [8, 6, 5, 3, 2, 1]);

    let target = New::Symlink { target: "a".into() };
    let set = AttributeChange::default();
    volume.submit(vec![Action::Create { path: path("l"), what: target, set }], &[]).await;
    volume.submit(vec![Action::Link { path: path("c"), existing: path("a") }], &[]).await;
    volume.remove("l").await;
    let link = &volume.history("l").await[1];
    assert_eq!((link.state.kind, link.state.target.as_deref()), (PathKind::Symlink, Some("a")));
    assert_eq!(volume.told("c").await, ["10 linked: c of b"]);
}

#[tokio::test]
async fn a_history_is_read_in_pages() {
    let volume = Volume::start().await;
    for number in 1..=30 {
        volume.write("a", &format!("text {number}")).await;
        volume.write("b", "always the same").await;
    }
    let all = volume.history("a").await;
    assert_eq!(all.len(), 30);
    let (mut pages, mut before) = (Vec::new(), None);
    loop {
        let page = volume.rig.client.path_history(&volume.id, &path("a"), true, before, 7).await;
        let page = page.unwrap();
        assert_eq!((page.head, page.retained_after), (Seq(31), Seq(0)));
        let Some(last) = page.versions.last() else { break };
        assert!(page.versions.len() <= 7);
        before = Some(last.seq);
        pages.extend(page.versions);
    }
    assert_eq!(pages, all);
    // A limit is not exceeded, whatever is asked.
    let many = volume.rig.data(Method::GET, &volume.route("?path=a&limit=999999"), ()).await;
    assert_eq!(many["versions"].as_array().unwrap().len(), 30);
    assert_eq!(
        many["versions"][0],
        json!({
            "seq": 31, "time": all[0].time, "source": "sandbox", "actor": {}, "path": "a",
            "change": "written", "kind": "file", "mode": 0o644,
            "content": Content::of(b"text 30"),
        })
    );
}

#[tokio::test]
async fn only_clean_paths_and_real_seqs_are_taken() {
    let volume = Volume::start().await;
    volume.write("a", "one").await;
    let long = format!("?path={}", "x".repeat(300));
    for bad in [
        "",
        "?path=",
        "?path=/",
        "?path=//a",
        "?path=../a",
        "?path=a/../b",
        "?path=a%00b",
        "?path=a/",
        "?path=./a",
        &long,
        "?path=a&before=-1",
        "?path=a&before=x",
        "?path=a&limit=x",
        "/version?path=a",
        "/version?path=..&at=1",
        "/version?path=a&at=x",
        "/version?path=a&at=-1",
        "/version?path=a&at=2",
    ] {
        let answer = volume.rig.raw(Method::GET, &volume.route(bad), ()).await;
        assert_eq!(code(&answer), (400, "bad_request"), "{bad}");
    }
    for body in [
        json!({}),
        json!({"path": "..", "at": 1}),
        json!({"path": "", "at": 1}),
        json!({"path": "/", "at": 1}),
        json!({"path": "a", "at": -1}),
        json!({"path": "a", "at": 2}),
        json!(["a", 1]),
    ] {
        let answer = volume.rig.raw(Method::POST, &volume.route("/restore"), body.clone()).await;
        assert_eq!(code(&answer), (400, "bad_request"), "{body}");
    }
    assert_eq!(volume.head().await, Seq(1));
    for never in ["none", "a/below", "none/at/all"] {
        assert!(matches!(volume.try_history(never).await, Err(Error::NotFound(_))), "{never}");
    }
    assert_eq!(volume.text_at("none", 1, true).await, None);
    let slashed = volume.rig.data(Method::GET, &volume.route("?path=/a"), ()).await;
    assert_eq!(slashed["versions"][0]["seq"], 1);
    let none = volume.rig.data(Method::GET, &volume.route("?path=a&before=1"), ()).await;
    assert_eq!(none["versions"], json!([]), "it was there, but not so early");
    // Another Volume says nothing of this one.
    let other = volume.rig.volume().await;
    let asked = volume.rig.client.path_history(&other, &path("a"), true, None, 9).await;
    assert!(matches!(asked, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_version_comes_back_as_an_ordinary_write() {
    let mut volume = Volume::start().await;
    volume.write("d/a", "one").await; // 1 and 2
    volume.chmod("d/a", 0o755).await;
    volume.write("d/a", "two").await;
    volume.rename("d/a", "d/b", RenameHow::NoReplace).await;
    let back = volume.restore("d/b", 3, None).await.unwrap();
    assert_eq!((back.seq, back.path, back.state.mode), (Some(Seq(6)), path("d/b"), Some(0o755)));
    assert_eq!(volume.read("d/b").await, "one");
    assert_eq!(volume.told("d/b").await[0], "6 written: d/b one");
    let again = volume.restore("d/b", 3, None).await.unwrap();
    assert_eq!((again.seq, volume.head().await), (None, Seq(6)), "it is so already");

    // What is gone comes back with the directories above it.
    volume.remove("d/b").await;
    volume.remove("d").await;
    assert_eq!(reason(volume.restore("d/b", 7, None).await), "absent");
    assert_eq!(volume.restore("d/b", 4, None).await.unwrap().seq, Some(Seq(10)));
    assert_eq!(volume.read("d/b").await, "two");

    // A link in place of a file, and a file in place of the link.
    let what = New::Symlink { target: "b".into() };
    let set = AttributeChange::default();
    volume.remove("d/b").await;
    volume.submit(vec![Action::Create { path: path("d/b"), what, set }], &[]).await;
    let link = volume.head().await.0;
    volume.restore("d/b", 10, None).await.unwrap();
    assert_eq!(volume.read("d/b").await, "two");
    volume.restore("d/b", link, None).await.unwrap();
    let now = volume.rig.client.stat_file(&volume.id, "d/b").await.unwrap();
    assert_eq!(now.link_target.as_deref(), Some("b"));

    let head = volume.head().await;
    assert_eq!(reason(volume.restore("d", head.0, None).await), "directory");
    volume.remove("d/b").await;
    volume.write("d/b/below", "in the way").await;
    assert_eq!(reason(volume.restore("d/b", 10, None).await), "in_the_way");
    assert_eq!(volume.read("d/b/below").await, "in the way");
}

#[tokio::test]
async fn what_was_not_seen_is_not_written_over() {
    let mut volume = Volume::start().await;
    volume.write("a", "one").await;
    volume.write("a", "two").await;
    volume.write("b", "of somebody else").await;
    let seen = volume.head().await.0;
    volume.write("a", "three").await;
    assert_eq!(reason(volume.restore("a", 1, Some(seen)).await), "concurrent_update");
    assert_eq!((volume.read("a").await.as_str(), volume.head().await), ("three", Seq(4)));
    let open = volume.rig.client.conflicts(&volume.id, None).await.unwrap();
    assert!(open.is_empty(), "whoever asked was told, and nobody else is concerned");
    volume.remove("a").await;
    assert_eq!(reason(volume.restore("a", 1, Some(4)).await), "concurrent_update");
    volume.write("b", "beside it").await;
    volume.restore("a", 1, Some(5)).await.unwrap();
    assert_eq!(volume.read("a").await, "one");

    // While somebody writes all the time, nothing comes between what was seen and
    // what came back.
    let (client, id) = (volume.rig.client.clone(), volume.id.clone());
    let writes = async {
        for number in 0..60 {
            client.write_file(&id, "a", format!("write {number}")).await.unwrap();
        }
    };
    let restores = async {
        let mut done = Vec::new();
        for _ in 0..60 {
            let seen = volume.try_history("a").await.unwrap().head;
            match volume.restore("a", 1, Some(seen.0)).await {
                Ok(back) => done.extend(back.seq.map(|seq| (seen, seq))),
                refusal => assert_eq!(reason(refusal), "concurrent_update"),
            }
        }
        done
    };
    let ((), done) = tokio::join!(writes, restores);
    let seqs: Vec<Seq> = volume.history("a").await.iter().map(|it| it.seq).collect();
    for (seen, back) in done {
        assert!(!seqs.iter().any(|seq| *seq > seen && *seq < back), "{seen}, {back}: {seqs:?}");
    }
}

#[tokio::test]
async fn history_ends_where_the_retained_journal_begins() {
    let rig = Rig::with(|config| config.retention_entries = Some(100)).await;
    let mut volume = Volume::of(rig).await;
    volume.write("old", "before all that is retained").await;
    volume.write("gone", "removed when it was old").await;
    volume.write("kept", "never touched").await;
    volume.write("lost", "written over when it was old").await;
    let floor = async |volume: &mut Volume| {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let names: Vec<String> = (0..25).map(|at| format!("n{}-{at}", volume.number)).collect();
            volume.number += 1;
            let changes: Vec<_> = names.iter().map(|it| create(it, Content::empty())).collect();
            let sent = submission(volume.number, &changes);
            volume.rig.client.submit(&volume.id, "r", 1, &sent, &[]).await.unwrap();
            let head = volume.head().await;
            volume.rig.client.set_cursor(&volume.id, "r", head).await.unwrap();
            let told = volume.try_history("kept").await.unwrap();
            if told.retained_after > Seq(100) {
                return told;
            }
            assert!(Instant::now() < deadline, "the journal was not cut");
        }
    };
    // Upkeep goes on beside the writes, until the first entries are gone.
    let told = floor(&mut volume).await;
    let [kept] = &told.versions[..] else { panic!("{told:?}") };
    assert_eq!((kept.seq, &kept.change), (told.retained_after, &PathChange::Earlier));
    assert_eq!((&kept.time, &kept.actor, kept.state.mode), (&None, &None, Some(0o644)));
    let told_of = volume.tell(kept).await;
    assert_eq!(told_of, format!("{} earlier: kept never touched", kept.seq));

    volume.write("old", "now").await;
    volume.remove("gone").await;
    volume.write("lost", "now").await;
    let told = volume.told("old").await;
    assert!(told[0].ends_with("written: old now"), "{told:?}");
    // The entry that says what it held is gone, but not the checkpoint that does.
    assert!(told[1].ends_with("earlier: old before all that is retained"), "{told:?}");
    let told = volume.told("gone").await;
    assert!(told[0].ends_with("removed: gone absent"), "{told:?}");
    assert!(told[1].ends_with("earlier: gone removed when it was old"), "{told:?}");
    let earlier = volume.history("gone").await[1].seq.0;
    assert_eq!(
        volume.text_at("gone", earlier + 1, true).await.as_deref(),
        Some("removed when it was old")
    );
    volume.restore("gone", earlier, None).await.unwrap();
    assert_eq!(volume.read("gone").await, "removed when it was old");

    let route = volume.route("/version?path=old&at=1");
    let refused: (u16, Value) = volume.rig.raw(Method::GET, &route, ()).await;
    assert_eq!(code(&refused), (409, "conflict"));
    assert_eq!(refused.1["error"]["details"]["reason"], "not_retained");
    assert_eq!(reason(volume.restore("old", 1, None).await), "not_retained");
    assert!(matches!(volume.try_history("none").await, Err(Error::NotFound(_))));

    // When no checkpoint is as old as that, it is said that nobody knows.
    let changed = volume.history("lost").await[0].seq;
    let deadline = Instant::now() + Duration::from_secs(20);
    let lost = loop {
        let last = volume.history("lost").await.pop().unwrap();
        if last.state.content.is_none() {
            break last;
        }
        assert!(last.seq < changed && Instant::now() < deadline, "the checkpoints stay");
        volume.write("more", &format!("{}", volume.head().await)).await;
    };
    assert_eq!((lost.state.kind, lost.state.mode), (PathKind::File, Some(0o644)));
    assert_eq!(reason(volume.restore("lost", lost.seq.0, None).await), "not_retained");
}

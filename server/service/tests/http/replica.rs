//! What our own replicas ask: submissions, events, trees, contents.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use reqwest::Method;
use s0_api::sync::{Outcome, StreamEvent, SubmitError};
use s0_api::volumes::Restoring;
use s0_api::{Client, Error, EventStream, SubmitFailure};
use s0_tree::{
    Chunker, Content, ContentBuilder, ContentId, Expected, NodeId, Reason, Seq, Tree, digest, fold,
};
use serde_json::json;

use crate::rig::{Rig, create, inline, noise, path, registration, submission, write};

async fn entry(events: &mut EventStream) -> (Seq, Option<String>) {
    loop {
        let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await;
        match event.expect("an event").expect("no end").unwrap() {
            StreamEvent::Entry { entry, text } => return (entry.seq, text),
            StreamEvent::Head { .. } => {}
        }
    }
}

async fn head(events: &mut EventStream) -> Seq {
    match events.next().await.unwrap().unwrap() {
        StreamEvent::Head { head, .. } => head,
        StreamEvent::Entry { entry, .. } => panic!("entry {} before the head", entry.seq),
    }
}

#[tokio::test]
async fn a_submission_is_answered_again_when_the_answer_was_lost() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    let registered = rig.client.register(&volume, "a", &registration()).await.unwrap();
    assert_eq!((registered.instance, registered.last_number, registered.head), (1, 0, Seq(0)));
    let first = submission(1, &[create("x", Content::of(b"one"))]);

    // Without its content it is not done, and nothing is remembered.
    let lacking = rig.client.submit(&volume, "a", 1, &first, &[]).await;
    let ids = vec![Content::of(b"one").id];
    assert_eq!(lacking, Err(SubmitFailure::Refused(SubmitError::MissingContents { ids })));

    let answer = rig.client.submit(&volume, "a", 1, &first, &inline(&["one"])).await.unwrap();
    assert_eq!(answer.head, Seq(1));
    assert_eq!(answer.outcomes, [Outcome::Accepted { seq: Seq(1), node: NodeId(1) }]);
    // The answer was lost; the same is sent again, word for word.
    let again = rig.client.submit(&volume, "a", 1, &first, &inline(&["one"])).await.unwrap();
    assert_eq!(again, answer);
    assert_eq!(rig.client.submit(&volume, "a", 1, &first, &[]).await.unwrap(), answer);
    assert_eq!(rig.client.tree(&volume).await.unwrap().1.head(), Seq(1));

    let other = submission(1, &[create("y", Content::empty())]);
    let reused = rig.client.submit(&volume, "a", 1, &other, &[]).await;
    assert_eq!(reused, Err(SubmitFailure::Refused(SubmitError::Reused { number: 1 })));
    let next = submission(2, &[create("y", Content::empty())]);
    rig.client.submit(&volume, "a", 1, &next, &[]).await.unwrap();
    let late = rig.client.submit(&volume, "a", 1, &first, &[]).await;
    assert_eq!(late, Err(SubmitFailure::Refused(SubmitError::Superseded { last: 2 })));

    // A newer host of the replica takes over.
    let taken = rig.client.register(&volume, "a", &registration()).await.unwrap();
    assert_eq!((taken.instance, taken.last_number), (2, 2));
    let third = submission(3, &[create("z", Content::empty())]);
    let fenced = rig.client.submit(&volume, "a", 1, &third, &[]).await;
    assert_eq!(fenced, Err(SubmitFailure::Refused(SubmitError::Fenced { current: 2 })));
    rig.client.submit(&volume, "a", 2, &third, &[]).await.unwrap();

    let unknown = rig.client.submit(&volume, "none", 1, &first, &[]).await;
    assert_eq!(unknown, Err(SubmitFailure::Refused(SubmitError::UnknownReplica)));
    let no_volume = rig.client.submit("none", "a", 1, &first, &[]).await;
    assert!(matches!(no_volume, Err(SubmitFailure::Server(Error::NotFound(_)))));
    let root = s0_tree::Change::unstated(s0_tree::Action::Remove { path: path("") });
    let invalid = rig.client.submit(&volume, "a", 2, &submission(4, &[root]), &[]).await;
    assert!(matches!(invalid, Err(SubmitFailure::Refused(SubmitError::Invalid { index: 0, .. }))));
    let nobody = Client::new("http://127.0.0.1:9", &rig.token).unwrap();
    let unreached = nobody.submit(&volume, "a", 2, &third, &[]).await;
    assert!(matches!(unreached, Err(SubmitFailure::Transport(Error::Unavailable(_)))));
}

#[tokio::test]
async fn a_conflict_keeps_all_three_contents_readable() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    for id in ["a", "b"] {
        rig.client.register(&volume, id, &registration()).await.unwrap();
    }
    let submit = async |replica: &str, number, change, text: &str| {
        let sent = submission(number, &[change]);
        rig.client.submit(&volume, replica, 1, &sent, &inline(&[text])).await.unwrap()
    };
    submit("a", 1, create("x", Content::of(b"base")), "base").await;
    let base = Expected::Node { id: NodeId(1), version: Seq(1) };
    submit("b", 1, write("x", "theirs", base), "theirs").await;
    let answer = submit("a", 2, write("x", "mine", base), "mine").await;
    let Outcome::Conflict { id, reason: Reason::ConcurrentUpdate, .. } = &answer.outcomes[0] else {
        panic!("{answer:?}");
    };
    let all = rig.client.conflicts(&volume, None).await.unwrap();
    assert_eq!(all[0].id, *id);
    assert_eq!(all[0].existing_seq, Some(2));
    let metadata = all[0].metadata.as_ref().unwrap();
    for (key, text) in
        [("content_ref", "mine"), ("existing_content_ref", "theirs"), ("base_content_ref", "base")]
    {
        let content = ContentId::parse(metadata[key].as_str().unwrap()).unwrap();
        let read = rig.client.content(&volume, content, None).await.unwrap();
        assert_eq!(Client::collect(read).await.unwrap(), text.as_bytes(), "{key}");
    }
}

#[tokio::test]
async fn events_carry_on_where_the_reader_was() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    let mut events = rig.client.events(&volume, Seq(0), None).await.unwrap();
    assert_eq!(head(&mut events).await, Seq(0));
    rig.write(&volume, "a", "text").await;
    assert_eq!(entry(&mut events).await, (Seq(1), Some("text".into())));
    assert_eq!(head(&mut events).await, Seq(1), "the head, when there is no more");
    drop(events);
    rig.client.write_file(&volume, "b", vec![0_u8, 1]).await.unwrap();
    rig.client.write_file(&volume, "c", noise(100_000)).await.unwrap();
    let epoch = rig.client.tree(&volume).await.unwrap().0;
    let mut events = rig.client.events(&volume, Seq(1), Some(&epoch)).await.unwrap();
    assert_eq!(head(&mut events).await, Seq(3));
    assert_eq!(entry(&mut events).await, (Seq(2), None), "not text");
    assert_eq!(entry(&mut events).await, (Seq(3), None), "not small");

    let ahead = rig.client.events(&volume, Seq(9), None).await.err().unwrap();
    assert_eq!(ahead, Error::EpochChanged { epoch, head: Seq(3) });
    let other = rig.client.events(&volume, Seq(0), Some("other")).await.err().unwrap();
    assert!(matches!(other, Error::EpochChanged { .. }));

    // By hand, as a browser resumes.
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let url = format!("{}/api/v1/sandboxvolumes/{volume}/sync/events?after=0", rig.url);
    let request = http.get(url).bearer_auth(&rig.token).header("last-event-id", "2");
    let mut body = request.send().await.unwrap().bytes_stream();
    let mut text = String::new();
    while !text.contains("\"seq\":3") {
        text.push_str(std::str::from_utf8(&body.next().await.unwrap().unwrap()).unwrap());
    }
    assert!(text.contains("id: 3\ndata: {") && !text.contains("\"seq\":2"));

    // A deletion ends the streams.
    rig.client.delete_volume(&volume, false).await.unwrap();
    let end = loop {
        match events.next().await.unwrap() {
            Ok(StreamEvent::Head { .. }) => {}
            other => break other,
        }
    };
    assert!(matches!(end, Err(Error::Unavailable(_))), "{end:?}");
}

#[tokio::test]
async fn what_is_not_retained_needs_a_reseed() {
    let rig = Rig::with(|config| config.retention_entries = Some(100)).await;
    let volume = rig.volume().await;
    rig.client.register(&volume, "a", &registration()).await.unwrap();
    // A reader that falls behind the ring would read the journal; this one
    // reads along while the journal is cut behind it.
    let mut events = rig.client.events(&volume, Seq(0), None).await.unwrap();
    for number in 1..=40_u64 {
        let names: Vec<String> = (0..10).map(|at| format!("{number}-{at}")).collect();
        let changes: Vec<_> = names.iter().map(|name| create(name, Content::empty())).collect();
        let sent = submission(number, &changes);
        rig.client.submit(&volume, "a", 1, &sent, &[]).await.unwrap();
        // What a live replica has not read stays; this one has read all of it.
        rig.client.set_cursor(&volume, "a", Seq(number * 10)).await.unwrap();
    }
    for seq in 1..=400 {
        assert_eq!(entry(&mut events).await.0, Seq(seq));
    }
    let floor = async || match rig.client.events(&volume, Seq(0), None).await.err() {
        Some(Error::ReseedRequired { retained_after, head: Seq(400) }) => retained_after,
        other => panic!("{other:?}"),
    };
    // Upkeep follows commits and goes on beside them, so its end is waited for.
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut retained_after = floor().await;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = floor().await;
        if now == retained_after && now >= Seq(200) {
            break;
        }
        assert!(Instant::now() < deadline, "the journal was not cut: {now}");
        retained_after = now;
    }
    assert!(retained_after <= Seq(300), "no more than what was asked for goes");
    let early = rig.client.changes(&volume, Seq(retained_after.0 - 1), 0, 0).await.err().unwrap();
    assert_eq!(early, Error::ReseedRequired { retained_after, head: Seq(400) });
    let rest = rig.client.changes(&volume, retained_after, 2048, 0).await.unwrap();
    assert_eq!(rest.changes.len() as u64, 400 - retained_after.0);
    assert_eq!(rig.client.tree(&volume).await.unwrap().1.len(), 400);

    // It is all there again after a restart, from the checkpoint.
    let dir = rig.shut_down().await;
    let config = crate::rig::config(dir.path());
    let rig = Rig::at(dir, config).await;
    let (_, tree) = rig.client.tree(&volume).await.unwrap();
    assert_eq!((tree.head(), tree.len()), (Seq(400), 400));
    let mut events = rig.client.events(&volume, retained_after, None).await.unwrap();
    for seq in retained_after.0 + 1..=400 {
        assert_eq!(entry(&mut events).await.0, Seq(seq));
    }
}

#[tokio::test]
async fn every_kind_of_write_is_in_the_journal_and_enough_to_do_it_again() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    let mut events = rig.client.events(&volume, Seq(0), None).await.unwrap();
    rig.client.make_directory(&volume, "made/below", true).await.unwrap();
    rig.write(&volume, "a", "1").await;
    rig.write(&volume, "deep/er/b", "1").await;
    rig.write(&volume, "a", "2").await;
    rig.client.write_file(&volume, "large", noise(100_000)).await.unwrap();
    let taken = rig.client.create_snapshot(&volume, "s", "").await.unwrap();
    rig.client.move_file(&volume, "a", "made/a").await.unwrap();
    rig.client.remove_file(&volume, "deep").await.unwrap();
    let sync = format!("/api/v1/sandboxvolumes/{volume}/sync/replicas/r");
    rig.data(Method::PUT, &sync, json!({"case_sensitive": true})).await;
    let head = rig.client.tree(&volume).await.unwrap().1.head();
    let changes = json!([
        {"event_type": "chmod", "path": "/made/a", "mode": 0o755},
        {"event_type": "create", "path": "/empty", "entry_kind": "file"},
        {"event_type": "rename", "old_path": "/made", "path": "/moved"},
    ]);
    let body = json!({"request_id": "1", "base_seq": head, "changes": changes});
    rig.data(Method::POST, &format!("{sync}/changes"), body).await;
    rig.client.restore_snapshot(&volume, &taken.id, &Restoring::default()).await.unwrap();

    // Whoever has the entries has the tree.
    let (_, tree) = rig.client.tree(&volume).await.unwrap();
    let mut folded = Tree::default();
    while folded.head() < tree.head() {
        if let StreamEvent::Entry { entry, .. } = events.next().await.unwrap().unwrap() {
            fold(&mut folded, &entry).expect("it fits");
        }
    }
    assert_eq!(tree, folded);
    // And so has a client of the documented API: each entry says all that it takes.
    let list = rig.client.changes(&volume, Seq(0), 0, 0).await.unwrap();
    assert_eq!(list.changes.len() as u64, tree.head().0);
    for change in &list.changes {
        let told = serde_json::to_value(change).unwrap();
        let has = |field: &str| !told[field].is_null();
        let enough = match told["event_type"].as_str().unwrap() {
            "create" if told["entry_kind"] == "directory" => true,
            "create" => told["entry_kind"] == "file" && has("content_ref"),
            "write" => has("content_ref"),
            "chmod" => has("mode"),
            "rename" => has("old_path"),
            other => other == "remove",
        };
        assert!(enough, "{told}");
    }
}

#[tokio::test]
async fn a_busy_volume_forgets_nothing_of_an_idle_one() {
    let rig = Rig::with(|config| config.retention_entries = Some(100)).await;
    let (idle, busy) = (rig.volume().await, rig.volume().await);
    rig.write(&idle, "a", "1").await;
    rig.client.register(&busy, "w", &registration()).await.unwrap();
    for number in 1..=40_u64 {
        let names: Vec<String> = (0..10).map(|at| format!("{number}-{at}")).collect();
        let changes: Vec<_> = names.iter().map(|name| create(name, Content::empty())).collect();
        rig.client.submit(&busy, "w", 1, &submission(number, &changes), &[]).await.unwrap();
        rig.client.set_cursor(&busy, "w", Seq(number * 10)).await.unwrap();
    }
    // The busy one has been cut.
    let deadline = Instant::now() + Duration::from_secs(20);
    while rig.client.changes(&busy, Seq(0), 0, 0).await.is_ok() {
        assert!(Instant::now() < deadline, "the journal was not cut");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The idle one counts for itself, and so do its seqs.
    rig.write(&idle, "b", "1").await;
    let list = rig.client.changes(&idle, Seq(0), 0, 0).await.unwrap();
    let seqs: Vec<_> = list.changes.iter().map(|one| one.seq).collect();
    assert_eq!((seqs, list.retained_after_seq), (vec![1, 2], 0));
}

#[tokio::test]
async fn many_writers_make_one_gap_free_journal() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    const WRITERS: u64 = 16;
    const EACH: u64 = 25;
    let mut events = rig.client.events(&volume, Seq(0), None).await.unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (client, volume) = (rig.client.clone(), volume.clone());
            tokio::spawn(async move {
                let id = format!("w{writer}");
                client.register(&volume, &id, &registration()).await.unwrap();
                for number in 1..=EACH {
                    let text = format!("{writer} {number}");
                    let change = create(&format!("{id}-{number}"), Content::of(text.as_bytes()));
                    let sent = submission(number, &[change]);
                    let answer =
                        client.submit(&volume, &id, 1, &sent, &inline(&[&text])).await.unwrap();
                    let [Outcome::Accepted { seq, .. }] = answer.outcomes[..] else {
                        panic!("{answer:?}");
                    };
                    // What was answered is there to read.
                    let list = client.changes(&volume, Seq(seq.0 - 1), 1, 0).await.unwrap();
                    assert_eq!(list.changes[0].path, format!("/{id}-{number}"));
                }
            })
        })
        .collect();
    let mut folded = Tree::default();
    while folded.head().0 < WRITERS * EACH {
        match events.next().await.unwrap().unwrap() {
            StreamEvent::Entry { entry, text } => {
                fold(&mut folded, &entry).expect("in order, without gaps");
                assert_eq!(Content::of(text.unwrap().as_bytes()), entry.content().unwrap());
            }
            StreamEvent::Head { head, .. } => assert!(head >= folded.head()),
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let (_, tree) = rig.client.tree(&volume).await.unwrap();
    assert_eq!(digest(&tree), digest(&folded));
    assert_eq!(tree, folded);
}

#[tokio::test]
async fn large_contents_go_before_the_entries_that_name_them() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    rig.client.register(&volume, "a", &registration()).await.unwrap();
    let bytes = noise(2_000_000);
    let mut builder = ContentBuilder::default();
    let mut chunks = Vec::new();
    for chunk in Chunker::new(&bytes[..]) {
        let chunk = chunk.unwrap();
        builder.push(chunk.at.hash, chunk.bytes.len());
        chunks.push((ContentId::Chunk(chunk.at.hash), Bytes::from(chunk.bytes)));
    }
    let (content, recipe) = builder.finish();
    let recipe = (content.id, Bytes::from(recipe.encode()));
    let ids: Vec<ContentId> = chunks.iter().map(|(id, _)| *id).collect();
    assert_eq!(rig.client.missing(&volume, &ids).await.unwrap(), ids);

    // A recipe without its chunks is refused, and so is an entry without its content.
    let early = rig.client.upload(&volume, vec![recipe.clone()]).await;
    assert!(matches!(early, Err(Error::Conflict { .. })), "{early:?}");
    let sent = submission(1, &[create("big", content)]);
    let lacking = rig.client.submit(&volume, "a", 1, &sent, &[]).await;
    let missing = SubmitError::MissingContents { ids: vec![content.id] };
    assert_eq!(lacking, Err(SubmitFailure::Refused(missing)));

    rig.client.upload(&volume, chunks[..3].to_vec()).await.unwrap();
    assert_eq!(rig.client.missing(&volume, &ids).await.unwrap(), ids[3..]);
    let rest = chunks[3..].iter().cloned().chain([recipe]).collect();
    rig.client.upload(&volume, rest).await.unwrap();
    assert!(rig.client.missing(&volume, &ids).await.unwrap().is_empty());

    // Held, and still nobody's to read: no entry of the Volume names it.
    let unnamed = rig.client.content(&volume, content.id, None).await.err().unwrap();
    assert!(matches!(unnamed, Error::NotFound(_)));
    let unnamed = rig.client.fetch_chunks(&volume, Some(content), &ids).await.err().unwrap();
    assert!(matches!(unnamed, Error::NotFound(_)));
    let wrong = Content { size: 7, ..content };
    let lying = submission(1, &[create("big", wrong)]);
    let lying = rig.client.submit(&volume, "a", 1, &lying, &[]).await;
    assert!(matches!(lying, Err(SubmitFailure::Server(Error::BadRequest(_)))));
    rig.client.submit(&volume, "a", 1, &sent, &[]).await.unwrap();

    let read = rig.client.content(&volume, content.id, None).await.unwrap();
    assert!(Client::collect(read).await.unwrap() == bytes);
    let asked: Vec<ContentId> = std::iter::once(content.id).chain(ids.clone()).collect();
    let mut frames = rig.client.fetch_chunks(&volume, Some(content), &asked).await.unwrap();
    let mut found = Vec::new();
    while let Some(frame) = frames.next().await {
        found.push(frame.unwrap());
    }
    assert_eq!(found.iter().map(|(id, _)| *id).collect::<Vec<_>>(), asked);
    let whole: Vec<u8> = found[1..].iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    assert!(whole == bytes);

    // Another Volume of the team holds it, but does not name it.
    let other = rig.volume().await;
    assert!(rig.client.missing(&other, &ids).await.unwrap().is_empty());
    let hidden = rig.client.content(&other, content.id, None).await.err().unwrap();
    assert!(matches!(hidden, Error::NotFound(_)));

    // Bytes that are not what they say, and a body that breaks off.
    let contents = format!("/api/v1/sandboxvolumes/{volume}/sync/contents");
    let mut body = Vec::new();
    s0_api::frames::write_frame(&mut body, Content::of(b"x").id, b"y");
    assert_eq!(rig.raw(Method::POST, &contents, body.clone()).await.0, 400);
    body.truncate(20);
    assert_eq!(rig.raw(Method::POST, &contents, body).await.0, 400);
}

#[tokio::test]
async fn a_chunk_that_the_disk_lost_can_be_sent_again() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    rig.client.register(&volume, "a", &registration()).await.unwrap();
    let bytes = noise(66_000);
    let content = Content::of(&bytes);
    let chunk = (content.id, Bytes::from(bytes.clone()));
    let mut number = 0;
    for length in [0, 65_000, 65_999] {
        rig.client.upload(&volume, vec![chunk.clone()]).await.unwrap();
        let contents = rig.dir.path().join("contents");
        let hash = content.id.hash().to_string();
        let found: Vec<_> = walk(&contents).into_iter().filter(|at| at.ends_with(&hash)).collect();
        std::fs::write(&found[0], &bytes[..length]).unwrap();
        number += 1;
        let sent = submission(number, &[create(&format!("f{number}"), content)]);
        let lacking = rig.client.submit(&volume, "a", 1, &sent, &[]).await;
        let missing = SubmitError::MissingContents { ids: vec![content.id] };
        assert_eq!(lacking, Err(SubmitFailure::Refused(missing)), "{length} bytes are left");
        assert_eq!(rig.client.missing(&volume, &[content.id]).await.unwrap(), [content.id]);
        rig.client.upload(&volume, vec![chunk.clone()]).await.unwrap();
        rig.client.submit(&volume, "a", 1, &sent, &[]).await.unwrap();
        assert!(rig.read(&volume, &format!("f{number}")).await == bytes);
    }
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test]
async fn a_save_is_readable_elsewhere_within_milliseconds() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    rig.client.register(&volume, "a", &registration()).await.unwrap();
    let mut events = rig.client.events(&volume, Seq(0), None).await.unwrap();
    assert_eq!(head(&mut events).await, Seq(0));
    let mut times = Vec::new();
    for number in 1..=50_u64 {
        let text = format!("text {number}");
        let sent =
            submission(number, &[create(&format!("f{number}"), Content::of(text.as_bytes()))]);
        let start = Instant::now();
        let texts = inline(&[&text]);
        let (answer, seen) =
            tokio::join!(rig.client.submit(&volume, "a", 1, &sent, &texts), entry(&mut events),);
        times.push(start.elapsed());
        answer.unwrap();
        assert_eq!(seen, (Seq(number), Some(text)));
    }
    times.sort_unstable();
    // The bound is generous: machines that run tests are busy.
    let median = times[times.len() / 2];
    assert!(median < Duration::from_millis(50), "the median is {median:?}");
}

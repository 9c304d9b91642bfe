//! Streams and answers of a service, as its clients read them.

use s0_api::documented::{ChangeRequest, journal_entry};
use s0_api::frames::{FrameReader, write_frame};
use s0_api::sync::{Answer, StreamEvent, Submission};
use s0_api::{BadEvent, ErrorBody, EventReader, times, watch};
use s0_tree::{Content, Policy, Quota, Seq, Tree, fold};

use crate::{joined, texts};

/// Events: where the stream is cut makes no difference.
pub(crate) fn events(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else { return };
    assert_eq!(read_events(stream, stream.len().max(1)), read_events(stream, usize::from(cut) + 1));
}

fn read_events(stream: &[u8], size: usize) -> (Vec<StreamEvent>, bool) {
    let mut reader = EventReader::default();
    let mut found = Vec::new();
    for piece in stream.chunks(size) {
        reader.push(piece);
        loop {
            match reader.next_event() {
                Ok(Some(event)) => found.push(event),
                Ok(None) => break,
                Err(BadEvent::TooLong | BadEvent::Syntax(_)) => return (found, true),
            }
        }
    }
    (found, false)
}

pub(crate) fn event_seeds() -> Vec<Vec<u8>> {
    let (policy, quota) = (Policy::default(), Quota::default());
    let head = StreamEvent::Head { head: Seq(3), epoch: "e".into(), policy, quota };
    let head = serde_json::to_string(&head).unwrap();
    let mut all = vec![
        format!("\x05: hello\n\nid: 3\ndata: {head}\n\n"),
        format!("\x01data:{head}\r\n\r\n:\n\ndata: {head}\n\n"),
    ];
    for entry in crate::tree::entry_seeds().remove(0).split(|byte| *byte == 0xff) {
        let entry = String::from_utf8_lossy(entry).into_owned();
        all.push(format!("\x07id: 1\ndata: {{\"event\":\"entry\",\"entry\":{entry}}}\n\n"));
    }
    all.into_iter().map(String::into_bytes).collect()
}

/// Frames: where the stream is cut makes no difference, and what is read is written alike.
pub(crate) fn frames(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else { return };
    let read = |size: usize| {
        let mut reader = FrameReader::with_max_recipe(4096);
        let mut found = Vec::new();
        for piece in stream.chunks(size) {
            reader.push(piece);
            loop {
                match reader.next_frame() {
                    Ok(Some(frame)) => found.push(frame),
                    Ok(None) => break,
                    Err(error) => return (found, Some(error)),
                }
            }
        }
        (found, reader.finish().err())
    };
    let (found, failed) = read(stream.len().max(1));
    let mut again = Vec::new();
    found.iter().for_each(|(id, bytes)| write_frame(&mut again, *id, bytes));
    assert!(stream.starts_with(&again));
    assert!(failed.is_some() || again.len() == stream.len());
    assert_eq!((found, failed), read(usize::from(cut) + 1));
}

pub(crate) fn frame_seeds() -> Vec<Vec<u8>> {
    let mut body = vec![9];
    for bytes in [&b""[..], b"one", &[7; 300]] {
        write_frame(&mut body, Content::of(bytes).id, bytes);
    }
    vec![body.clone(), body[..60].to_vec()]
}

/// Answers: each is read, and what is read is written and read alike.
pub(crate) fn answers(data: &[u8]) {
    fn again<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(
        data: &[u8],
    ) {
        if let Ok(value) = serde_json::from_slice::<T>(data) {
            let json = serde_json::to_vec(&value).unwrap();
            assert_eq!(serde_json::from_slice::<T>(&json).unwrap(), value);
        }
    }
    again::<Answer>(data);
    again::<Submission>(data);
    again::<watch::Told>(data);
    again::<s0_api::documented::SyncConflict>(data);
    let _ = serde_json::from_slice::<ErrorBody>(data);
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(time) = times::parse(text)
    {
        assert_eq!(times::parse(&times::rfc3339(time)), Some(time));
    }
}

pub(crate) fn answer_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"type":"event","watch_id":"w","event":"write","path":"/a","old_path":""}"#,
        r#"{"code":"bad_request","message":"no","details":{"reason":"reseed_required"}}"#,
        r#"{"number":1,"instance":"i","base":3,"changes":[{"action":"remove","path":"a","expect":"absent"}]}"#,
        r#"{"head":3,"verdicts":[{"verdict":"accepted","seq":1,"node":1},{"verdict":"held","node":null,"version":2}]}"#,
        "2026-04-28T09:53:20.123456789Z",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// Documented changes, and entries in the documented words.
pub(crate) fn documented(data: &[u8]) {
    let mut tree = Tree::default();
    for text in texts(data) {
        if let Ok(request) = serde_json::from_str::<ChangeRequest>(text) {
            let content = request.content_base64.as_ref().map(|text| Content::of(text.as_bytes()));
            let _ = request.action(content);
        }
        if let Ok(entry) = serde_json::from_str(text) {
            let _ = fold(&mut tree, &entry);
            let told = journal_entry(&entry, ("v", "t"), &tree, &|_| None);
            let json = serde_json::to_vec(&told).unwrap();
            assert_eq!(
                serde_json::from_slice::<s0_api::documented::SyncJournalEntry>(&json).unwrap(),
                told
            );
        }
    }
}

pub(crate) fn documented_seeds() -> Vec<Vec<u8>> {
    let changes = [
        r#"{"event_type":"create","path":"/d","entry_kind":"directory","mode":493}"#,
        r#"{"event_type":"write","path":"/d/f","content_base64":"aGVsbG8=","size_bytes":5}"#,
        r#"{"event_type":"rename","path":"/e","old_path":"/d/f","metadata":{"a":1}}"#,
        r#"{"event_type":"create","path":"/l","entry_kind":"symlink","link_target":"e"}"#,
    ];
    let mut all = crate::tree::entry_seeds();
    all.push(joined(changes));
    all
}

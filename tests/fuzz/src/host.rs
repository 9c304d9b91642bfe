//! Guests of a host, its files, and merges.

use std::fmt::Debug;

use s0_host::Attachment;
use s0_host::fuzzing;
use s0_host::protocol::{Answer, News, Request};
use s0_service::ServiceFile;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{joined, texts};

pub(crate) fn again<T: Serialize + DeserializeOwned + Debug>(data: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(data) {
        let json = serde_json::to_vec(&value).unwrap();
        let read: T = serde_json::from_slice(&json).unwrap();
        assert_eq!(serde_json::to_vec(&read).unwrap(), json);
    }
}

/// Messages over the control socket, in both directions.
pub(crate) fn control(data: &[u8]) {
    again::<Request>(data);
    again::<Answer>(data);
    again::<News>(data);
}

pub(crate) fn control_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"request":"ping"}"#,
        r#"{"request":"content","path":"a/b","side":"mine"}"#,
        r#"{"request":"resolve","paths":["a"],"way":"take_theirs"}"#,
        r#"{"request":"unsaved","documents":["a","b"]}"#,
        r#"{"request":"settle_held","path":"a","end":"keep_both"}"#,
        r#"{"request":"flush","timeout_ms":18446744073709551615}"#,
        r#"{"answer":"error","message":"no"}"#,
        r#"{"answer":"content","size":7}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// Three texts: what only one side changed is taken, what both changed alike too, and every line
/// comes from somewhere.
pub(crate) fn merge(data: &[u8]) {
    let all: Vec<&str> = texts(data).take(3).collect();
    let [base, mine, theirs] = all[..] else { return };
    assert_eq!(fuzzing::merge(Some(base), mine, base), (mine.to_owned(), 0));
    assert_eq!(fuzzing::merge(Some(base), base, theirs), (theirs.to_owned(), 0));
    assert_eq!(fuzzing::merge(Some(base), mine, mine), (mine.to_owned(), 0));
    let (text, overlaps) = fuzzing::merge(Some(base), mine, theirs);
    let (other, others) = fuzzing::merge(Some(base), theirs, mine);
    assert_eq!(overlaps, others);
    if overlaps == 0 {
        assert_eq!(text, other, "the sides are not alike");
        let lines = |text: &str| text.split_inclusive('\n').map(str::to_owned).collect::<Vec<_>>();
        let known: Vec<String> = [base, mine, theirs].map(lines).concat();
        assert!(lines(&text).iter().all(|line| known.contains(line)), "{text:?}");
    }
    let (text, overlaps) = fuzzing::merge(None, mine, theirs);
    assert!(overlaps > 0 || text == mine);
}

pub(crate) fn merge_seeds() -> Vec<Vec<u8>> {
    [
        ["a\nb\nc\n", "A\nb\nc\n", "a\nb\nC\n"],
        ["a\nb\nc\n", "a\nmine\nc\n", "a\ntheirs\nc\n"],
        ["", "x", "y\n"],
        ["a\r\nb\r\n", "b\r\n", "a\r\n"],
        ["a\na\na\na\n", "a\na\n", "a\na\na\na\na\na\n"],
    ]
    .map(joined)
    .into()
}

/// Files of a state directory and of a service.
pub(crate) fn state_files(data: &[u8]) {
    again::<Attachment>(data);
    if let Ok(attachment) = serde_json::from_slice::<Attachment>(data) {
        let _ = attachment.service.client();
    }
    again::<ServiceFile>(data);
}

pub(crate) fn file_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"replica_id":"r","volume_id":"v","root":"/x","service":{"base_url":"http://127.0.0.1:1","token":{"text":"t"}},"pause":"workspace","init":"auto","ignore":["a"]}"#,
        r#"{"url":"http://127.0.0.1:1","pid":1,"version":"0.1.0"}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

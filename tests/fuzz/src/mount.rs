//! Mounts: what the kernel asks, what a mount and the service say to each other, and what goes
//! over the sockets and pipes of a sandbox.

use s0_api::mounts::{Said, Told, write_submission};
use s0_api::sync::Submission;
use s0_sandbox::protocol::{Answer, Request};
use s0_service::fuzzing::{submission, submission_number};
use s0_tree::{Action, AttributeChange, Change, Content, Expected, New, TreePath};

use crate::host::again;

/// Requests of the kernel's, whose first field is made to fit; a request that is cut short is none,
/// or is the same.
pub(crate) fn requests(data: &[u8]) {
    let _ = s0_mount::fuzzing::request(data);
    let framed = |body: &[u8]| {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&length.to_ne_bytes()[..], body].concat()
    };
    let whole = framed(data);
    let Some((_, names)) = s0_mount::fuzzing::request(&whole) else { return };
    for name in names {
        assert!(!name.contains(&0), "a name with a zero in it");
        assert!(name.is_empty() || whole.windows(name.len()).any(|part| part == name));
    }
    // The frame says how long it is, and nothing else is taken.
    assert_eq!(s0_mount::fuzzing::request(&whole[..whole.len() - 1]), None);
}

pub(crate) fn request_seeds() -> Vec<Vec<u8>> {
    let head = |opcode: u32, body: &[u8]| {
        let mut all = opcode.to_ne_bytes().to_vec();
        all.extend(7_u64.to_ne_bytes());
        all.extend(1_u64.to_ne_bytes());
        all.extend([0; 16]);
        all.extend(body);
        all
    };
    let mut write = vec![0; 40];
    write[16] = 4;
    write.extend(b"text");
    let mut forget = 2_u64.to_ne_bytes().to_vec();
    forget.extend([1; 32]);
    vec![
        head(1, b"name\0"),
        head(4, &[0xff; 88]),
        head(6, b"link\0target\0"),
        head(8, b"\xb6\x81\0\0\0\0\0\0\0\0\0\0\0\0\0\0node\0"),
        head(12, b"\x02\0\0\0\0\0\0\0old\0new\0"),
        head(16, &write),
        head(21, b"\x03\0\0\0\0\0\0\0user.a\0abc"),
        head(26, &[7; 64]),
        head(31, &[1; 48]),
        head(42, &forget),
        head(45, b"\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0old\0new\0"),
        head(47, &[3; 56]),
    ]
}

/// What a mount says, and what it is told.
pub(crate) fn messages(data: &[u8]) {
    again::<Said>(data);
    again::<Told>(data);
}

pub(crate) fn message_seeds() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        r#"{"say":"seen","seq":3,"beat":4}"#,
        r#"{"say":"reserve","id":1,"path":"a/b"}"#,
        r#"{"say":"lock","id":1,"node":2,"space":"ranges","holder":3,"range":{"start":0,"end":18446744073709551615,"exclusive":true},"wait":true,"pid":4}"#,
        r#"{"say":"unlock","node":2,"space":"whole","holder":3,"start":0,"end":9}"#,
        r#"{"say":"company"}"#,
        r#"{"type":"welcome","last_number":3}"#,
        r#"{"type":"head","head":3,"epoch":"e"}"#,
        r#"{"type":"answer","number":1,"head":2,"outcomes":[{"outcome":"stale","reason":"concurrent_update"}],"settled":true}"#,
        r#"{"type":"failed","number":1,"full":false}"#,
        r#"{"type":"busy","id":1,"range":null,"pid":0}"#,
        r#"{"type":"alone"}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    for entry in crate::tree::entry_seeds().remove(0).split(|byte| *byte == 0xff).take(3) {
        let entry = String::from_utf8_lossy(entry).into_owned();
        all.push(format!(r#"{{"type":"entry","entry":{entry},"text":"t"}}"#).into_bytes());
    }
    all
}

/// Submissions: what is read is written and read alike, and its number is known beforehand.
pub(crate) fn submissions(data: &[u8]) {
    let Some((read, inline)) = submission(data.to_vec()) else { return };
    assert_eq!(submission_number(data), Some(read.number));
    let written = write_submission(&read, &inline).unwrap();
    let (again, with) = submission(written.clone()).unwrap();
    assert_eq!(with, inline);
    assert_eq!(write_submission(&again, &with).unwrap(), written);
}

pub(crate) fn submission_seeds() -> Vec<Vec<u8>> {
    let content = Content::of(b"text");
    let path = TreePath::new("a/b").unwrap();
    let set = AttributeChange::mode(0o600);
    let create = Action::Create { path: path.clone(), what: New::File { content }, set };
    let write = Action::Write { path, content, set: AttributeChange::default() };
    let changes = vec![Change::new(create, Expected::Absent), Change::unstated(write)];
    let submission = Submission { number: 7, changes };
    let inline = [(content.id, b"text".to_vec().into())];
    vec![
        write_submission(&submission, &inline).unwrap(),
        write_submission(&submission, &[]).unwrap(),
    ]
}

/// What the process is asked that does things once more.
pub(crate) fn deeds(data: &[u8]) {
    if let Some(line) = s0_mount::fuzzing::deed(data) {
        assert!(!line.contains(&b'\n'), "it would be two lines");
        assert_eq!(s0_mount::fuzzing::deed(&line), Some(line));
    }
}

pub(crate) fn deed_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"File":{"at":"a/b","mode":420}}"#,
        r#"{"Symlink":{"at":"a","target":"../x"}}"#,
        r#"{"Link":{"at":"a","existing":"b"}}"#,
        r#"{"Rename":{"from":"a","to":"b"}}"#,
        r#"{"Exchange":{"one":"a","other":"b"}}"#,
        r#"{"RmDir":{"at":"d"}}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// A warden's control socket, in both directions, and what a mount helper says.
pub(crate) fn sandbox_control(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(data) {
        // Numbers in the words of others may be read a little otherwise again.
        let json = serde_json::to_vec(&request).unwrap();
        assert!(!json.contains(&b'\n'), "it would be two lines");
        let read: Request = serde_json::from_slice(&json).unwrap();
        match (&request, &read) {
            (Request::Mount(one), Request::Mount(other)) => {
                assert_eq!((&one.volume_id, &one.path), (&other.volume_id, &other.path));
            }
            _ => assert_eq!(request, read),
        }
    }
    again::<Answer>(data);
    if let Some(said) = s0_sandbox::fuzzing::helper(data) {
        assert_eq!(s0_sandbox::fuzzing::helper(&said), Some(said));
    }
}

pub(crate) fn sandbox_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"request":"ping"}"#,
        r#"{"request":"mount","volume_id":"vol_1","path":"/work","read_only":false,"service":{"base_url":"http://127.0.0.1:1"},"cache_bytes":1}"#,
        r#"{"request":"unmount","path":"/work"}"#,
        r#"{"request":"stop","force":true}"#,
        r#"{"answer":"ok"}"#,
        r#"{"answer":"error","message":"no"}"#,
        r#"{"answer":"status","id":"sb_1","warden":{"pid":1,"started":2},"init":{"pid":3,"started":4},"mounts":[{"volume_id":"vol_1","path":"/work"}]}"#,
        r#"{"mounted":{"uid":0,"gid":0}}"#,
        r#""unmounted""#,
        r#"{"failed":"why"}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

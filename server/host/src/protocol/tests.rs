//! Every message crosses in one line.

use super::*;
use serde::de::DeserializeOwned;

fn crosses<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: &T) {
    let line = serde_json::to_string(message).unwrap();
    assert!(!line.contains('\n'), "{line}");
    assert_eq!(&serde_json::from_str::<T>(&line).unwrap(), message, "{line}");
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn status() -> HostStatus {
    let halt = s0_replica::engine::Halt::Vanished { paths: 200, of: 300 };
    let conflict = s0_replica::state::Conflict {
        id: "c1".into(),
        reason: Reason::ConcurrentUpdate,
        status: ConflictStatus::Open,
        base: Some(What::Directory),
        mine: Some(What::File(s0_tree::Content::of(b"mine"))),
        other: path("a\nb"),
        time: i64::MIN,
    };
    let status = s0_replica::engine::Status {
        condition: s0_replica::engine::Condition::Halted,
        halt: Some(halt),
        connected: false,
        cursor: s0_tree::Seq(u64::MAX),
        pending: s0_replica::engine::Pending { looks: 1, uploads: 2, downloads: 3 },
        progress: s0_replica::engine::Progress { synced: 1, total: 2 },
        conflicts: [(path("a\nb"), conflict)].into(),
        problems: [(path("p"), "why".to_owned())].into(),
        held: [(
            path("h"),
            s0_replica::engine::Held {
                why: s0_replica::engine::HoldReason::Guarded,
                actor: Some(s0_tree::Actor::default()),
                removed: true,
            },
        )]
        .into(),
        withheld: vec![path("w")],
        ignored_incoming: 7,
    };
    HostStatus {
        root: "/work".into(),
        volume_id: "v".into(),
        replica_id: "r".into(),
        sandbox_id: Some("sb_1".into()),
        pid: 7,
        server: None,
        report: Report { status, trouble: Some("trouble".into()) },
    }
}

#[test]
fn requests_cross_in_one_line() {
    for request in [
        Request::Ping,
        Request::Status,
        Request::Flush { timeout_ms: 7 },
        Request::Verify,
        Request::Conflicts,
        Request::Content { path: path("a\nb"), side: Side::Base },
        Request::Resolve { paths: vec![path("é")], way: Way::Merge },
        Request::Resume { confirm_deletions: true },
        Request::Release { paths: Vec::new() },
        Request::Forget { paths: vec![path("a")] },
        Request::Subscribe,
        Request::Stop,
    ] {
        crosses(&request);
    }
}

#[test]
fn answers_cross_in_one_line() {
    let unfinished = vec![Unfinished { path: TreePath::root(), why: "a\nb".into() }];
    let view = ConflictView {
        path: path("a"),
        reason: Reason::CasefoldCollision,
        status: ConflictStatus::Ignored,
        id: "c".into(),
        base: None,
        mine: Some(Thing::Symlink { target: "x".into() }),
        theirs: Some(Thing::from(&What::File(s0_tree::Content::empty()))),
        other: path("A"),
        time: 5,
    };
    for answer in [
        Answer::Status(Box::new(status())),
        Answer::Flushed { done: false, unfinished, ms: 3 },
        Answer::Verified {
            differences: vec![Difference { path: path("a"), why: "why".into() }],
            apart: Apart { conflicts: vec![path("b")], withheld: 2, ..Apart::default() },
        },
        Answer::Conflicts { conflicts: vec![view] },
        Answer::Content { size: u64::MAX },
        Answer::Resolved {
            paths: vec![ResolvedPath { path: path("a"), overlaps: 2, error: Some("no".into()) }],
        },
        Answer::Released { count: 2 },
        Answer::Forgotten { count: 2 },
        Answer::Ok,
        Answer::Error { message: "no".into() },
    ] {
        crosses(&answer);
    }
}

#[test]
fn news_cross_in_one_line() {
    for news in [
        News::Uploaded { path: path("a"), removed: true },
        News::Applied { path: path("a"), removed: false, actor: Some("sb_1".into()) },
        News::Conflict { path: path("a"), reason: Reason::ParentChanged },
        News::Settled { path: path("a"), resolution: "marked".into() },
        News::Kept { path: path("a"), at: path("b") },
        News::DirectoryKept { path: path("a") },
        News::Problem { path: path("a"), why: "why".into() },
        News::Halted { why: "why".into() },
        News::Connection { connected: true },
        News::Status { status: Box::new(status()) },
        News::Missed { count: 3 },
    ] {
        crosses(&news);
    }
}

#[test]
fn what_is_no_request_is_refused() {
    for line in ["", "{}", r#"{"request":"format_disk"}"#, r#"{"request":"flush"}"#] {
        assert!(serde_json::from_str::<Request>(line).is_err(), "{line}");
    }
    // A path is checked where it comes in.
    let out = r#"{"request":"content","path":"../x","side":"mine"}"#;
    assert!(serde_json::from_str::<Request>(out).is_err());
}

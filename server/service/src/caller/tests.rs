use std::path::Path;

use super::*;
use crate::disk::DiskContents;
use crate::holdings::Holdings;
use crate::serve::local_token;
use crate::sqlite::SqliteJournal;
use crate::volume::Retention;

const MINUTE: Duration = Duration::from_secs(60);

/// A service, as if it had been started then.
async fn service(dir: &Path, started: Time) -> Service {
    let journal = Arc::new(SqliteJournal::open(&dir.join("journal.db")).unwrap());
    let contents = Arc::new(DiskContents::open(&dir.join("contents")).unwrap());
    let holdings = Holdings::new(journal.clone(), contents);
    let retention = Retention {
        entries: 1000,
        age: None,
        unread: 4,
        checkpoint_every: 4096,
        pinned: Duration::from_secs(1),
    };
    let closing = tokio::sync::watch::channel(false).1;
    let mut service = Service::new(journal, holdings, retention, closing);
    service.awake = Awake::since(started);
    service.journal.put_token(local_token("secret")).await.unwrap();
    service
}

/// A token for a mount.
async fn mount_token(service: &Service) -> String {
    let caller = service.caller("secret").await.unwrap();
    let purpose = Purpose::Mount { volume: "v".into(), read_only: false };
    service.limited_token(&caller, purpose).await.unwrap().token
}

fn pass(service: &mut Service, time: Duration) {
    service.awake.since = later(service.awake.since, time);
}

async fn end_of(service: &Service, token: &str) -> Time {
    let token = service.journal.token(Hash::of(token.as_bytes())).await.unwrap().unwrap();
    token.expires.unwrap()
}

const EXPIRED: Problem = Problem::Unauthorized("the token has expired");

#[tokio::test]
async fn a_limited_token_lives_as_long_as_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let mut service = service(dir.path(), now()).await;
    let token = mount_token(&service).await;
    let caller = service.caller(&token).await.unwrap();
    let begun = end_of(&service, &token).await;
    // Not each use is written down.
    pass(&mut service, 2 * MINUTE);
    assert!(service.is_good(&caller).await);
    assert_eq!(end_of(&service, &token).await, begun);
    for _ in 0..5 {
        pass(&mut service, 50 * MINUTE);
        assert!(service.is_good(&caller).await, "by a connection that is there");
    }
    for _ in 0..5 {
        pass(&mut service, 50 * MINUTE);
        service.caller(&token).await.unwrap();
    }
    assert!(end_of(&service, &token).await > later(begun, 8 * 60 * MINUTE));
    pass(&mut service, 61 * MINUTE);
    assert!(!service.is_good(&caller).await);
    assert_eq!(service.caller(&token).await.unwrap_err(), EXPIRED);
}

#[tokio::test]
async fn it_outlives_a_service_that_does_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let first = service(dir.path(), now()).await;
    let (used, unused) = (mount_token(&first).await, mount_token(&first).await);
    first.journal.delete_token(Hash::of(unused.as_bytes())).await.unwrap();
    drop(first);
    // Two nights and a day later.
    let mut next = service(dir.path(), later(now(), 36 * 60 * MINUTE)).await;
    assert_eq!(next.caller(&used).await.unwrap_err(), EXPIRED);
    next.keep_limited_tokens().await.unwrap();
    next.caller(&used).await.unwrap();
    assert!(next.caller(&unused).await.is_err());
    // One that ended while a service ran stays so.
    pass(&mut next, 61 * MINUTE);
    let (close, closing) = tokio::sync::watch::channel(false);
    next.closing = closing;
    let next = Arc::new(next);
    let forgetting = tokio::spawn(forget_unused_tokens(next.clone()));
    while !next.journal.limited_tokens("local").await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    close.send_replace(true);
    forgetting.await.unwrap();
    next.keep_limited_tokens().await.unwrap();
    assert!(next.caller(&used).await.is_err());
    // One that nobody has used for months is forgotten.
    let token = mount_token(&next).await;
    let later = service(dir.path(), later(now(), 90 * 24 * 60 * MINUTE)).await;
    later.keep_limited_tokens().await.unwrap();
    let unknown = Problem::Unauthorized("the token is not known");
    assert_eq!(later.caller(&token).await.unwrap_err(), unknown);
}

#[tokio::test]
async fn it_ends_with_the_token_that_it_was_made_with() {
    let dir = tempfile::tempdir().unwrap();
    let service = service(dir.path(), now()).await;
    let parent = service.caller("secret").await.unwrap().token;
    let token = mount_token(&service).await;
    let caller = service.caller(&token).await.unwrap();
    for ended in [
        TokenRecord { active: false, ..parent.clone() },
        TokenRecord { expires: Some(Time(1)), ..parent.clone() },
    ] {
        service.journal.put_token(ended).await.unwrap();
        assert!(!service.is_good(&caller).await);
        service.journal.put_token(parent.clone()).await.unwrap();
        assert!(service.is_good(&caller).await);
    }
    service.journal.delete_token(parent.hash).await.unwrap();
    assert!(!service.is_good(&caller).await);
}

//! Who may use a workspace, and what is believed of a state directory.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use s0_host::host::{self, HeldRoot};
use s0_host::protocol::News;
use s0_host::{
    Attachment, AttachmentDir, Control, ControlError, HostError, InitFrom, PauseOn, ServiceAddress,
    StateDir, StateError, canonical,
};

fn attachment(base: &Path) -> (StateDir, AttachmentDir, Attachment) {
    let root = base.join("root");
    std::fs::create_dir_all(&root).unwrap();
    let attachment = Attachment {
        replica_id: "rep_1".into(),
        volume_id: "vol_1".into(),
        root: root.canonicalize().unwrap(),
        service: ServiceAddress::Local(base.join("data")),
        sandbox_id: None,
        pause: PauseOn::default(),
        init: InitFrom::default(),
        ignore: Vec::new(),
        guarded: None,
    };
    let state = StateDir::new(base.join("state"));
    let directory = state.attachment("rep_1");
    directory.save(&attachment).unwrap();
    (state, directory, attachment)
}

#[tokio::test]
async fn a_lock_that_is_a_link_is_refused_and_its_target_stays() {
    let base = tempfile::tempdir().unwrap();
    let (_, directory, attachment) = attachment(base.path());
    let precious = base.path().join("precious");
    std::fs::write(&precious, "mine\n").unwrap();
    HeldRoot::take(&attachment.root).unwrap().prepare().unwrap();
    std::fs::remove_file(attachment.root.join(".s0/lock")).unwrap();
    symlink(&precious, attachment.root.join(".s0/lock")).unwrap();

    let never = std::future::pending();
    let refused = s0_host::run(&directory, false, never).await.unwrap_err().to_string();
    assert!(refused.contains(".s0/lock"), "{refused}");
    assert!(HeldRoot::take(&attachment.root).is_err());
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "mine\n");
}

#[tokio::test]
async fn whoever_listens_is_told_how_it_is_first() {
    let base = tempfile::tempdir().unwrap();
    let (_, directory, attachment) = attachment(base.path());
    HeldRoot::take(&attachment.root).unwrap().prepare().unwrap();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let host = tokio::spawn({
        let directory = directory.clone();
        async move { s0_host::run(&directory, false, async move { drop(ended.await) }).await }
    });
    let listening = async {
        for _ in 0..3 {
            let control = loop {
                match Control::connect(&directory).await {
                    Ok(control) => break control,
                    Err(ControlError::NotRunning) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            };
            let first = control.subscribe().await.unwrap().next().await.unwrap();
            assert!(matches!(first, News::Status { .. }), "{first:?}");
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), listening).await.expect("a status");
    end.send(()).unwrap();
    host.await.unwrap().unwrap();
}

#[test]
fn a_root_is_held_by_one_only_and_is_cleared_by_who_holds_it() {
    let base = tempfile::tempdir().unwrap();
    let (_, _, attachment) = attachment(base.path());
    let held = HeldRoot::take(&attachment.root).unwrap();
    assert!(held.is_new);
    held.prepare().unwrap();
    let second = HeldRoot::find(&attachment.root).map(drop).unwrap_err();
    let pid = Some(std::process::id());
    assert!(matches!(&second, HostError::RootTaken { pid: said, .. } if *said == pid), "{second}");
    assert!(held.clear().unwrap());
    assert!(HeldRoot::find(&attachment.root).unwrap().is_none());
    assert!(!attachment.root.join(".s0").exists());
}

#[tokio::test]
async fn a_host_that_waited_for_a_detach_does_not_start() {
    let base = tempfile::tempdir().unwrap();
    let (_, directory, _) = attachment(base.path());
    let claim = host::claim(&directory).await.unwrap();
    let host = tokio::spawn({
        let directory = directory.clone();
        async move { s0_host::run(&directory, false, std::future::pending()).await }
    });
    // It may come to the lock before the removal or after it.
    tokio::task::yield_now().await;
    directory.remove().unwrap();
    drop(claim);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), host).await;
    let ended = ended.expect("it ends").unwrap();
    assert!(matches!(ended, Err(HostError::NotAttached)), "{ended:?}");
}

#[tokio::test]
async fn a_host_that_says_nothing_is_given_up() {
    let base = tempfile::tempdir().unwrap();
    let (_, directory, _) = attachment(base.path());
    let _silent = UnixListener::bind(directory.path().join("host.sock")).unwrap();
    let asked = Control::connect(&directory).await.map(drop);
    assert!(matches!(asked, Err(ControlError::NoAnswer { .. })), "{asked:?}");
}

#[test]
fn a_local_service_is_where_its_file_says_only_as_long_as_it_runs() {
    let base = tempfile::tempdir().unwrap();
    let said = r#"{"url": "http://127.0.0.1:7", "pid": 1}"#;
    std::fs::write(base.path().join("service.json"), said).unwrap();
    std::fs::write(base.path().join("token"), "secret\n").unwrap();
    let service = ServiceAddress::Local(base.path().into());
    assert!(service.url().is_err() && service.client().is_err(), "it never ran");
    let lock = std::fs::File::create(base.path().join("lock")).unwrap();
    assert!(service.url().unwrap_err().contains("s0 serve --background"), "it was killed");
    lock.try_lock().unwrap();
    assert_eq!(service.url().as_deref(), Ok("http://127.0.0.1:7"));
    assert!(service.client().is_ok());
}

#[test]
fn what_is_damaged_is_named_beside_what_is_sound() {
    let base = tempfile::tempdir().unwrap();
    let (state, _, attachment) = attachment(base.path());
    let bad = state.attachment("rep_bad");
    bad.save(&attachment).unwrap();
    std::fs::write(bad.path().join("attachment.json"), "{").unwrap();
    // One that is being removed now.
    std::fs::create_dir(state.attachment("rep_gone").path()).unwrap();
    assert_eq!(state.list().unwrap().len(), 1);
    let damaged = state.damaged().unwrap();
    assert_eq!(damaged.len(), 1);
    assert_eq!(damaged[0].0.replica(), "rep_bad");
    assert!(matches!(damaged[0].1, StateError::Damaged { .. }));
    assert!(damaged[0].1.to_string().contains("s0 sync detach rep_bad"), "{}", damaged[0].1);
}

#[tokio::test]
async fn one_attaches_at_a_time() {
    let base = tempfile::tempdir().unwrap();
    let state = StateDir::new(base.path().join("state"));
    let first = state.lock().await.unwrap();
    let second = tokio::spawn({
        let state = state.clone();
        async move { state.lock().await.map(drop) }
    });
    tokio::task::yield_now().await;
    assert!(!second.is_finished());
    drop(first);
    second.await.unwrap().unwrap();
}

#[test]
fn a_path_is_known_without_links_even_where_nothing_is_yet() {
    let base = tempfile::tempdir().unwrap();
    let real = base.path().canonicalize().unwrap().join("real");
    std::fs::create_dir(&real).unwrap();
    symlink(&real, base.path().join("link")).unwrap();
    for (given, is) in [
        ("link", "real"),
        ("link/a/b", "real/a/b"),
        ("none/x", "none/x"),
        ("real/../none/../real/x", "real/x"),
    ] {
        let wanted = base.path().canonicalize().unwrap().join(is);
        assert_eq!(canonical(&base.path().join(given)), wanted, "{given}");
    }
}

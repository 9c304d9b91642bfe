//! Mounts: what becomes of what was taken from one that is gone, and how one comes beside
//! another.

use std::time::{Duration, Instant};

use s0_api::mounts::{MountQuery, Said, Told, write_submission};
use s0_api::sync::Outcome;
use s0_api::volumes::NewVolume;
use s0_api::{MountReader, MountWriter};
use s0_tree::{Change, Content, Expected, Seq};

use crate::rig::{Rig, create, inline, path, registration, submission, write};

const DEADLINE: Duration = Duration::from_secs(30);

async fn connect(rig: &Rig, volume: &str, session: &str) -> (MountWriter, MountReader) {
    let (epoch, tree) = rig.client.tree(volume).await.unwrap();
    let query = MountQuery {
        after: tree.head().0,
        epoch,
        sandbox_id: Some("sb_1".into()),
        host: "h".into(),
        mount_point: "/workspace".into(),
        read_only: false,
    };
    rig.client.mount(volume, session, &query).await.unwrap()
}

/// The next message that is looked for.
async fn told<T>(reader: &mut MountReader, look: impl Fn(Told) -> Option<T>) -> T {
    let looking = async {
        loop {
            let told = reader.next().await.unwrap().expect("the connection to stay");
            if let Some(found) = look(told) {
                return found;
            }
        }
    };
    tokio::time::timeout(DEADLINE, looking).await.expect("to be told")
}

#[tokio::test]
async fn what_was_taken_from_a_mount_that_is_gone_is_a_conflict() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    rig.client.register(&volume, "developer", &registration()).await.unwrap();
    let old = Content::of(b"old");
    let made = submission(1, &[create("f", old), create("g", old)]);
    let made = rig.client.submit(&volume, "developer", 1, &made, &inline(&["old"])).await.unwrap();
    let (mut writer, mut reader) = connect(&rig, &volume, "mnt_1").await;
    let number = told(&mut reader, |it| match it {
        Told::Welcome { last_number } => Some(last_number + 1),
        _ => None,
    });
    let number = number.await;

    // The developer is faster.
    let version_of = |at: usize| {
        let Outcome::Accepted { seq: version, node: id } = made.outcomes[at] else { panic!() };
        Expected::Node { id, version }
    };
    let save = |name: &str, at| write(name, "developer", version_of(at));
    let saved = submission(2, &[save("f", 0), save("g", 1)]);
    rig.client.submit(&volume, "developer", 1, &saved, &inline(&["developer"])).await.unwrap();
    let over =
        |name: &str, at| Change { looks_again: true, ..write(name, "agent", version_of(at)) };
    let changes = vec![over("f", 0), over("g", 1)];
    let closed = submission(number, &changes);
    let message = write_submission(&closed, &inline(&["agent"])).unwrap();
    writer.submit(message.into()).await.unwrap();
    told(&mut reader, |it| (it == Told::Taken { number }).then_some(())).await;
    let outcomes = told(&mut reader, |it| match it {
        Told::Answer { outcomes, .. } => Some(outcomes),
        _ => None,
    });
    let outcomes = outcomes.await;
    assert!(outcomes.iter().all(|it| matches!(it, Outcome::Stale { .. })), "{outcomes:?}");
    assert_eq!(rig.client.conflicts(&volume, None).await.unwrap(), []);

    // It has tried one of them again, says so, and is killed.
    writer.say(&Said::Concluded { number, change: 1 }).await.unwrap();
    writer.say(&Said::Seen { seq: Seq(0), beat: 7 }).await.unwrap();
    told(&mut reader, |it| matches!(it, Told::Heard { beat: 7, .. }).then_some(())).await;
    drop((writer, reader));
    let begun = Instant::now();
    let conflicts = loop {
        let conflicts = rig.client.conflicts(&volume, None).await.unwrap();
        if !conflicts.is_empty() {
            break conflicts;
        }
        assert!(begun.elapsed() < DEADLINE, "it is not recorded");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let [conflict] = &conflicts[..] else { panic!("{conflicts:?}") };
    assert_eq!(conflict.path, "/f");
    let metadata = serde_json::to_value(&conflict.metadata).unwrap();
    assert_eq!(metadata["sandbox_id"], "sb_1");
    assert_eq!(metadata["content_ref"], serde_json::to_value(Content::of(b"agent").id).unwrap());
}

#[tokio::test]
async fn a_mount_waits_until_another_has_said_what_it_made_alone() {
    let rig = Rig::start().await;
    let wanted = NewVolume { access_mode: Some("RWX".into()), ..NewVolume::default() };
    let volume = rig.client.create_volume(&wanted).await.unwrap().id;
    let (mut writer, mut reader) = connect(&rig, &volume, "mnt_1").await;
    told(&mut reader, |it| (it == Told::Alone).then_some(())).await;

    let comes = connect(&rig, &volume, "mnt_2");
    let says = async {
        told(&mut reader, |it| (it == Told::Company).then_some(())).await;
        writer.say(&Said::Reserve { id: 1, path: path("lock") }).await.unwrap();
        writer.say(&Said::Company).await.unwrap();
    };
    let ((mut other, mut hears), ()) = tokio::join!(comes, says);
    other.say(&Said::Reserve { id: 5, path: path("lock") }).await.unwrap();
    let granted = told(&mut hears, |it| match it {
        Told::Reserved { id: 5, granted } => Some(granted),
        _ => None,
    });
    assert!(!granted.await, "the first has made it");
    other.say(&Said::Bye).await.unwrap();
    told(&mut reader, |it| (it == Told::Alone).then_some(())).await;

    // One that does not answer is let go, however often it says that it is there.
    let silent = async {
        told(&mut reader, |it| (it == Told::Company).then_some(())).await;
        for beat in 0.. {
            let seen = Said::Seen { seq: Seq(0), beat };
            if writer.say(&seen).await.is_err() || !matches!(reader.next().await, Ok(Some(_))) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (both, ()) = tokio::join!(connect(&rig, &volume, "mnt_3"), silent);
    let (_, mut hears) = both;
    told(&mut hears, |it| (it == Told::Alone).then_some(())).await;
}

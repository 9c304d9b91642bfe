//! How a Volume comes into memory.

use s0_tree::{Seq, Tree};
use tracing::error;

use super::{PAGE, unpack};
use crate::journal::{Journal, Stored};
use crate::ledger::Ledger;
use crate::problem::Problem;

/// A Volume as it is stored: the ledger at its head, and the seq of the checkpoint
/// that it was made from. The newest checkpoint does, and where that is damaged
/// an older one, from which the journal is retained.
pub(super) async fn load(
    journal: &dyn Journal,
    volume: &str,
) -> Result<Option<(Stored, Ledger, Seq)>, Problem> {
    let Some(stored) = journal.load(volume).await? else { return Ok(None) };
    let mut damage = None;
    for seq in starts(&stored) {
        match rebuild(journal, &stored, seq).await {
            Ok(ledger) => return Ok(Some((stored, ledger, seq))),
            Err(Problem::Internal(why)) => {
                error!(volume, checkpoint = seq.0, why, "a Volume cannot be read from here");
                damage.get_or_insert(why);
            }
            Err(other) => return Err(other),
        }
    }
    let why = damage.unwrap_or_else(|| "it has no checkpoint".into());
    Err(Problem::Internal(format!("the Volume {volume} cannot be read: {why}")))
}

/// From where the journal leads to the head, the best first.
fn starts(stored: &Stored) -> Vec<Seq> {
    let retained = stored.retained_after..=stored.head;
    let checkpoints = stored.checkpoints.iter().rev().filter(|seq| retained.contains(seq));
    let mut starts: Vec<Seq> = checkpoints.copied().collect();
    // A journal that is whole needs no checkpoint.
    if stored.retained_after == Seq(0) && starts.last() != Some(&Seq(0)) {
        starts.push(Seq(0));
    }
    starts
}

async fn rebuild(
    journal: &dyn Journal,
    Stored { record, head, replicas, .. }: &Stored,
    start: Seq,
) -> Result<Ledger, Problem> {
    let damaged = |why: &dyn std::fmt::Display| Problem::Internal(why.to_string());
    let tree = match journal.checkpoint(&record.id, start).await? {
        Some(checkpoint) => unpack(checkpoint.packed).await?,
        None if start == Seq(0) => Tree::default(),
        None => return Err(damaged(&format!("the checkpoint at {start} is missing"))),
    };
    let mut tail = Vec::new();
    let mut at = start;
    while at < *head {
        let page = journal.entries(&record.id, at, PAGE).await?;
        let Some(last) = page.last() else {
            return Err(damaged(&format!("entry {} is missing", at.next())));
        };
        at = last.seq;
        tail.extend(page);
    }
    tail.retain(|entry| entry.seq <= *head);
    let ledger = Ledger::rebuild(record.epoch.clone(), tree, tail.into_iter(), replicas.clone())
        .map_err(|misfit| damaged(&misfit))?;
    Ok(ledger.owned_by(record.uid, record.gid).within(record.quota))
}

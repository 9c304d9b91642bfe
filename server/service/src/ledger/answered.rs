//! What submissions were answered.

use s0_api::sync::Answer;
use s0_tree::Hash;
use serde::{Deserialize, Serialize};

/// A submission that was answered, so that it can be answered again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The submission's number.
    pub number: u64,
    /// The SHA-256 of the submission as JSON.
    pub body: Hash,
    /// What was answered.
    pub answer: Answer,
    /// What was answered before, of a mount: it sends several before the first is answered,
    /// and sends all of them again when it does not know how they ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Answered>,
}

impl Answered {
    /// The newest of this and the answers that are kept, with as many earlier ones as there
    /// is to be room for.
    pub(super) fn on_top_of(mut self, known: Option<&Self>, kept: usize) -> Self {
        let Some(known) = known else { return self };
        let mut earlier = known.earlier.clone();
        let mut newest = Self { earlier: Vec::new(), ..known.clone() };
        if newest.number < self.number {
            std::mem::swap(&mut newest, &mut self);
        }
        earlier.push(self);
        earlier.sort_by_key(|it| std::cmp::Reverse(it.number));
        earlier.truncate(kept.saturating_sub(1));
        Self { earlier, ..newest }
    }

    /// The answer to a submission, if it is kept.
    pub(super) fn to(&self, number: u64) -> Option<&Self> {
        std::iter::once(self).chain(&self.earlier).find(|it| it.number == number)
    }

    /// The oldest answer that is kept.
    pub(super) fn oldest(&self) -> u64 {
        self.earlier.last().map_or(self.number, |oldest| oldest.number)
    }
}

#[cfg(test)]
mod tests {
    use s0_tree::Seq;

    use super::*;

    fn answered(number: u64) -> Answered {
        let answer = Answer { head: Seq(number), outcomes: Vec::new() };
        Answered { number, body: Hash([0; 32]), answer, earlier: Vec::new() }
    }

    #[test]
    fn the_newest_are_kept_in_whatever_order_they_come() {
        let mut known: Option<Answered> = None;
        for number in [1, 2, 4, 3, 5] {
            known = Some(answered(number).on_top_of(known.as_ref(), 3));
        }
        let known = known.unwrap();
        assert_eq!((known.number, known.oldest()), (5, 3));
        for number in 3..=5 {
            assert_eq!(known.to(number).unwrap().answer.head, Seq(number));
        }
        assert_eq!(known.to(2), None);
        // A replica has one only.
        let one = answered(6).on_top_of(Some(&known), 1);
        assert_eq!((one.number, one.oldest(), one.earlier.len()), (6, 6, 0));
    }
}

//! What Keep does to one path, and what Revert would do.

use s0_tree::TreePath;

use crate::choice::{Choice, Why};
use crate::item::{Body, Write};
use crate::lines::Lines;
use crate::record::{Inside, Record};
use crate::revert::Action;

impl Record {
    /// Whether what was chosen takes in all that differs as a whole. Who made it
    /// cannot be told apart once it was several agents.
    fn takes_whole(&self, choice: &Choice) -> Result<bool, Why> {
        if choice.hunks.is_some() || !self.differs_as_a_whole() {
            return Ok(false);
        }
        let theirs = self.by.iter().filter(|write| choice.is_by(write)).count();
        match theirs {
            _ if theirs == self.by.len() => Ok(true),
            0 => Ok(false),
            _ => Err(Why::OtherAgents),
        }
    }

    fn takes_name(&self, choice: &Choice) -> bool {
        let is_by = |write| choice.hunks.is_none() && choice.is_by(write);
        self.renamed.as_ref().is_some_and(|renamed| is_by(&renamed.write))
    }

    /// What was chosen is reviewed from now on. Answers whose it was.
    pub(crate) fn keep(&mut self, choice: &Choice) -> (Vec<Write>, Option<Why>) {
        let whole = self.takes_whole(choice);
        let mut kept = match &mut self.inside {
            Inside::Lines(lines) => lines.keep(choice),
            Inside::Whole(_) => Vec::new(),
        };
        if whole == Ok(true) {
            kept.append(&mut self.by);
            self.reviewed_mode = self.now.as_ref().map(|now| now.mode);
            self.inside =
                match (&self.now, std::mem::replace(&mut self.inside, Inside::Whole(None))) {
                    (None, _) => Inside::Lines(Lines::default()),
                    (Some(now), Inside::Whole(_)) => Inside::Whole(Some(Body::of(&now.what))),
                    (Some(_), lines) => lines,
                };
        }
        if self.takes_name(choice) {
            kept.extend(self.renamed.take().map(|renamed| renamed.write));
        }
        self.tidy();
        (kept, whole.err())
    }

    /// What is to be done so that what was chosen is as it was reviewed.
    pub(crate) fn revert(
        &mut self,
        path: &TreePath,
        choice: &Choice,
    ) -> (Vec<Action>, Option<Why>) {
        let whole = match self.takes_whole(choice) {
            Ok(true) if self.edited => Err(Why::EditedSince),
            whole => whole,
        };
        let takes_whole = whole == Ok(true);
        let mode = self.reviewed_mode.filter(|_| takes_whole);
        let write = |body, now_mode: Option<u32>, expect| Action::Write {
            path: path.clone(),
            body,
            mode: mode.or(now_mode).unwrap_or_default(),
            expect,
        };
        let is_another_whole = self.is_another_whole();
        let mut actions = Vec::new();
        match (&mut self.inside, &self.now) {
            (Inside::Lines(lines), Some(now)) => {
                let was = lines.current();
                let text = lines.ask_to_revert(choice).current();
                let state = now.clone();
                if takes_whole && self.reviewed_mode.is_none() && text.is_empty() {
                    actions.push(Action::Remove { path: path.clone(), expect: state });
                } else if text != was {
                    actions.push(write(Body::Text(text), Some(now.mode), Some(state)));
                }
            }
            (Inside::Lines(lines), None) if takes_whole => {
                let text = lines.ask_to_revert(choice).current();
                actions.push(write(Body::Text(text), None, None));
            }
            (Inside::Whole(Some(reviewed)), now) if takes_whole && is_another_whole => {
                let mode = now.as_ref().map(|now| now.mode);
                actions.push(write(reviewed.clone(), mode, now.clone()));
            }
            (Inside::Whole(None), Some(now)) if takes_whole => {
                actions.push(Action::Remove { path: path.clone(), expect: now.clone() });
            }
            _ => {}
        }
        if let (true, Some(now), Some(mode)) = (actions.is_empty(), &self.now, mode)
            && mode != now.mode
        {
            actions.push(Action::SetMode { path: path.clone(), mode, expect: now.clone() });
        }
        if let Some(renamed) = self.renamed.as_ref().filter(|_| self.takes_name(choice)) {
            actions.push(Action::Rename { from: path.clone(), to: renamed.from.clone() });
        }
        (actions, whole.err())
    }
}

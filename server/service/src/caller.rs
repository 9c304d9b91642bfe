//! Who asks, and what the token that was shown opens.
//!
//! A limited token was made with another one, for one thing: a mount has one, so that whoever
//! takes it from there has one Volume for an hour. It lives as long as it is used.

use std::sync::Arc;
use std::time::{Duration, Instant};

use s0_api::times::rfc3339;
use s0_api::tokens::{LimitedToken, Permission, Role};
use s0_tree::{Hash, Time};
use tokio::time::{MissedTickBehavior, interval};

use crate::journal::{Kept, Limit, Purpose, TokenRecord};
use crate::problem::Problem;
use crate::serve::new_token;
use crate::service::{Service, now};
use crate::volume::new_id;

/// How long a limited token lives that nobody uses.
const UNUSED: Duration = Duration::from_secs(60 * 60);
/// How much of that may pass until it is noted again that it is used.
const NOTED: Duration = Duration::from_secs(5 * 60);
/// How long one that was in use is kept while no service runs.
const AWAY: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How many limited tokens a team may have.
const MAX_LIMITED: usize = 10_000;

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) team: String,
    pub(crate) user: String,
    pub(crate) token: TokenRecord,
}

impl Caller {
    /// All that the token allows, of what it is for.
    pub(crate) fn permissions(&self) -> Vec<Permission> {
        let allows = |permission: Permission| match self.token.limit.as_ref().map(|it| &it.purpose)
        {
            None => self.token.roles.iter().any(|role| role.permissions().contains(&permission)),
            Some(Purpose::Mount { read_only, .. }) => match permission {
                Permission::ReadVolume => true,
                Permission::WriteVolume => !read_only,
                _ => false,
            },
            Some(Purpose::Attend { .. }) => false,
        };
        Permission::ALL.into_iter().filter(|permission| allows(*permission)).collect()
    }

    /// Refuses who may not do this.
    pub(crate) fn may(&self, permission: Permission) -> Result<(), Problem> {
        if self.permissions().contains(&permission) { Ok(()) } else { Err(Problem::FORBIDDEN) }
    }

    /// Refuses who may not manage tokens. Limited tokens have no roles.
    pub(crate) fn is_admin(&self) -> Result<(), Problem> {
        if self.token.roles.contains(&Role::Admin) { Ok(()) } else { Err(Problem::FORBIDDEN) }
    }
}

/// A clock that stands still while the service does, or the whole machine: a laptop that was
/// shut for the night, or a clock that was set, ends no mount.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Awake {
    since: Time,
    started: Instant,
}

impl Awake {
    pub(crate) fn since(since: Time) -> Self {
        Self { since, started: Instant::now() }
    }

    fn now(self) -> Time {
        later(self.since, self.started.elapsed())
    }
}

fn later(time: Time, by: Duration) -> Time {
    Time(time.0.saturating_add(nanos(by)))
}

fn earlier(time: Time, by: Duration) -> Time {
    Time(time.0.saturating_sub(nanos(by)))
}

fn nanos(of: Duration) -> i64 {
    i64::try_from(of.as_nanos()).unwrap_or(i64::MAX)
}

/// Refuses a token that was revoked, or has ended at a time.
fn is_open(token: &TokenRecord, time: Time) -> Result<(), Problem> {
    if !token.active {
        return Err(Problem::Unauthorized("the token was revoked"));
    }
    if token.expires.is_some_and(|expires| expires <= time) {
        return Err(Problem::Unauthorized("the token has expired"));
    }
    Ok(())
}

impl Service {
    /// Who a token stands for. It is looked up by its hash, so how long that
    /// takes says nothing about the token.
    pub(crate) async fn caller(&self, token: &str) -> Result<Caller, Problem> {
        let token = self.opens(Hash::of(token.as_bytes())).await?;
        Ok(Caller { team: token.team.clone(), user: token.user.clone(), token })
    }

    /// Whether the caller's token opens what it opened. A store that does not answer takes
    /// nobody's access away.
    pub(crate) async fn is_good(&self, caller: &Caller) -> bool {
        !matches!(self.opens(caller.token.hash).await, Err(Problem::Unauthorized(_)))
    }

    /// The token with a hash, unless it opens nothing. One that is limited is in use thereby.
    async fn opens(&self, hash: Hash) -> Result<TokenRecord, Problem> {
        let known = self.journal.token(hash).await?;
        let token = known.ok_or(Problem::Unauthorized("the token is not known"))?;
        let Some(limit) = &token.limit else {
            is_open(&token, now())?;
            return Ok(token);
        };
        let time = self.awake.now();
        is_open(&token, time)?;
        match self.journal.token(limit.parent).await? {
            Some(parent) if is_open(&parent, now()).is_ok() => {}
            _ => return Err(Problem::Unauthorized("the token that it was made with has ended")),
        }
        let until = later(time, UNUSED);
        if token.expires.is_some_and(|expires| expires < earlier(until, NOTED))
            && let Err(error) = self.journal.prolong_token(hash, until).await
        {
            // There is most of an hour left in which that may succeed.
            tracing::warn!(%error, "it could not be noted that a limited token is in use");
        }
        Ok(token)
    }

    /// Makes a limited token.
    pub(crate) async fn limited_token(
        &self,
        caller: &Caller,
        purpose: Purpose,
    ) -> Result<LimitedToken, Problem> {
        if self.journal.limited_tokens(&caller.team).await?.len() >= MAX_LIMITED {
            return Err(Problem::conflict("the team has too many mounts and sandboxes; end some"));
        }
        let (token, time) = (new_token(), now());
        let ends = later(self.awake.now(), UNUSED);
        let record = TokenRecord {
            hash: Hash::of(token.as_bytes()),
            id: new_id(),
            team: caller.team.clone(),
            user: caller.user.clone(),
            name: String::new(),
            platform: false,
            roles: Vec::new(),
            active: true,
            expires: Some(ends),
            created: time,
            updated: time,
            limit: Some(Limit { parent: caller.token.hash, purpose }),
        };
        let id = record.id.clone();
        self.journal.put_token(record).await?;
        Ok(LimitedToken { id, token, expires_at: rfc3339(ends) })
    }

    /// Ends a limited token of one purpose, if it is there. Whoever has it may, and so may the
    /// token with which it was made, and an admin.
    pub(crate) async fn end_limited_token(
        &self,
        caller: &Caller,
        id: &str,
        is_meant: impl Fn(&Purpose) -> bool,
    ) -> Result<(), Problem> {
        for token in self.journal.limited_tokens(&caller.team).await? {
            let Some(limit) =
                token.limit.filter(|limit| token.id == id && is_meant(&limit.purpose))
            else {
                continue;
            };
            if ![token.hash, limit.parent].contains(&caller.token.hash) {
                caller.is_admin()?;
            }
            self.journal.delete_token(token.hash).await?;
        }
        Ok(())
    }

    /// Lets limited tokens that were in use when the last service ended live on, so that what
    /// they are for need not end with it.
    pub(crate) async fn keep_limited_tokens(&self) -> Kept<()> {
        let time = self.awake.now();
        let until = later(time, UNUSED);
        self.journal.keep_limited_tokens(earlier(time, AWAY), Some(until)).await
    }
}

/// Forgets limited tokens soon after they ended, so that [`Service::keep_limited_tokens`] wakes
/// none of them up. Ends with the service.
pub(crate) async fn forget_unused_tokens(service: Arc<Service>) {
    let mut closing = service.closing.clone();
    let mut often = interval(NOTED);
    often.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = often.tick() => {}
            _ = closing.wait_for(|is_closing| *is_closing) => return,
        }
        let before = service.awake.now();
        if let Err(error) = service.journal.keep_limited_tokens(before, None).await {
            tracing::warn!(%error, "limited tokens that have ended are still there");
        }
    }
}

#[cfg(test)]
mod tests;

//! Tokens: make, list, revoke. They are documented as API keys.
//!
//! The token of the service's directory has the scope `platform`: it makes tokens for any
//! team, and sees all. Any other admin sees those of the own team.

use s0_api::times::rfc3339;
use s0_api::tokens::{
    CurrentToken, MadeToken, Message, NewToken, OwnToken, Role, Token, TokenList,
};
use s0_tree::{Hash, Time};

use super::answers::{Made, MadeOf, Told, ok};
use super::asked::{Json, Named};
use super::{State, check_id};
use crate::caller::Caller;
use crate::journal::TokenRecord;
use crate::problem::Problem;
use crate::serve::new_token;
use crate::service::{Service, now};
use crate::volume::new_id;

/// How many tokens a team may have.
const MAX_TOKENS: usize = 1000;
const DAY: i64 = 24 * 60 * 60 * 1_000_000_000;
/// Clients want a time even where there is none.
const NEVER: &str = "9999-12-31T23:59:59Z";

const UNKNOWN: Problem = Problem::NotFound("not found");

fn scope(record: &TokenRecord) -> String {
    if record.platform { "platform" } else { "team" }.into()
}

fn expires(record: &TokenRecord) -> String {
    record.expires.map_or_else(|| NEVER.into(), rfc3339)
}

fn as_documented(record: &TokenRecord) -> Token {
    Token {
        id: record.id.clone(),
        team_id: record.team.clone(),
        created_by: record.user.clone(),
        name: record.name.clone(),
        scope: scope(record),
        roles: record.roles.clone(),
        is_active: record.active,
        expires_at: expires(record),
        created_at: rfc3339(record.created),
        updated_at: rfc3339(record.updated),
    }
}

fn roles(asked: Option<&[String]>) -> Result<Vec<Role>, Problem> {
    let unknown = || Problem::bad("roles are admin, developer, builder and viewer");
    let mut roles = Vec::new();
    for text in asked.unwrap_or_default() {
        let role = Role::parse(text).ok_or_else(unknown)?;
        if !roles.contains(&role) {
            roles.push(role);
        }
    }
    // What nobody asked for is not given.
    Ok(if roles.is_empty() { vec![Role::Viewer] } else { roles })
}

fn end(asked: Option<&str>, now: Time) -> Result<Option<Time>, Problem> {
    let days = match asked.unwrap_or_default() {
        "30d" => 30,
        "" | "90d" => 90,
        "180d" => 180,
        "365d" => 365,
        "never" => return Ok(None),
        _ => return Err(Problem::bad("expires_in is 30d, 90d, 180d, 365d or never")),
    };
    Ok(Some(Time(now.0.saturating_add(days * DAY))))
}

pub(super) async fn create(
    service: State,
    caller: Caller,
    Json(asked): Json<NewToken>,
) -> MadeOf<MadeToken> {
    caller.is_admin()?;
    match asked.scope.as_deref().unwrap_or_default() {
        "" | "team" => {}
        "platform" => return Err(Problem::Forbidden("only the service makes platform tokens")),
        _ => return Err(Problem::bad("scope is team")),
    }
    if asked.name.trim().is_empty() {
        return Err(Problem::bad("name is required"));
    }
    check_id("name", &asked.name)?;
    let team = asked.team_id.filter(|team| !team.is_empty()).unwrap_or_else(|| caller.team.clone());
    check_id("team_id", &team)?;
    if team != caller.team && !caller.token.platform {
        return Err(Problem::Forbidden("only the service's own token makes them for other teams"));
    }
    let time = now();
    let roles = roles(asked.roles.as_deref())?;
    let expires_at = end(asked.expires_in.as_deref(), time)?;
    if service.journal.tokens(Some(team.clone())).await?.len() >= MAX_TOKENS {
        return Err(Problem::conflict("the team has too many tokens; delete some"));
    }
    let key = new_token();
    let record = TokenRecord {
        hash: Hash::of(key.as_bytes()),
        id: new_id(),
        team,
        user: caller.user,
        name: asked.name,
        platform: false,
        roles,
        active: true,
        expires: expires_at,
        created: time,
        updated: time,
        limit: None,
    };
    service.journal.put_token(record.clone()).await?;
    Ok(Made(MadeToken {
        id: record.id.clone(),
        name: record.name.clone(),
        scope: scope(&record),
        roles: record.roles.clone(),
        team_id: record.team.clone(),
        expires_at: expires(&record),
        created_at: rfc3339(record.created),
        key,
    }))
}

/// The tokens that an admin may see.
async fn seen_by(service: &Service, caller: &Caller) -> Result<Vec<TokenRecord>, Problem> {
    caller.is_admin()?;
    let team = (!caller.token.platform).then(|| caller.team.clone());
    let mut all = service.journal.tokens(team).await?;
    all.retain(|token| !token.platform || caller.token.platform);
    Ok(all)
}

/// A token that an admin may end. That of the service's directory ends with its file.
async fn find(service: &Service, caller: &Caller, id: &str) -> Result<TokenRecord, Problem> {
    let all = seen_by(service, caller).await?;
    let found = all.into_iter().find(|token| token.id == id).ok_or(UNKNOWN)?;
    if found.platform {
        return Err(Problem::Forbidden("the token of the service's directory ends with its file"));
    }
    Ok(found)
}

pub(super) async fn list(service: State, caller: Caller) -> Told<TokenList> {
    let all = seen_by(&service, &caller).await?;
    ok(TokenList { api_keys: all.iter().map(as_documented).collect() })
}

pub(super) async fn current(caller: Caller) -> Told<CurrentToken> {
    let permissions = caller.permissions();
    ok(CurrentToken { api_key: OwnToken { token: as_documented(&caller.token), permissions } })
}

pub(super) async fn deactivate(service: State, caller: Caller, Named(id): Named) -> Told<Message> {
    let found = find(&service, &caller, &id).await?;
    let ended = TokenRecord { active: false, updated: now(), ..found };
    service.journal.put_token(ended).await?;
    ok(Message { message: "the token opens nothing any more".into() })
}

pub(super) async fn delete(service: State, caller: Caller, Named(id): Named) -> Told<Message> {
    let found = find(&service, &caller, &id).await?;
    service.journal.delete_token(found.hash).await?;
    ok(Message { message: "the token is gone".into() })
}

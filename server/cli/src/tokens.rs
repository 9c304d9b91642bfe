//! `s0 token`.

use std::process::ExitCode;

use s0_api::tokens::{NewToken, Role, Token as Listed};
use serde_json::json;

use crate::args::Token;
use crate::context::{Context, soon};
use crate::failure::Done;
use crate::screen::titled;

/// `s0 token …`.
pub(crate) async fn token(context: &Context, command: Token) -> Done {
    let client = context.client()?;
    let screen = &context.screen;
    match command {
        Token::Create { name, roles, expires_in, team } => {
            let (roles, expires_in) = (Some(roles), Some(expires_in));
            let new = NewToken { name, roles, expires_in, team_id: team, scope: None };
            let made = soon(client.create_token(&new)).await?;
            screen.show(&made, || made.key.clone());
        }
        Token::List => {
            let all = soon(client.tokens()).await?;
            screen.show(&all, || table(&all));
        }
        Token::Revoke { id } => {
            soon(client.delete_token(&id)).await.map_err(|failure| {
                let what = format!("the service knows no token with the id {id}");
                failure.named(&what, "`s0 token list` shows the ids")
            })?;
            screen.show(&json!({ "revoked": id }), || format!("revoked {id}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(tokens: &[Listed]) -> String {
    let head = ["TOKEN", "NAME", "TEAM", "ROLES", "ENDS"];
    let rows = tokens.iter().map(|token| {
        let roles: Vec<&str> = token.roles.iter().copied().map(Role::as_str).collect();
        let ends = if token.is_active { &token.expires_at } else { "revoked" };
        vec![
            token.id.clone(),
            token.name.clone(),
            token.team_id.clone(),
            roles.join(", "),
            ends.into(),
        ]
    });
    titled(&head, rows)
}

//! The arguments of `s0 token`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token and print it, this once
    Create {
        /// What it is for, for people
        name: String,
        /// What it may do: viewer, developer, admin or builder; can be given again
        #[arg(long = "role", value_name = "ROLE", default_value = "viewer")]
        roles: Vec<String>,
        /// When it ends: 30d, 90d, 180d, 365d or never
        #[arg(long, value_name = "WHEN", default_value = "90d")]
        expires_in: String,
        /// Its team; without it, that of the token that asks
        #[arg(long)]
        team: Option<String>,
    },
    /// List tokens, without the tokens themselves
    List,
    /// Revoke a token, for ever
    Revoke {
        /// The token's id
        // Not named `token`: that is the option of every command.
        #[arg(value_name = "TOKEN")]
        id: String,
    },
}

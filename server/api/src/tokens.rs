//! Tokens: who may do what, and the messages about them. What is documented as API keys.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::documented::null_is_absent;

/// One thing that a token may allow.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Permission {
    /// Making Volumes.
    #[serde(rename = "sandboxvolume:create")]
    CreateVolume,
    /// Seeing Volumes, snapshots, and the journal.
    #[serde(rename = "sandboxvolume:read")]
    ReadVolume,
    /// Forks, snapshots, restores, and all that replicas send.
    #[serde(rename = "sandboxvolume:write")]
    WriteVolume,
    /// Deleting Volumes and snapshots.
    #[serde(rename = "sandboxvolume:delete")]
    DeleteVolume,
    /// Reading by the file API.
    #[serde(rename = "sandboxvolumefile:read")]
    ReadFile,
    /// Writing by the file API.
    #[serde(rename = "sandboxvolumefile:write")]
    WriteFile,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::CreateVolume,
        Self::ReadVolume,
        Self::WriteVolume,
        Self::DeleteVolume,
        Self::ReadFile,
        Self::WriteFile,
    ];

    /// The documented text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateVolume => "sandboxvolume:create",
            Self::ReadVolume => "sandboxvolume:read",
            Self::WriteVolume => "sandboxvolume:write",
            Self::DeleteVolume => "sandboxvolume:delete",
            Self::ReadFile => "sandboxvolumefile:read",
            Self::WriteFile => "sandboxvolumefile:write",
        }
    }
}

/// A documented role: a set of permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, tokens of the team too.
    Admin,
    /// Everything but tokens.
    Developer,
    /// Nothing of Volumes.
    Builder,
    /// Reading.
    Viewer,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Developer, Self::Builder, Self::Viewer];

    /// What the role allows.
    #[must_use]
    pub fn permissions(self) -> &'static [Permission] {
        match self {
            Self::Admin | Self::Developer => &Permission::ALL,
            Self::Builder => &[],
            Self::Viewer => &[Permission::ReadVolume, Permission::ReadFile],
        }
    }

    /// Reads the documented text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// The documented text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Developer => "developer",
            Self::Builder => "builder",
            Self::Viewer => "viewer",
        }
    }
}

/// What a new token is to be like.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct NewToken {
    /// For people.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub name: String,
    /// `team`, when absent. Tokens of the scope `platform` are not made by requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// What it may do; `viewer` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<String>>,
    /// `30d`, `90d` (when absent), `180d`, `365d` or `never`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<String>,
    /// Another team than that of the one who asks. Only with the token of the service's
    /// directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team_id: Option<String>,
}

/// A token that was just made: the only time that it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MadeToken {
    /// Its id.
    pub id: String,
    /// For people.
    pub name: String,
    /// `team`.
    pub scope: String,
    /// What it may do.
    pub roles: Vec<Role>,
    /// Its team.
    pub team_id: String,
    /// When it ceases; the end of the year 9999 for never.
    pub expires_at: String,
    /// When it was made.
    pub created_at: String,
    /// The token itself.
    pub key: String,
}

/// A token, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    /// Its id.
    pub id: String,
    /// Its team.
    pub team_id: String,
    /// The user who made it.
    pub created_by: String,
    /// For people.
    pub name: String,
    /// `team`, or `platform` for the one in the service's directory.
    pub scope: String,
    /// What it may do.
    pub roles: Vec<Role>,
    /// Whether it opens anything.
    pub is_active: bool,
    /// When it ceases; the end of the year 9999 for never.
    pub expires_at: String,
    /// When it was made.
    pub created_at: String,
    /// When it last changed.
    pub updated_at: String,
}

/// Tokens, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenList {
    /// Them.
    pub api_keys: Vec<Token>,
}

/// The token with which it was asked, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OwnToken {
    /// The token.
    #[serde(flatten)]
    pub token: Token,
    /// All that its roles allow.
    pub permissions: Vec<Permission>,
}

/// The answer with an [`OwnToken`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CurrentToken {
    /// It.
    pub api_key: OwnToken,
}

/// What a new token for a mount is to allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct NewMountToken {
    /// Whether nothing can be written with it; true when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
}

/// A token for one thing that was just made: the only time that it is told.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LimitedToken {
    /// Its id.
    pub id: String,
    /// The token itself.
    pub token: String,
    /// When it ceases unless it is used. What runs uses it all the time.
    pub expires_at: String,
}

impl std::fmt::Debug for LimitedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token stays out of every log.
        f.debug_struct("LimitedToken").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A word for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// It.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_the_wire() {
        for permission in Permission::ALL {
            assert_eq!(serde_json::to_value(permission).unwrap(), permission.as_str());
        }
        for role in Role::ALL {
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Role::parse("Admin"), None);
    }
}

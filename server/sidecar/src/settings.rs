//! Settings, and their schema: the one source of what the editors' packages and
//! documents say about them.

use s0_replica::shell::guarded::GUARDED;
use serde::Deserialize;
use serde_json::{Value, json};

/// The settings of the section `s0-sync`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Settings {
    pub(crate) attach: Attach,
    pub(crate) review: Review,
    pub(crate) notifications: Notifications,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Attach {
    pub(crate) init_from: Option<String>,
    pub(crate) pause: Option<String>,
    pub(crate) ignore: Vec<String>,
    pub(crate) guard: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Review {
    pub(crate) code_lens: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Notifications {
    pub(crate) blocked: bool,
}

impl Default for Attach {
    fn default() -> Self {
        let guard = GUARDED.iter().copied().map(String::from).collect();
        Self { init_from: None, pause: None, ignore: Vec::new(), guard }
    }
}

impl Default for Review {
    fn default() -> Self {
        Self { code_lens: true }
    }
}

impl Default for Notifications {
    fn default() -> Self {
        Self { blocked: true }
    }
}

impl Settings {
    /// Settings as a client sends them; what is wrong with them is said, and the
    /// defaults hold.
    pub(crate) fn parse(value: Option<Value>) -> Result<Self, String> {
        let value = match value {
            None | Some(Value::Null) => return Ok(Self::default()),
            // Some clients send the whole section, some what is in it.
            Some(Value::Object(mut section)) => match section.remove("s0-sync") {
                Some(Value::Null) | None => Value::Object(section),
                Some(inner) => inner,
            },
            Some(other) => other,
        };
        let value = without_nulls(value);
        serde_json::from_value(value).map_err(|error| format!("the settings of s0-sync: {error}"))
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name, without_nulls(value)))
                .collect(),
        ),
        other => other,
    }
}

/// The JSON schema of the settings, by their full names.
#[must_use]
pub fn config_schema() -> Value {
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "s0 sync",
        "type": "object",
        "properties": {
            "s0-sync.attach.initFrom": {
                "type": ["string", "null"],
                "enum": [null, "auto", "volume", "local"],
                "default": null,
                "description": "How an attached folder begins when both sides hold files: `auto` reconciles, `volume` lets local files wait for your word, `local` writes them over the Volume's. Null is `auto`."
            },
            "s0-sync.attach.pause": {
                "type": ["string", "null"],
                "enum": [null, "workspace", "path"],
                "default": null,
                "description": "What an open conflict holds back: all uploads of the `workspace`, or only its `path`. Null is `workspace`."
            },
            "s0-sync.attach.ignore": {
                "type": "array",
                "items": { "type": "string" },
                "default": [],
                "description": "Patterns, as lines of a .gitignore, of what a folder that is attached from now on does not sync."
            },
            "s0-sync.attach.guard": {
                "type": "array",
                "items": { "type": "string" },
                "default": GUARDED,
                "description": "Guarded paths of a folder that is attached from now on: what a sandbox writes there would run on this machine by itself, so it is held until you let it in. A name anywhere, or a path with a slash."
            },
            "s0-sync.review.codeLens": {
                "type": "boolean",
                "default": true,
                "description": "Show Keep, Revert and Compare above what agents wrote."
            },
            "s0-sync.notifications.blocked": {
                "type": "boolean",
                "default": true,
                "description": "Say once when uploads begin to wait for conflicts."
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The schema's defaults, as a client would send them.
    fn defaults() -> Value {
        let schema = config_schema();
        let mut nested = json!({});
        for (name, property) in schema["properties"].as_object().unwrap() {
            let mut parts = name.trim_start_matches("s0-sync.").split('.').peekable();
            let mut at = &mut nested;
            while let Some(part) = parts.next() {
                at = &mut at[part];
                if parts.peek().is_none() {
                    *at = property["default"].clone();
                }
            }
        }
        nested
    }

    #[test]
    fn the_schemas_defaults_are_the_defaults() {
        for value in [
            None,
            Some(Value::Null),
            Some(json!({})),
            Some(defaults()),
            Some(json!({ "s0-sync": defaults() })),
            Some(json!({ "s0-sync": null })),
        ] {
            assert_eq!(Settings::parse(value.clone()), Ok(Settings::default()), "{value:?}");
        }
        let parsed = Settings::parse(Some(json!({ "review": { "codeLens": false } }))).unwrap();
        assert!(!parsed.review.code_lens && parsed.notifications.blocked);
        assert!(Settings::parse(Some(json!({ "review": { "codeLens": 3 } }))).is_err());
    }
}

//! How much a tree holds, and how much it may.

use serde::{Deserialize, Serialize};

/// What a quota counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// The sum of the sizes of all regular files, in bytes; a hard-linked one once.
    pub bytes: u64,
    /// Files, directories, links and pipes, the root not counted.
    pub inodes: u64,
}

impl Usage {
    /// The same and this much more.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(more.bytes),
            inodes: self.inodes.saturating_add(more.inodes),
        }
    }

    /// The same after a file of `old` bytes was given others.
    #[must_use]
    pub fn rewritten(self, old: u64, new: u64) -> Self {
        Self { bytes: self.bytes.saturating_sub(old).saturating_add(new), ..self }
    }
}

/// How much a Volume may hold. What is absent has no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quota {
    /// Bytes of regular files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Files, directories, links and pipes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inodes: Option<u64>,
}

impl Quota {
    /// Whether a tree may go from one usage to the other. One that holds too much
    /// already, because its quota was made smaller, may shrink, and may change in
    /// what does not grow.
    #[must_use]
    pub fn allows(self, before: Usage, after: Usage) -> bool {
        let fits = |limit: Option<u64>, before, after| {
            after <= before || limit.is_none_or(|limit| after <= limit)
        };
        fits(self.bytes, before.bytes, after.bytes)
            && fits(self.inodes, before.inodes, after.inodes)
    }

    /// How much of it is used, in words: `9 of 10 bytes and 2 of 3 files and directories`.
    #[must_use]
    pub fn in_words(self, used: Usage) -> String {
        let of = |limit: Option<u64>, used: u64, what: &str| {
            limit.map(|limit| format!("{used} of {limit} {what}"))
        };
        let bytes = of(self.bytes, used.bytes, "bytes");
        let inodes = of(self.inodes, used.inodes, "files and directories");
        bytes.into_iter().chain(inodes).collect::<Vec<_>>().join(" and ")
    }
}

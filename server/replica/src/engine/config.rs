//! Choices that a replica is started with.

/// How a replica begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Init {
    /// Equal files match, an empty side takes the other, the rest is reconciled.
    #[default]
    Auto,
    /// Files that the Volume does not have wait for the user's word.
    Volume,
    /// Where files differ, the local ones are written over the Volume's.
    Local,
}

/// What an open conflict holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pause {
    /// All uploads of this workspace that are not conflicts themselves.
    #[default]
    Workspace,
    /// Only the path in conflict.
    Path,
}

/// Choices that a replica is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// How it begins.
    pub init: Init,
    /// What an open conflict holds back.
    pub pause: Pause,
    /// Contents up to this size, in bytes, travel inside submissions.
    pub inline_limit: u64,
    /// Milliseconds that a new, vanished or merely modified name waits, since
    /// save styles pass through states that nobody means.
    pub settle: u64,
    /// Which run of the operating system this is. After another one that was
    /// not left in order, files are read again, since a power cut can leave
    /// old contents under a new stat.
    pub boot: String,
    /// Whether sandboxes' writes are kept until a review has heard of them.
    pub review: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            init: Init::Auto,
            pause: Pause::Workspace,
            inline_limit: s0_tree::INLINE_LIMIT,
            settle: 100,
            boot: String::new(),
            review: false,
        }
    }
}

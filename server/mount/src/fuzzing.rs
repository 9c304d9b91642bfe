//! What `tests/fuzz` reaches of a mount, and nobody else.

use std::os::unix::ffi::OsStrExt as _;

use crate::echo;
use crate::kernel::request::{self, Operation};

/// What a request of the kernel's is taken for, and the names in it; none when it is none.
#[must_use]
pub fn request(bytes: &[u8]) -> Option<(String, Vec<Vec<u8>>)> {
    let (head, operation) = request::parse(bytes).ok()?;
    let names = match &operation {
        Operation::Lookup { name }
        | Operation::MkNod { name, .. }
        | Operation::MkDir { name, .. }
        | Operation::Unlink { name }
        | Operation::RmDir { name }
        | Operation::Link { name, .. }
        | Operation::Create { name, .. }
        | Operation::SetXattr { name, .. }
        | Operation::GetXattr { name, .. }
        | Operation::RemoveXattr { name } => vec![*name],
        Operation::SymLink { name, target } => vec![*name, *target],
        Operation::Rename { name, new, .. } => vec![*name, *new],
        _ => Vec::new(),
    };
    let names = names.into_iter().map(|name| name.as_bytes().to_vec()).collect();
    Some((format!("{head:?} {operation:?}"), names))
}

/// What is asked of the process that does things once more, as it is written again; none when
/// nothing is.
#[must_use]
pub fn deed(line: &[u8]) -> Option<Vec<u8>> {
    echo::again(line)
}

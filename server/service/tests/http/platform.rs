//! What only some operating systems have: owners and permission bits.
#![cfg(unix)]

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use s0_service::TOKEN_FILE;

use crate::rig::{Rig, config};

#[tokio::test]
async fn what_others_could_read_is_closed_to_them() {
    let rig = Rig::start().await;
    let (token, dir) = (rig.token.clone(), rig.shut_down().await);
    let file = dir.path().join(TOKEN_FILE);
    for (path, mode) in [(dir.path(), 0o755), (&*file, 0o644)] {
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    let config = config(dir.path());
    let rig = Rig::at(dir, config).await;
    assert_eq!(rig.token, token);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(rig.dir.path()), mode(&file)), (0o700, 0o600));
}

//! Lower limits of the system for one test: it runs once more, in a process with
//! a user namespace of its own, where a limit concerns nobody else.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::process::Command;

/// How many directories a user may watch.
pub(crate) const WATCHES: &str = "max_inotify_watches";
/// How many watchers a user may have.
pub(crate) const WATCHERS: &str = "max_inotify_instances";

const INSIDE: &str = "S0_TEST_LIMIT_IS_LOWERED";

/// Whether this process is the one with the limit. Otherwise the test has run in
/// another process and passed, or cannot run here.
pub(crate) fn lowered_for(test: &str, limit: &str, to: u32) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let script = r#"echo "$1" > "/proc/sys/user/$2" 2> /dev/null || exit 77
        shift 2; exec "$@""#;
    let inside = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", script, "sh", &to.to_string(), limit])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output();
    let Ok(inside) = inside else { return false };
    let said = String::from_utf8_lossy(&inside.stderr).into_owned();
    if inside.status.code() == Some(77) || said.starts_with("unshare:") {
        return false;
    }
    assert!(inside.status.success(), "{}{said}", String::from_utf8_lossy(&inside.stdout));
    false
}

/// Sets a limit of this process's namespace.
pub(crate) fn set(limit: &str, to: u32) {
    std::fs::write(format!("/proc/sys/user/{limit}"), to.to_string()).unwrap();
}

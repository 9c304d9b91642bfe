//! The program that makes the namespaces: bubblewrap.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use serde::Deserialize;

use crate::inside;
use crate::layout::{self, PROGRAM, View};
use crate::platform::{self, Held, Process};
use crate::state::Record;

/// Where bubblewrap is.
pub(crate) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|place| place.join("bwrap")).find(|file| file.is_file())
}

/// A sandbox that has begun.
pub(crate) struct Begun {
    pub(crate) bwrap: Child,
    /// Init ends when this is dropped, or this process ends.
    pub(crate) leash: ChildStdin,
    pub(crate) init: Held,
}

/// What bubblewrap says of what it started.
#[derive(Deserialize)]
struct Info {
    #[serde(rename = "child-pid")]
    child_pid: u32,
}

/// Starts a sandbox, and returns when its init runs. What goes wrong inside is said on
/// standard error.
///
/// It belongs to the thread that calls this: when that ends, the sandbox does.
pub(crate) fn begin(bwrap: &Path, record: &Record) -> io::Result<Begun> {
    let program = std::env::current_exe()?;
    let (mut info, info_write) = platform::pipe_to_hand_down()?;
    let mut command = Command::new(bwrap);
    command
        .args(["--unshare-pid", "--unshare-ipc", "--unshare-uts"])
        .args(["--die-with-parent", "--as-pid-1", "--new-session"])
        .arg("--info-fd")
        .arg(info_write.as_raw_fd().to_string())
        .args(["--hostname", &record.id.replace('_', "-")]);
    if platform::is_root() {
        // Others get a user namespace from bubblewrap by itself, and no rights in it.
        command.args(["--cap-drop", "ALL"]);
        for (name, _) in platform::KEPT {
            command.args(["--cap-add", name]);
        }
    }
    let view = View {
        program: &program,
        home: &record.home,
        hidden: &record.hidden,
        paths: &record.paths,
    };
    command.args(layout::arguments(&view)?).args(["--chdir", "/", "--"]);
    command.arg(PROGRAM).arg(inside::INIT);
    // What is in the environment here, tokens perhaps, could be read inside.
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    command.env_clear().env("PATH", path);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir("/");
    let mut bwrap = command.spawn()?;
    // So that only bubblewrap has it, and its end is heard.
    drop(info_write);
    let (Some(leash), Some(mut ready)) = (bwrap.stdin.take(), bwrap.stdout.take()) else {
        return Err(io::Error::other("bubblewrap has no pipes"));
    };
    let mut said = String::new();
    info.read_to_string(&mut said)?;
    // Init says a word when it runs; before that it may still be bubblewrap, making mounts.
    if ready.read(&mut [0])? == 0 {
        let ended = bwrap.wait()?;
        let next = if platform::is_root() {
            ""
        } else {
            "; without root it needs user namespaces, which some systems forbid: `sysctl \
             user.max_user_namespaces kernel.unprivileged_userns_clone \
             kernel.apparmor_restrict_unprivileged_userns`"
        };
        return Err(io::Error::other(format!("bubblewrap made no sandbox ({ended}){next}")));
    }
    let info: Info = serde_json::from_str(&said)?;
    // It cannot have ended unnoticed and its number be another's: bubblewrap buries it, and
    // ends then.
    let init = Process::of(info.child_pid).ok().map(|init| init.hold()).transpose()?.flatten();
    match (init, bwrap.try_wait()?) {
        (Some(init), None) => Ok(Begun { bwrap, leash, init }),
        _ => Err(io::Error::other("the sandbox ended at once")),
    }
}

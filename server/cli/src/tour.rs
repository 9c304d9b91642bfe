//! `s0 up --tour`: everything once, with real processes, in a temporary directory.
//!
//! A service, a host for the user's workspace, a host for a sandbox, and an
//! agent that writes into the sandbox's directory are four processes; the user
//! is this one.

mod agent;
mod compare;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use s0_api::Client;
use s0_api::volumes::NewVolume;
use s0_host::protocol::{Answer, Request, Side as ConflictSide, Way};
use s0_host::{Control, host};
use s0_replica::engine::Condition;
use s0_tree::TreePath;
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use crate::attach::{self, Wanted};
use crate::context::{Context, Workspace};
use crate::failure::{Done, Failure};
use crate::screen::{Screen, count};
use crate::sync::{status_of, stop_host, unexpected};
use crate::{live, platform, serve};

pub(crate) use agent::act;

/// How long any one thing may take before the tour has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// Files that each side writes while the other one does.
const AT_ONCE: usize = 25;

/// What the workspace begins with.
const PROJECT: [(&str, &str); 7] = [
    ("README.md", "# Weather\n\nTells whether to take an umbrella.\n"),
    ("src/main.py", "from forecast import rain\n\nprint('umbrella' if rain() else 'hat')\n"),
    ("src/forecast.py", "def rain():\n    return True\n"),
    (
        "tests/test_forecast.py",
        "from forecast import rain\n\ndef test_rain():\n    assert rain()\n",
    ),
    ("config.toml", "city = \"Berlin\"\n"),
    (".gitignore", "node_modules/\n*.log\n"),
    ("node_modules/left-pad/index.js", "// ignored, and never uploaded\n"),
];

/// Shows everything once. The exit code says whether both sides ended equal.
pub(crate) async fn tour(context: &Context) -> Done {
    let begun = Instant::now();
    let base = tempfile::Builder::new().prefix("s0-tour-").tempdir()?;
    let path = std::fs::canonicalize(base.path())?;
    let user = context.elsewhere(path.join("state"), path.join("data"));
    let agent = context.elsewhere(path.join("sandbox-state"), path.join("data"));
    let result = tokio::select! {
        result = walk(&user, &agent, &path) => result,
        () = platform::asked_to_end() => Err(Failure::other("the tour was broken off")),
    };
    // However it ended, nothing of it stays.
    for side in [&user, &agent] {
        for (directory, _) in side.state.list().unwrap_or_default() {
            // One that is starting finds no attachment when it has waited for this.
            match host::claim(&directory).await {
                Ok(_claim) => directory.remove()?,
                Err(error) => context.screen.warn(error.to_string()),
            }
        }
    }
    if let Err(failure) = serve::end(&user).await {
        context.screen.warn(failure.to_string());
    }
    let removed = base.close();
    let files = result?;
    removed?;
    let seconds = begun.elapsed().as_secs_f64();
    context.screen.show(&json!({ "equal": true, "files": files, "seconds": seconds }), || {
        format!(
            "\nboth sides and the Volume hold the same {} after {seconds:.1} s; all of it is \
             removed again.\nYour own project: `s0 up` in its directory.",
            count(files, "file")
        )
    });
    Ok(ExitCode::SUCCESS)
}

/// One side of the tour.
struct Side {
    workspace: Workspace,
    root: PathBuf,
}

impl Side {
    async fn attach(
        context: &Context,
        volume: &str,
        root: PathBuf,
        sandbox: Option<&str>,
    ) -> Result<(Self, usize), Failure> {
        let wanted = Wanted {
            volume: Some(volume.into()),
            directory: root,
            sandbox: sandbox.map(String::from),
            ..Wanted::default()
        };
        let workspace = attach::make(context, wanted).await?.workspace;
        let side = Self { root: workspace.attachment.root.clone(), workspace };
        let synced = side.start(context).await?;
        Ok((side, synced))
    }

    /// Starts the host as a process, and waits until all is across.
    async fn start(&self, context: &Context) -> Result<usize, Failure> {
        let program = std::env::current_exe()?;
        s0_host::spawn(&program, &context.state, &self.workspace.directory).await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = status_of(self.ask(&Request::Status).await?)?.report.status;
            let still = status.pending.looks + status.pending.downloads > 0;
            match status.condition {
                Condition::InSync => return Ok(status.progress.synced),
                Condition::Blocked if !still => return Ok(status.progress.synced),
                _ if Instant::now() > deadline => {
                    return Err(Failure::other("a host does not come to rest"));
                }
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    async fn ask(&self, request: &Request) -> Result<Answer, Failure> {
        Ok(Control::connect(&self.workspace.directory).await?.ask(request).await?)
    }

    async fn flush(&self) -> Result<(), Failure> {
        let timeout_ms = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
        match self.ask(&Request::Flush { timeout_ms }).await? {
            Answer::Flushed { done: true, .. } => Ok(()),
            Answer::Flushed { unfinished, .. } => {
                Err(Failure::other(format!("not everything is across: {unfinished:?}")))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn content(&self, path: &TreePath, side: ConflictSide) -> Result<String, Failure> {
        let control = Control::connect(&self.workspace.directory).await?;
        let mut text = String::new();
        control.content(path.clone(), side).await?.bytes.read_to_string(&mut text).await?;
        Ok(text.trim_end().replace('\n', " ⏎ "))
    }
}

/// Tells what happened, and how long it took.
fn tell(screen: &Screen, text: impl AsRef<str>, took: Option<Duration>) {
    let text = text.as_ref();
    let ms = took.map(|took| took.as_secs_f64() * 1000.0);
    let shown = ms.map(|ms| if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") });
    screen.show(&json!({ "step": text, "ms": ms }), || match shown {
        Some(shown) => format!("{shown:>9}  {text}"),
        None => format!("{:>9}  {text}", ""),
    });
}

async fn walk(user: &Context, agent: &Context, base: &Path) -> Result<usize, Failure> {
    let screen = &user.screen;
    let root = base.join("weather");
    for (path, text) in PROJECT {
        write(&root.join(path), text)?;
    }
    tell(screen, format!("a small project with {} files", PROJECT.len()), None);

    let begun = Instant::now();
    serve::ensure(user, None).await?;
    tell(screen, "the Volume service of this machine answers", Some(begun.elapsed()));
    let client = user.client()?;
    let new = NewVolume { access_mode: Some("RWX".into()), ..NewVolume::default() };
    let volume = client.create_volume(&new).await?.id;

    let begun = Instant::now();
    let (mine, synced) = Side::attach(user, &volume, root, None).await?;
    let what = count(synced, "path");
    tell(
        screen,
        format!("the project is in a Volume: {what}, node_modules left out"),
        Some(begun.elapsed()),
    );

    let begun = Instant::now();
    let theirs = base.join("sandbox").join("workspace");
    let (sandbox, synced) = Side::attach(agent, &volume, theirs, Some("sb_tour")).await?;
    let what = count(synced, "path");
    tell(screen, format!("a sandbox has the same files: {what}"), Some(begun.elapsed()));
    let mut helper = agent::Agent::start(&sandbox.root).await?;

    both_directions(screen, &mine, &sandbox, &mut helper).await?;
    at_once(screen, &mine, &sandbox, &mut helper).await?;
    conflict(user, &mine, &sandbox, &mut helper).await?;

    let begun = Instant::now();
    mine.flush().await?;
    sandbox.flush().await?;
    mine.flush().await?;
    let files = equal(&client, &volume, &mine, &sandbox).await?;
    tell(screen, "every file on both sides was compared with the Volume", Some(begun.elapsed()));
    helper.end().await;
    Ok(files)
}

/// One edit there, one write back.
async fn both_directions(
    screen: &Screen,
    mine: &Side,
    sandbox: &Side,
    agent: &mut agent::Agent,
) -> Result<(), Failure> {
    let text = "def rain():\n    return cloud_cover() > 0.5\n";
    let begun = Instant::now();
    write(&mine.root.join("src/forecast.py"), text)?;
    appears(&sandbox.root.join("src/forecast.py"), text).await?;
    tell(screen, "you edit src/forecast.py; the agent reads it", Some(begun.elapsed()));

    let text = "# Review\n\n`cloud_cover` is not defined yet.\n";
    let begun = Instant::now();
    agent.write("REVIEW.md", text).await?;
    appears(&mine.root.join("REVIEW.md"), text).await?;
    tell(screen, "the agent writes REVIEW.md; it is on your disk", Some(begun.elapsed()));

    let text =
        "def cloud_cover():\n    return 0.7\n\n\ndef rain():\n    return cloud_cover() > 0.5\n";
    let begun = Instant::now();
    agent.write("src/forecast.py", text).await?;
    appears(&mine.root.join("src/forecast.py"), text).await?;
    tell(
        screen,
        "the agent saves src/forecast.py over yours, having seen it",
        Some(begun.elapsed()),
    );
    Ok(())
}

/// Both sides write at the same time.
async fn at_once(
    screen: &Screen,
    mine: &Side,
    sandbox: &Side,
    agent: &mut agent::Agent,
) -> Result<(), Failure> {
    let begun = Instant::now();
    for number in 0..AT_ONCE {
        agent.write(&format!("generated/part-{number}.py"), &format!("PART = {number}\n")).await?;
        write(&mine.root.join(format!("notes/{number}.md")), &format!("note {number}\n"))?;
    }
    sandbox.flush().await?;
    mine.flush().await?;
    for number in 0..AT_ONCE {
        let theirs = mine.root.join(format!("generated/part-{number}.py"));
        appears(&theirs, &format!("PART = {number}\n")).await?;
        let yours = sandbox.root.join(format!("notes/{number}.md"));
        appears(&yours, &format!("note {number}\n")).await?;
    }
    let text =
        format!("you and the agent write {AT_ONCE} files each at once; all are on both sides");
    tell(screen, text, Some(begun.elapsed()));
    Ok(())
}

/// Both change one file, neither having seen the other's change.
async fn conflict(
    user: &Context,
    mine: &Side,
    sandbox: &Side,
    agent: &mut agent::Agent,
) -> Result<(), Failure> {
    let screen = &user.screen;
    let config = TreePath::new("config.toml").map_err(|error| Failure::other(error.to_string()))?;
    stop_host(&mine.workspace).await?;
    agent.write("config.toml", "city = \"Paris\"\n").await?;
    sandbox.flush().await?;
    write(&mine.root.join("config.toml"), "city = \"London\"\n")?;
    tell(screen, "your machine sleeps; you and the agent both change config.toml unseen", None);

    let begun = Instant::now();
    mine.start(user).await?;
    let deadline = Instant::now() + PATIENCE;
    let found = loop {
        match mine.ask(&Request::Conflicts).await? {
            Answer::Conflicts { mut conflicts } if !conflicts.is_empty() => {
                break conflicts.remove(0);
            }
            _ if Instant::now() > deadline => return Err(Failure::other("no conflict arose")),
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    if found.path != config || found.reason != s0_tree::Reason::ConcurrentUpdate {
        return Err(Failure::other(format!("another conflict arose: {found:?}")));
    }
    let why = live::reason(found.reason);
    tell(screen, format!("it wakes: a conflict at config.toml, {why}"), Some(begun.elapsed()));
    let sides = [ConflictSide::Mine, ConflictSide::Theirs, ConflictSide::Base];
    for (side, (word, holds)) in sides.into_iter().zip([
        ("yours, still in your file", "city = \"London\""),
        ("the agent's, in the Volume", "city = \"Paris\""),
        ("what both began with", "city = \"Berlin\""),
    ]) {
        let text = mine.content(&config, side).await?;
        if text != holds {
            return Err(Failure::other(format!("{word}: {text}")));
        }
        tell(screen, format!("  {word}: {text}"), None);
    }
    appears(&mine.root.join("config.toml"), "city = \"London\"\n").await?;
    // A flush does not end before everything is across, or is known to wait.
    write(&mine.root.join("TODO.md"), "- buy an umbrella\n")?;
    let waiting = mine.ask(&Request::Flush { timeout_ms: 5000 }).await?;
    let status = status_of(mine.ask(&Request::Status).await?)?.report.status;
    let waits = matches!(waiting, Answer::Flushed { done: false, .. });
    if !waits || status.condition != Condition::Blocked || sandbox.root.join("TODO.md").exists() {
        let found = format!("{waiting:?}, {:?}, {:?}", status.condition, status.pending);
        return Err(Failure::other(format!("uploads did not wait for the conflict: {found}")));
    }
    tell(screen, "  uploads wait until you have decided: TODO.md is not in the sandbox yet", None);

    let begun = Instant::now();
    match mine.ask(&Request::Resolve { paths: vec![config], way: Way::KeepMine }).await? {
        Answer::Resolved { paths } if paths.iter().all(|path| path.error.is_none()) => {}
        other => return Err(unexpected(&other)),
    }
    appears(&sandbox.root.join("config.toml"), "city = \"London\"\n").await?;
    appears(&sandbox.root.join("TODO.md"), "- buy an umbrella\n").await?;
    tell(screen, "you keep yours; it and what waited are in the sandbox", Some(begun.elapsed()));
    Ok(())
}

/// Compares both disks with the Volume, in two ways. Says how many files.
async fn equal(
    client: &Client,
    volume: &str,
    mine: &Side,
    sandbox: &Side,
) -> Result<usize, Failure> {
    let of_volume = compare::volume(client, volume).await?;
    for side in [mine, sandbox] {
        match side.ask(&Request::Verify).await? {
            Answer::Verified { differences, apart }
                if differences.is_empty() && apart.conflicts.is_empty() => {}
            other => return Err(Failure::other(format!("not equal: {other:?}"))),
        }
        let on_disk = compare::disk(&side.root, &["node_modules"])?;
        if on_disk != of_volume {
            let root = side.root.display();
            return Err(Failure::other(format!("{root}: {on_disk:?}\nthe Volume: {of_volume:?}")));
        }
    }
    Ok(of_volume.len())
}

/// Writes as editors do: beside, then over.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::file(path, &error);
    if let Some(above) = path.parent() {
        std::fs::create_dir_all(above).map_err(failed)?;
    }
    let beside = path.with_extension("tmp~");
    std::fs::write(&beside, text).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)
}

/// Waits until a file holds a text.
async fn appears(path: &Path, text: &str) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    while std::fs::read_to_string(path).ok().as_deref() != Some(text) {
        if Instant::now() > deadline {
            return Err(Failure::other(format!("{} did not arrive", path.display())));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

//! `s0 sandbox`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use s0_api::tokens::LimitedToken;
use s0_host::ServicePlace;
use s0_sandbox::exec::Exec;
use s0_sandbox::protocol::{AttendRequest, MountRequest, Request, Status};
use s0_sandbox::{
    Control, ControlError, Listed, Process, Record, SandboxDir, Sandboxes, Spawned, Wanted,
    mount_point,
};
use serde::Serialize;
use serde_json::json;

use crate::args::{InSandbox, NewSandbox, Sandbox, SandboxVolume};
use crate::context::{Context, known_volume, soon};
use crate::failure::{Done, Failure};
use crate::mount;
use crate::platform;
use crate::screen::{count, titled};

/// The home inside, where the user's own is none that can be made there.
const HOME: &str = "/home/user";
/// How long a service may take to say that it will reach a sandbox.
const AT_ONCE: std::time::Duration = std::time::Duration::from_secs(1);
/// How large the cache of a mount becomes that a new sandbox begins with, in bytes.
const CACHE: u64 = 2 << 30;

/// `s0 sandbox …`.
pub(crate) async fn sandbox(context: &Context, command: Sandbox) -> Done {
    let screen = &context.screen;
    match command {
        Sandbox::Create { new } => {
            let access = new.volume_id.as_deref().map(|it| Access::ask(context, it, false));
            let access = access.transpose()?;
            let made = spawn(context, new, false)?;
            let mut status = made.status;
            if let Some(access) = access {
                status = mount_first(&made.directory, &made.record, access)?;
            }
            let row = Row::of(&made.record, "running", Some(status));
            be_reached(context, &made.directory, &made.record);
            screen.show(&row, || row.id.clone());
        }
        Sandbox::Exec { sandbox, inside } => {
            let found = find(context, &sandbox)?;
            let control = Control::connect(&found.directory);
            let status = control.and_then(|mut it| it.status()).map_err(of(&found.record.id))?;
            return exec(&found.record, status.init, &inside).await;
        }
        Sandbox::Run { new, keep, inside } => return run(context, new, keep, &inside).await,
        Sandbox::Volume { command } => return volume(context, command).await,
        Sandbox::List => {
            let rows = list(context)?;
            screen.show(&rows, || table(&rows));
        }
        Sandbox::Stop { all: true, force, .. } => {
            let all = sandboxes(context).list()?;
            // One that does not end keeps nobody else from ending.
            let ended: Vec<_> = all.iter().map(|it| stop(it, force)).collect();
            ended.into_iter().collect::<Result<Vec<_>, _>>()?;
            let ids: Vec<_> = all.iter().map(|it| &it.record.id).collect();
            screen.show(&json!({ "stopped": ids }), || {
                format!("stopped {}", count(ids.len(), "sandbox"))
            });
        }
        Sandbox::Stop { sandbox, force, .. } => {
            let found = find(context, &sandbox.unwrap_or_default())?;
            stop(&found, force)?;
            let id = &found.record.id;
            screen.show(&json!({ "stopped": [id] }), || format!("stopped {id}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `s0 sandbox-warden`.
pub(crate) async fn warden(context: &Context, id: &str, leashed: bool) -> Done {
    let directory = sandboxes(context).sandbox(id);
    let find = Arc::new(|said: &serde_json::Value| {
        let service: ServicePlace =
            serde_json::from_value(said.clone()).map_err(|error| error.to_string())?;
        service.url()
    });
    s0_sandbox::warden::run(&directory, leashed, platform::asked_to_end(), find).await?;
    Ok(ExitCode::SUCCESS)
}

fn sandboxes(context: &Context) -> Sandboxes {
    Sandboxes::new(context.state.path())
}

fn spawn(context: &Context, new: NewSandbox, is_leashed: bool) -> Result<Spawned, Failure> {
    let home = std::env::home_dir().map(|home| s0_host::canonical(&home));
    let home = home.filter(|home| mount_point(home).is_ok());
    // Whoever is inside is the same user, and could speak to hosts and read tokens there.
    let hidden = [Some(context.state.path()), Some(&context.data_dir), context.profiles_file()];
    let hidden = hidden.into_iter().flatten().map(s0_host::canonical);
    let wanted = Wanted {
        name: new.name,
        paths: new.paths,
        home: home.unwrap_or_else(|| PathBuf::from(HOME)),
        hidden: hidden.collect(),
        is_leashed,
    };
    let program = std::env::current_exe()?;
    Ok(s0_sandbox::spawn(&program, context.state.path(), &sandboxes(context), wanted)?)
}

async fn run(context: &Context, new: NewSandbox, keep: bool, inside: &InSandbox) -> Done {
    let access = new.volume_id.as_deref().map(|it| Access::ask(context, it, false)).transpose()?;
    let made = spawn(context, new, !keep)?;
    if let Some(access) = access {
        mount_first(&made.directory, &made.record, access)?;
    }
    be_reached(context, &made.directory, &made.record);
    // From inside the sandbox, its socket is not to be seen.
    let control = Control::connect(&made.directory).map_err(of(&made.record.id))?;
    let done = exec(&made.record, made.status.init, inside).await;
    if keep {
        let id = &made.record.id;
        let said = format!("the sandbox {id} stays; `s0 sandbox stop {id}` ends it");
        context.screen.warn(said);
    } else if let Err(error) = control.stop(false)
        && !has_ended(&error)
    {
        context.screen.warn(error.to_string());
    }
    done
}

/// Mounts a Volume at the first directory of a new sandbox, which ends if that cannot be.
fn mount_first(directory: &SandboxDir, record: &Record, access: Access) -> Result<Status, Failure> {
    let path = record.paths.first().cloned().unwrap_or_default();
    let request = access.mount(path, CACHE);
    let mut control = Control::connect(directory).map_err(of(&record.id))?;
    let mounted = control.ask(&request).and_then(|_| control.status());
    mounted.map_err(|error| {
        // Whoever asked for a Volume has no use for a sandbox without it.
        let _ = control.stop(true);
        Failure::other(error.to_string())
    })
}

/// Lets the service reach a new sandbox, with a token for that alone. The sandbox is as good
/// without it, so that nothing is said where there is no service, or one that does not let it.
fn be_reached(context: &Context, directory: &SandboxDir, record: &Record) {
    let (Ok(service), Ok(client)) = (context.service(), context.client()) else { return };
    let made = alone(async {
        let made = tokio::time::timeout(AT_ONCE, client.create_attend_token(&record.id)).await;
        Ok(made.map_err(|late| Failure::other(late.to_string()))??)
    });
    let place = serde_json::to_value(service.place());
    let (Ok(token), Ok(service)) = (made, place) else { return };
    let request = Request::Attend(AttendRequest { service, token });
    if let Err(error) = Control::connect(directory).and_then(|mut it| it.ask(&request)) {
        tracing::debug!(%error, "the sandbox is not reached by the service");
    }
}

/// What a warden is given to mount a Volume: where the service is, and a token for that Volume
/// alone. The user's own goes to no warden.
struct Access {
    volume_id: String,
    read_only: bool,
    service: serde_json::Value,
    token: LimitedToken,
}

impl Access {
    fn ask(context: &Context, volume: &str, read_only: bool) -> Result<Self, Failure> {
        let (service, client) = (context.service()?, context.client()?);
        let place = serde_json::to_value(service.place()).map_err(std::io::Error::other)?;
        let token = alone(async {
            known_volume(&client, volume).await?;
            soon(client.create_mount_token(volume, read_only)).await
        })?;
        Ok(Self { volume_id: volume.into(), read_only, service: place, token })
    }

    fn mount(self, path: PathBuf, cache_bytes: u64) -> Request {
        let Self { volume_id, read_only, service, token } = self;
        Request::Mount(MountRequest { volume_id, path, read_only, service, token, cache_bytes })
    }
}

/// Asks a service in a thread of which nothing is left then: a client has threads that look
/// names up, and who enters a sandbox must be the only one.
fn alone<T: Send>(asked: impl Future<Output = Result<T, Failure>> + Send) -> Result<T, Failure> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(asked)
        });
        thread.join().map_err(|_| Failure::other("the service could not be asked".to_owned()))?
    })
}

/// `s0 sandbox volume …`.
async fn volume(context: &Context, command: SandboxVolume) -> Done {
    let screen = &context.screen;
    match command {
        SandboxVolume::Mount { volume_id, at, read_only, cache } => {
            let path = at.path.clone();
            match at.sandbox_id {
                None => {
                    mount::here(context, &volume_id, &path, (read_only, cache)).await?;
                }
                Some(named) => {
                    let found = find(context, &named)?;
                    let control = Control::connect(&found.directory);
                    let mut control = control.map_err(of(&found.record.id))?;
                    let access = Access::ask(context, &volume_id, read_only)?;
                    let request = access.mount(path.clone(), cache.as_u64());
                    control.ask(&request).map_err(of(&found.record.id))?;
                }
            }
            let said = json!({"volume_id": volume_id, "path": path, "state": "mounted"});
            screen.show(&said, || format!("{volume_id} is mounted at {}", path.display()));
        }
        SandboxVolume::Unmount { at } => {
            let path = at.path.clone();
            match at.sandbox_id {
                None => mount::take_away(context, &path).await?,
                Some(named) => {
                    let found = find(context, &named)?;
                    let control = Control::connect(&found.directory);
                    let mut control = control.map_err(of(&found.record.id))?;
                    let request = Request::Unmount { path: path.clone() };
                    control.ask(&request).map_err(of(&found.record.id))?;
                }
            }
            let said = json!({"path": path, "unmounted": true});
            screen.show(&said, || format!("{} is unmounted", path.display()));
        }
        SandboxVolume::Status { sandbox_id } => {
            let rows = mounts(context, sandbox_id.as_deref())?;
            screen.show(&rows, || {
                let cells = rows.iter().map(|row| {
                    let sandbox = row.sandbox_id.clone().unwrap_or_else(|| "(here)".into());
                    vec![
                        row.sandboxvolume_id.clone(),
                        row.mount_point.display().to_string(),
                        sandbox,
                    ]
                });
                titled(&["VOLUME", "MOUNTED AT", "SANDBOX"], cells)
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A mount, as it is listed.
#[derive(Serialize)]
struct MountRow {
    sandboxvolume_id: String,
    mount_point: PathBuf,
    sandbox_id: Option<String>,
    state: &'static str,
}

fn mounts(context: &Context, named: Option<&str>) -> Result<Vec<MountRow>, Failure> {
    let row = |id: Option<&str>, volume: String, path: PathBuf| MountRow {
        sandboxvolume_id: volume,
        mount_point: path,
        sandbox_id: id.map(String::from),
        state: "mounted",
    };
    let mut rows = Vec::new();
    let found = match named {
        Some(named) => vec![find(context, named)?],
        None => {
            let here = mount::all_here()?;
            rows.extend(here.into_iter().map(|(volume, path)| row(None, volume, path)));
            sandboxes(context).list()?.into_iter().filter(|it| it.lives).collect()
        }
    };
    for sandbox in found {
        let id = &sandbox.record.id;
        let asked = Control::connect(&sandbox.directory).and_then(|mut it| it.status());
        match asked {
            Ok(status) => {
                let mounts = status.mounts.into_iter();
                rows.extend(mounts.map(|it| row(Some(id.as_str()), it.volume_id, it.path)));
            }
            Err(error) if named.is_some() => return Err(of(id)(error)),
            Err(error) => context.screen.warn(format!("{id}: {error}")),
        }
    }
    Ok(rows)
}

async fn exec(record: &Record, init: Process, inside: &InSandbox) -> Done {
    let first = record.paths.first().map_or(record.home.as_path(), PathBuf::as_path);
    let exec = Exec {
        id: &record.id,
        init,
        home: &record.home,
        directory: inside.workdir.as_deref().unwrap_or(first),
        environment: &inside.env,
        tty: inside.tty,
        command: &inside.command,
    };
    Ok(ExitCode::from(exec.run().await?))
}

/// The sandbox with an id or a name.
fn find(context: &Context, named: &str) -> Result<Listed, Failure> {
    let is_meant = |it: &Listed| it.record.id == named || it.record.name.as_deref() == Some(named);
    let all = sandboxes(context).list()?;
    // A name may be that of one that has ended, too.
    let mut found: Vec<_> = all.into_iter().filter(is_meant).collect();
    found.sort_by_key(|it| !it.lives);
    found.into_iter().next().ok_or_else(|| {
        Failure::other(format!(
            "there is no sandbox {named}; `s0 sandbox list` shows those that there are"
        ))
    })
}

fn has_ended(error: &ControlError) -> bool {
    matches!(error, ControlError::NotRunning | ControlError::Broken(_))
}

/// What a warden did not answer, in words about its sandbox.
fn of(id: &str) -> impl Fn(ControlError) -> Failure {
    move |error| match error {
        ControlError::NotRunning => Failure::other(format!(
            "the sandbox {id} has ended; `s0 sandbox create` makes another one"
        )),
        error => error.into(),
    }
}

/// Ends one, and removes what is left of it.
fn stop(found: &Listed, force: bool) -> Result<(), Failure> {
    let stopped = Control::connect(&found.directory).and_then(|control| control.stop(force));
    match stopped {
        Ok(()) => {}
        Err(error) if has_ended(&error) && !found.lives => found.directory.remove()?,
        Err(_) if force => {
            found.kill()?;
            found.directory.remove()?;
        }
        // It ended in this moment.
        Err(ControlError::NotRunning) if !found.directory.path().exists() => {}
        Err(ControlError::NotRunning) => {
            return Err(Failure::other(format!(
                "the sandbox {} is being made, or ends, just now; try again, or end it with \
                 --force",
                found.record.id
            )));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// A sandbox, as it is listed.
#[derive(Serialize)]
struct Row {
    id: String,
    name: Option<String>,
    state: &'static str,
    created_at: String,
    paths: Vec<PathBuf>,
    mounts: Vec<s0_sandbox::protocol::Mounted>,
    /// Of its first process, as it is seen from outside.
    pid: Option<u32>,
    warden_pid: Option<u32>,
    log: Option<PathBuf>,
}

impl Row {
    fn of(record: &Record, state: &'static str, status: Option<Status>) -> Self {
        Self {
            id: record.id.clone(),
            name: record.name.clone(),
            state,
            created_at: record.created_at.clone(),
            paths: record.paths.clone(),
            pid: status.as_ref().map(|status| status.init.pid),
            warden_pid: status.as_ref().map(|status| status.warden.pid),
            mounts: status.map(|status| status.mounts).unwrap_or_default(),
            log: None,
        }
    }
}

fn list(context: &Context) -> Result<Vec<Row>, Failure> {
    let sandboxes = sandboxes(context);
    let mut rows = Vec::new();
    let mut all = sandboxes.clean()?;
    all.extend(sandboxes.list()?);
    all.sort_by(|one, other| one.record.created_at.cmp(&other.record.created_at));
    for found in all {
        let asked = found
            .lives
            .then(|| Control::connect(&found.directory).and_then(|mut control| control.status()));
        let (state, status) = match asked {
            None => ("ended", None),
            Some(Ok(status)) => ("running", Some(status)),
            // It is being made, or ends just now.
            Some(Err(error)) if has_ended(&error) => ("changing", None),
            Some(Err(_)) => ("not answering", None),
        };
        let mut row = Row::of(&found.record, state, status);
        row.log = found.lives.then(|| found.directory.log());
        rows.push(row);
    }
    Ok(rows)
}

fn table(rows: &[Row]) -> String {
    let head = ["SANDBOX", "NAME", "STATE", "SINCE", "MOUNTS", "PID"];
    let rows = rows.iter().map(|row| {
        let mounts: Vec<String> = row.mounts.iter().map(mounted).collect();
        vec![
            row.id.clone(),
            row.name.clone().unwrap_or_default(),
            row.state.into(),
            row.created_at.clone(),
            mounts.join(", "),
            row.pid.map(|pid| pid.to_string()).unwrap_or_default(),
        ]
    });
    titled(&head, rows)
}

fn mounted(mount: &s0_sandbox::protocol::Mounted) -> String {
    let path: &Path = &mount.path;
    format!("{} at {}", mount.volume_id, path.display())
}

//! The service of this machine.

use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use s0_api::Client;
use s0_host::ServiceAddress;
use s0_service::{Config, Running, ServeError};
use serde_json::json;

use crate::args::{LogFormat, ServeOptions};
use crate::context::Context;
use crate::failure::{Done, Failure};
use crate::platform;

/// How long a service may take until it answers.
const DEADLINE: Duration = Duration::from_secs(20);
/// The log of a service in the background, in its data directory.
const LOG: &str = "service.log";
/// How long a service that lives may take to say so.
const HEARD: Duration = Duration::from_secs(5);
/// How often a service tries to have its lock.
const TRIES: u32 = 10;

/// `s0 serve`.
pub(crate) async fn serve(context: &Context, options: &ServeOptions, background: bool) -> Done {
    if background {
        let (url, started) = ensure(context, Some(options)).await?;
        if started {
            announce(context, &url);
        } else if options.restored_from_backup {
            return Err(Failure::other(format!(
                "a service runs already ({url}) and was not told of the backup; end it first \
                 (s0 serve --stop)"
            )));
        } else {
            context.screen.warn(format!("a service runs already: {url}"));
            announce(context, &url);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut config = Config::new(context.data_dir.clone(), options.listen);
    config.retention_entries = options.retention_entries;
    config.checkpoint_every = options.checkpoint_every.unwrap_or(config.checkpoint_every);
    config.allow_insecure = options.allow_insecure;
    config.restored_from_backup = options.restored_from_backup;
    let running = start(&config).await?;
    announce(context, running.url());
    running.wait().await?;
    Ok(ExitCode::SUCCESS)
}

/// Starts the service in this process.
async fn start(config: &Config) -> Result<Running, ServeError> {
    let mut tries = TRIES;
    loop {
        match s0_service::serve(config.clone(), platform::asked_to_end()).await {
            // Who looks whether a service runs may hold its lock for an instant.
            Err(ServeError::Running { .. }) if tries > 0 => {
                tries -= 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            started => return started,
        }
    }
}

fn announce(context: &Context, url: &str) {
    context.screen.show(&json!({ "url": url }), || format!("listening on {url}"));
}

/// The service of the data directory, if it answers.
async fn answering(context: &Context) -> Option<String> {
    let service = ServiceAddress::Local(context.data_dir.clone());
    let url = service.url().ok()?;
    let client = Client::new(&url, "").ok()?;
    tokio::time::timeout(Duration::from_secs(2), client.health()).await.ok()?.ok()?;
    Some(url)
}

/// Makes sure that this machine's service runs. Says where, and whether it was
/// started now.
pub(crate) async fn ensure(
    context: &Context,
    options: Option<&ServeOptions>,
) -> Result<(String, bool), Failure> {
    if let Some(url) = answering(context).await {
        return Ok((url, false));
    }
    let data_dir = &context.data_dir;
    // The service sees to that too; its log is there before it.
    platform::private_directory(data_dir).map_err(|error| Failure::file(data_dir, &error))?;
    let log = data_dir.join(LOG);
    let begins = std::fs::metadata(&log).map_or(0, |log| log.len());
    let mut child = Starting(Some(spawn(context, options, &log)?));
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(url) = answering(context).await {
            child.0 = None;
            return Ok((url, true));
        }
        if let Some(status) = child.ended()? {
            // Somebody else may have started one at the same time.
            tokio::time::sleep(Duration::from_millis(200)).await;
            if let Some(url) = answering(context).await {
                return Ok((url, false));
            }
            let said = s0_host::tail(&log, begins, 2048);
            return Err(Failure::other(format!(
                "the service ended at once ({status}):\n{}",
                said.trim_end()
            )));
        }
        if Instant::now() > deadline {
            // One that is only slow may be wanted still.
            child.0 = None;
            return Err(Failure::other(format!(
                "the service does not answer; its log is {}",
                log.display()
            )));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A service that nobody has reached yet. Who breaks off the start leaves none.
struct Starting(Option<Child>);

impl Starting {
    fn ended(&mut self) -> std::io::Result<Option<std::process::ExitStatus>> {
        self.0.as_mut().map_or(Ok(None), Child::try_wait)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

fn spawn(context: &Context, options: Option<&ServeOptions>, path: &Path) -> Result<Child, Failure> {
    let data_dir = &context.data_dir;
    let log = platform::private_log(path).map_err(|error| Failure::file(path, &error))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--data-dir").arg(data_dir).args(["serve", "--detached"]);
    if let Some(options) = options {
        command.arg("--listen").arg(options.listen.to_string());
        if let Some(entries) = options.retention_entries {
            command.arg("--retention-entries").arg(entries.to_string());
        }
        if let Some(every) = options.checkpoint_every {
            command.arg("--checkpoint-every").arg(every.to_string());
        }
        if options.log_format == LogFormat::Json {
            command.args(["--log-format", "json"]);
        }
        if options.allow_insecure {
            command.arg("--allow-insecure");
        }
        if options.restored_from_backup {
            command.arg("--restored-from-backup");
        }
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command.spawn()?)
}

/// `s0 serve --stop`.
pub(crate) async fn stop(context: &Context) -> Done {
    let ended = end(context).await?;
    context.screen.show(&json!({ "stopped": ended }), || {
        let words = if ended { "the service has ended" } else { "no service runs" };
        format!("{words} in {}", context.data_dir.display())
    });
    Ok(ExitCode::SUCCESS)
}

/// Ends the service of the data directory, and waits until it has. Says whether
/// there was one.
pub(crate) async fn end(context: &Context) -> Result<bool, Failure> {
    let data_dir = &context.data_dir;
    let deadline = Instant::now() + HEARD;
    while answering(context).await.is_none() {
        if !s0_host::service_runs(data_dir) {
            return Ok(false);
        }
        // It may be starting.
        if Instant::now() > deadline {
            return Err(Failure::other(silent(data_dir)));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let Some(pid) = pid(data_dir) else { return Ok(false) };
    platform::end_process(pid)?;
    let deadline = Instant::now() + DEADLINE;
    while s0_host::service_runs(data_dir) {
        if Instant::now() > deadline {
            return Err(Failure::other(format!("the service (process {pid}) does not end")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(true)
}

/// The process that the data directory's file names.
fn pid(data_dir: &Path) -> Option<u32> {
    let bytes = std::fs::read(data_dir.join(s0_service::SERVICE_FILE)).ok()?;
    Some(serde_json::from_slice::<s0_service::ServiceFile>(&bytes).ok()?.pid)
}

fn silent(data_dir: &Path) -> String {
    let place = data_dir.display();
    match pid(data_dir) {
        Some(pid) => format!(
            "a service (process {pid}) runs in {place} and does not answer; it may be stopped \
             (`kill -CONT {pid}` lets it go on) or hang (`kill -9 {pid}` ends it; what it has \
             answered is safe)"
        ),
        None => {
            format!("a process holds {place} and does not answer; is a service starting there?")
        }
    }
}

//! The service of this machine.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use s0_api::Client;
use s0_host::ServiceAddress;
use s0_service::Config;
use serde_json::json;

use crate::args::ServeOptions;
use crate::context::Context;
use crate::failure::{Done, Failure};
use crate::platform;

/// How long a service may take until it answers.
const DEADLINE: Duration = Duration::from_secs(20);
/// The log of a service in the background, in its data directory.
const LOG: &str = "service.log";

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
    let running = s0_service::serve(config, platform::asked_to_end()).await?;
    announce(context, running.url());
    running.wait().await?;
    Ok(ExitCode::SUCCESS)
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
    let mut child = spawn(context, options)?;
    let deadline = Instant::now() + DEADLINE;
    let log = context.data_dir.join(LOG);
    loop {
        if let Some(url) = answering(context).await {
            return Ok((url, true));
        }
        if let Some(status) = child.try_wait()? {
            // Somebody else may have started one at the same time.
            tokio::time::sleep(Duration::from_millis(200)).await;
            if let Some(url) = answering(context).await {
                return Ok((url, false));
            }
            let said = s0_host::tail(&log, 0, 2048);
            return Err(Failure::other(format!("the service ended at once ({status}):\n{said}")));
        }
        if Instant::now() > deadline {
            return Err(Failure::other(format!(
                "the service does not answer; its log is {}",
                log.display()
            )));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn spawn(
    context: &Context,
    options: Option<&ServeOptions>,
) -> Result<std::process::Child, Failure> {
    let data_dir = &context.data_dir;
    std::fs::create_dir_all(data_dir).map_err(|error| Failure::file(data_dir, &error))?;
    let path = data_dir.join(LOG);
    let log = open_log(&path).map_err(|error| Failure::file(&path, &error))?;
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

fn open_log(path: &Path) -> std::io::Result<std::fs::File> {
    std::fs::File::options().create(true).append(true).open(path)
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
    // A process with the number of one that was killed may be anybody's.
    if answering(context).await.is_none() {
        return Ok(false);
    }
    let path = context.data_dir.join(s0_service::SERVICE_FILE);
    let Ok(bytes) = std::fs::read(&path) else { return Ok(false) };
    let service: s0_service::ServiceFile = serde_json::from_slice(&bytes)?;
    platform::end_process(service.pid)?;
    let deadline = Instant::now() + DEADLINE;
    while path.exists() {
        if Instant::now() > deadline {
            let pid = service.pid;
            return Err(Failure::other(format!("the service (process {pid}) does not end")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(true)
}

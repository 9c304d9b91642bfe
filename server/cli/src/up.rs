//! `s0 up`.

use std::path::PathBuf;
use std::process::ExitCode;

use s0_api::volumes::NewVolume;
use s0_host::{Control, ControlError, InitFrom};

use crate::attach::{self, Wanted};
use crate::context::{Context, Workspace};
use crate::failure::{Done, Failure};
use crate::{live, platform, serve};

/// Keeps a directory in a Volume, and tells what happens.
pub(crate) async fn up(context: &Context, directory: Option<PathBuf>) -> Done {
    let screen = &context.screen;
    // Whoever reads a line of this may end it at once.
    let end = platform::asked_to_end();
    tokio::pin!(end);
    let (workspace, local) = tokio::select! {
        () = &mut end => return Ok(ExitCode::SUCCESS),
        prepared = prepare(context, directory) => prepared?,
    };
    let attachment = &workspace.attachment;
    let telling = live::tell(context, &workspace);
    let joined = match Control::connect(&workspace.directory).await {
        Ok(_) => true,
        Err(ControlError::NotRunning) => false,
        Err(error) => return Err(error.into()),
    };
    if joined {
        tokio::select! {
            () = end => {}
            told = telling => told?,
        }
    } else {
        let hosting = s0_host::run(&workspace.directory, false, end);
        tokio::pin!(hosting);
        tokio::select! {
            ended = &mut hosting => ended?,
            told = telling => {
                if let Err(failure) = told {
                    screen.warn(failure.to_string());
                }
                hosting.await?;
            }
        }
    }
    screen.bottom("");
    let root = attachment.root.display();
    if joined {
        screen.line(format!(
            "\nthe host in the background goes on; `s0 sync stop -C {root}` ends it"
        ));
    } else {
        screen.line(format!(
            "\nthe workspace stays attached: `s0 up` goes on, `s0 sync start -C {root}` goes on in \
             the background, `s0 sync detach {root}` ends it"
        ));
    }
    if local {
        screen.line("the service goes on; `s0 serve --stop` ends it");
    }
    Ok(ExitCode::SUCCESS)
}

/// What is needed first: a service, and an attachment. Says too whether the
/// service is this machine's own.
async fn prepare(
    context: &Context,
    directory: Option<PathBuf>,
) -> Result<(Workspace, bool), Failure> {
    let screen = &context.screen;
    let directory = directory.unwrap_or_else(|| PathBuf::from("."));
    let (service, local) = match context.service()? {
        s0_host::ServiceAddress::Local(_) => {
            let (url, started) = serve::ensure(context, None).await?;
            screen.line(if started {
                format!("started the service of this machine at {url}")
            } else {
                format!("the service of this machine runs at {url}")
            });
            (url, true)
        }
        other => (other.url().map_err(Failure::other)?, false),
    };
    let workspace = workspace(context, directory).await?;
    let attachment = &workspace.attachment;
    screen.line(format!("{} is in {}", attachment.root.display(), attachment.volume_id));
    introduce(context, &workspace, &service);
    Ok((workspace, local))
}

/// The attachment of the directory, or a new one to a new Volume.
async fn workspace(context: &Context, directory: PathBuf) -> Result<Workspace, Failure> {
    attach::make_directory(&directory)?;
    if let Some((found, attachment)) = context.state.find(&directory)? {
        return Ok(Workspace { directory: found, attachment });
    }
    let new = NewVolume { access_mode: Some("RWX".into()), ..NewVolume::default() };
    let volume = context.client()?.create_volume(&new).await?.id;
    let wanted = Wanted { volume, directory, init: InitFrom::Auto, sandbox: None, pause: None };
    attach::make(context, wanted).await
}

/// How an agent joins.
fn introduce(context: &Context, workspace: &Workspace, service: &str) {
    let volume = &workspace.attachment.volume_id;
    let token = context.data_dir.join(s0_service::TOKEN_FILE);
    context.screen.line(format!(
        "\nAn agent joins with a directory of its own:\n  \
         s0 sync attach {volume} DIR --as sandbox --sandbox-id sb_demo\n\
         or over HTTP:\n  \
         curl -H \"Authorization: Bearer $(cat {})\" --data-binary 'hello' \\\n    \
         '{service}/api/v1/sandboxvolumes/{volume}/files?path=/hello.txt'\n",
        token.display()
    ));
}

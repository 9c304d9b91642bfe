//! `s0 up`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use s0_host::{Attachment, HostError, ServiceAddress, Token};

use crate::attach::{self, Attached, Wanted};
use crate::context::{Context, service_option};
use crate::failure::{Done, Failure};
use crate::screen::quoted;
use crate::{live, platform, serve};

/// How a host that was watched came to its end, or did not.
enum Watched {
    /// It ran here, and has ended.
    Ran,
    /// It runs elsewhere, and has ended.
    Ended,
    /// It runs elsewhere, and goes on.
    GoesOn,
}

/// Keeps a directory in a Volume, and tells what happens.
pub(crate) async fn up(context: &Context, directory: Option<PathBuf>) -> Done {
    let screen = &context.screen;
    // Whoever reads a line of this may end it at once.
    let end = platform::asked_to_end();
    tokio::pin!(end);
    let (attached, local) = tokio::select! {
        () = &mut end => return Ok(ExitCode::SUCCESS),
        prepared = prepare(context, directory) => prepared?,
    };
    let watched = match watch(context, &attached, end).await {
        Ok(watched) => watched?,
        Err(error) => {
            attached.take_back(context).await;
            return Err(error.into());
        }
    };
    screen.bottom("");
    let attachment = &attached.workspace.attachment;
    // With what is needed to find the workspace again.
    let root = quoted(&attachment.root) + &context.state_option();
    screen.line(match watched {
        Watched::Ran => format!(
            "\nthe workspace stays attached: `s0 up` goes on, `s0 sync start -C {root}` goes on in \
             the background, `s0 sync detach {root}` ends it"
        ),
        Watched::Ended => format!(
            "\nthe host that ran this workspace has ended; it stays attached: `s0 up` goes on, \
             `s0 sync start -C {root}` goes on in the background"
        ),
        Watched::GoesOn => format!(
            "\nthe host that ran this workspace before goes on; `s0 sync stop -C {root}` ends it"
        ),
    });
    if local {
        let option = service_option(&attachment.service);
        screen.line(format!("the service goes on; `s0 serve --stop{option}` ends it"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells what happens until the host or the user ends it. The host runs here,
/// unless one runs already. The outer error is that of a host that cannot run.
async fn watch(
    context: &Context,
    attached: &Attached,
    mut end: std::pin::Pin<&mut (impl Future<Output = ()> + Send)>,
) -> Result<Result<Watched, Failure>, HostError> {
    let workspace = &attached.workspace;
    let telling = live::tell(context, workspace);
    tokio::pin!(telling);
    let ran = {
        let hosting = s0_host::run(&workspace.directory, false, end.as_mut());
        tokio::pin!(hosting);
        tokio::select! {
            ended = &mut hosting => ended,
            told = &mut telling => {
                if let Err(failure) = told {
                    context.screen.warn(failure.to_string());
                }
                return hosting.await.map(|()| Ok(Watched::Ran));
            }
        }
    };
    match ran {
        Ok(()) => return Ok(Ok(Watched::Ran)),
        Err(HostError::Running { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(tokio::select! {
        () = end => Ok(Watched::GoesOn),
        told = telling => told.map(|()| Watched::Ended),
    })
}

/// What is needed first: a service, and an attachment. Says too whether the
/// service is this machine's own.
async fn prepare(
    context: &Context,
    directory: Option<PathBuf>,
) -> Result<(Attached, bool), Failure> {
    let screen = &context.screen;
    let directory = directory.unwrap_or_else(|| PathBuf::from("."));
    let root = s0_host::canonical(&directory);
    let service = match context.state.find(&root)? {
        Some((_, attachment)) => attachment.service,
        None => {
            // Before a service is started for nothing.
            attach::suits(context, &root)?;
            context.service()?
        }
    };
    let local = match &service {
        ServiceAddress::Local(data_dir) => {
            let its = context.elsewhere(context.state.path().into(), data_dir.clone());
            let (url, started) = serve::ensure(&its, None).await?;
            screen.line(if started {
                format!("started the service of this machine at {url}")
            } else {
                format!("the service of this machine runs at {url}")
            });
            true
        }
        ServiceAddress::Remote { .. } => false,
    };
    let wanted = Wanted { directory, ..Wanted::default() };
    let attached = attach::make(context, wanted).await?;
    let attachment = &attached.workspace.attachment;
    screen.line(format!("{} is in {}", attachment.root.display(), attachment.volume_id));
    introduce(context, attachment);
    Ok((attached, local))
}

/// How an agent joins.
fn introduce(context: &Context, attachment: &Attachment) {
    let volume = &attachment.volume_id;
    let options = context.state_option() + &service_option(&attachment.service);
    let from_file = |path: &Path| format!("$(cat {})", quoted(path));
    let token = match &attachment.service {
        ServiceAddress::Local(data_dir) => from_file(&data_dir.join(s0_service::TOKEN_FILE)),
        ServiceAddress::Remote { token: Token::File(path), .. } => from_file(path),
        // It is never shown.
        ServiceAddress::Remote { token: Token::Text(_), .. } => "$SANDBOX0_TOKEN".into(),
    };
    context.screen.line(format!(
        "\nAn agent joins with a directory of its own:\n  \
         s0 sync attach {volume} DIR --as sandbox --sandbox-id sb_demo{options}"
    ));
    if let Ok(service) = attachment.service.url() {
        context.screen.line(format!(
            "or over HTTP:\n  \
             curl -H \"Authorization: Bearer {token}\" --data-binary 'hello' \\\n    \
             '{service}/api/v1/sandboxvolumes/{volume}/files?path=/hello.txt'\n"
        ));
    }
}

//! What all commands need: where things are, and who answers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use s0_api::Client;
use s0_api::volumes::SandboxVolume;
use s0_host::{Attachment, AttachmentDir, Control, ServiceAddress, StateDir, Token, canonical};

use crate::args::Args;
use crate::failure::Failure;
use crate::platform;
use crate::screen::{Screen, plain, quoted};

/// How long the answer to a question may take that needs no work.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// What the service answers to a short question. One that is stopped, or hangs,
/// still takes connections.
pub(crate) async fn soon<T>(
    asked: impl Future<Output = Result<T, s0_api::Error>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(offline(format!(
            "the service takes requests and does not answer within {} s; `s0 serve --stop` says \
             what to do about the one of this machine",
            ANSWER.as_secs()
        ))),
    }
}

/// A Volume that must be there.
pub(crate) async fn known_volume(client: &Client, id: &str) -> Result<SandboxVolume, Failure> {
    soon(client.volume(id)).await.map_err(|failure| {
        if failure.is_not_found() {
            let at = client.base_url();
            failure.saying(format!(
                "the service at {at} does not know the Volume {}; `s0 volume list` shows those \
                 that it knows",
                plain(id)
            ))
        } else {
            failure
        }
    })
}

/// Where things are.
pub(crate) struct Context {
    pub(crate) screen: Screen,
    pub(crate) state: StateDir,
    pub(crate) data_dir: PathBuf,
    /// The data directory was named, not found.
    data_dir_is_given: bool,
    server: Option<String>,
    token: Option<String>,
}

/// An attached workspace.
pub(crate) struct Workspace {
    pub(crate) directory: AttachmentDir,
    pub(crate) attachment: Attachment,
}

impl Context {
    pub(crate) fn new(args: &Args, screen: Screen) -> Result<Self, Failure> {
        let place = |given: &Option<PathBuf>, usual: Option<PathBuf>, flag: &str| {
            given.clone().or(usual).ok_or_else(|| {
                Failure::other(format!("your home directory is not known; name one with {flag}"))
            })
        };
        let state = place(&args.state_dir, platform::default_state_dir(), "--state-dir")?;
        let data_dir = place(&args.data_dir, platform::default_data_dir(), "--data-dir")?;
        Ok(Self {
            screen,
            state: StateDir::new(state),
            data_dir_is_given: args.data_dir.is_some(),
            data_dir: std::path::absolute(&data_dir).unwrap_or(data_dir),
            server: args.server.clone().filter(|url| !url.is_empty()),
            token: args.token.clone().filter(|token| !token.is_empty()),
        })
    }

    /// The same with other directories, and this machine's service.
    pub(crate) fn elsewhere(&self, state: PathBuf, data_dir: PathBuf) -> Self {
        Self {
            screen: self.screen.clone(),
            state: StateDir::new(state),
            data_dir,
            data_dir_is_given: true,
            server: None,
            token: None,
        }
    }

    /// The service's address, if one was given.
    pub(crate) fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// The token, if one was given.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The service that was asked for, or this machine's.
    pub(crate) fn service(&self) -> Result<ServiceAddress, Failure> {
        match (&self.server, &self.token) {
            (None, None) => Ok(ServiceAddress::Local(self.data_dir.clone())),
            (Some(url), Some(token)) => Ok(ServiceAddress::Remote {
                url: url.clone(),
                token: Token::Text(s0_host::Secret(token.clone())),
            }),
            (Some(url), None) => Ok(ServiceAddress::Remote {
                url: url.clone(),
                token: Token::File(self.data_dir.join(s0_service::TOKEN_FILE)),
            }),
            // A token for this machine's service; its address now is as good as any.
            (None, Some(token)) => Ok(ServiceAddress::Remote {
                url: self.local().url().map_err(offline)?,
                token: Token::Text(s0_host::Secret(token.clone())),
            }),
        }
    }

    /// What is asked for and is not so with a service, in words about that one.
    pub(crate) fn differs_from(&self, service: &ServiceAddress) -> Option<String> {
        let bare = |url: &str| url.trim_end_matches('/').to_owned();
        if let Some(server) = &self.server {
            let url = service.url().ok();
            if url.as_deref().is_none_or(|url| bare(url) != bare(server)) {
                return Some(match (service, url) {
                    (ServiceAddress::Local(data_dir), _) => {
                        format!("at the service of {}", data_dir.display())
                    }
                    (_, url) => format!("at the service {}", url.unwrap_or_default()),
                });
            }
        }
        match service {
            ServiceAddress::Local(data_dir)
                if self.server.is_none()
                    && self.data_dir_is_given
                    && canonical(data_dir) != canonical(&self.data_dir) =>
            {
                Some(format!("at the service of {}", data_dir.display()))
            }
            ServiceAddress::Remote { token: Token::Text(known), .. }
                if self.token.as_ref().is_some_and(|token| *token != known.0) =>
            {
                Some("with another token".into())
            }
            _ => None,
        }
    }

    /// The option with which another command finds the same workspaces; nothing
    /// when it finds them without.
    pub(crate) fn state_option(&self) -> String {
        if Some(self.state.path()) == platform::default_state_dir().as_deref() {
            return String::new();
        }
        format!(" --state-dir {}", quoted(self.state.path()))
    }

    fn local(&self) -> ServiceAddress {
        ServiceAddress::Local(self.data_dir.clone())
    }

    /// A client of that service.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        self.service()?.client().map_err(offline)
    }

    /// The replica on this machine whose user asks for something of a Volume.
    pub(crate) fn replica_of(&self, volume: &str) -> Result<Option<String>, Failure> {
        let all = self.state.list()?;
        let own = all.into_iter().find(|(_, it)| it.volume_id == volume && it.sandbox_id.is_none());
        Ok(own.map(|(_, it)| it.replica_id))
    }

    /// The workspace at or above a directory; without one, above the current one.
    pub(crate) fn workspace(&self, near: Option<&Path>) -> Result<Workspace, Failure> {
        let place = match near {
            Some(near) => near.to_owned(),
            None => std::env::current_dir()?,
        };
        let found = self.state.find(&place)?;
        // A workspace may be gone, but what only looks like a part of one is a
        // mistyped word.
        let is_meant = |root: &Path| near.is_none() || place.is_dir() || canonical(&place) == root;
        match found {
            Some((directory, attachment)) if is_meant(&attachment.root) => {
                Ok(Workspace { directory, attachment })
            }
            Some(_) => Err(Failure::other(format!("{} is not a directory", place.display()))),
            None => Err(Failure::other(self.in_no_workspace(&place)?)),
        }
    }

    fn in_no_workspace(&self, place: &Path) -> Result<String, Failure> {
        let mut said = format!(
            "{} is in no attached workspace; `s0 sync list` shows those of this machine, and \
             `s0 sync attach VOLUME` attaches one",
            place.display()
        );
        for (_, damage) in self.state.damaged()? {
            said.push_str(&format!("\none attachment is damaged: {damage}"));
        }
        Ok(said)
    }
}

/// The option with which another command finds a service; nothing when it finds
/// it without.
pub(crate) fn service_option(service: &ServiceAddress) -> String {
    match service {
        ServiceAddress::Remote { url, .. } => format!(" --server {}", quoted(url.as_ref())),
        ServiceAddress::Local(data_dir) => {
            if Some(data_dir) == platform::default_data_dir().as_ref() {
                return String::new();
            }
            format!(" --data-dir {}", quoted(data_dir))
        }
    }
}

fn offline(why: String) -> Failure {
    Failure::with_code(why, crate::failure::code::OFFLINE)
}

impl Workspace {
    /// The host of the workspace.
    pub(crate) async fn control(&self) -> Result<Control, Failure> {
        Ok(Control::connect(&self.directory).await?)
    }

    /// A client of the service that has the workspace's Volume.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        self.attachment.service.client().map_err(offline)
    }
}

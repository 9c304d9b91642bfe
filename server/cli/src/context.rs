//! What all commands need: where things are, and who answers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use s0_api::Client;
use s0_api::volumes::SandboxVolume;
use s0_host::{Attachment, AttachmentDir, Control, ServiceAddress, StateDir, Token, canonical};

use crate::args::Args;
use crate::config::{self, Profile};
use crate::failure::Failure;
use crate::platform;
use crate::screen::{Screen, quoted};

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
    let what = format!("the service at {} does not know the Volume {id}", client.base_url());
    let failed =
        |failure: Failure| failure.named(&what, "`s0 volume list` shows those that it knows");
    soon(client.volume(id)).await.map_err(failed)
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
    /// Where profiles are looked for.
    profiles: config::Wanted,
}

/// Which service is meant, and why that one.
pub(crate) struct Chosen {
    pub(crate) service: ServiceAddress,
    /// The profile that has a part in it.
    pub(crate) profile: Option<Profile>,
    /// What named the address, in words.
    pub(crate) address_of: String,
    /// What named the token, in words.
    pub(crate) token_of: String,
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
        let profiles = config::Wanted {
            file: args.config.clone().or_else(platform::default_config),
            file_is_named: args.config.is_some(),
            profile: args.profile.clone().filter(|name| !name.is_empty()),
        };
        Ok(Self {
            profiles,
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
            profiles: config::Wanted::default(),
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

    /// Where profiles are looked for.
    pub(crate) fn profiles(&self) -> &config::Wanted {
        &self.profiles
    }

    /// The file of profiles, if there is a place for one.
    pub(crate) fn profiles_file(&self) -> Option<&Path> {
        self.profiles.file.as_deref()
    }

    /// The service that was asked for, or this machine's.
    pub(crate) fn service(&self) -> Result<ServiceAddress, Failure> {
        Ok(self.chosen()?.service)
    }

    /// The same, and why that one: an option or the environment comes before a profile,
    /// and a profile before this machine's service.
    pub(crate) fn chosen(&self) -> Result<Chosen, Failure> {
        let by_hand = |flag: &str, variable: &str| format!("{flag} or {variable}");
        let (server, token) = (&self.server, &self.token);
        // Whoever names both needs no profile, also where the file is broken.
        let profile = match (server, token) {
            (Some(_), Some(_)) => None,
            _ => self.profiles.find()?,
        };
        let of_profile = |it: &Profile| format!("the profile {} in {}", it.name, it.file.display());
        let (url, address_of) = match (server, &profile) {
            (Some(url), _) => (Some(url.clone()), by_hand("--server", "SANDBOX0_BASE_URL")),
            (None, Some(profile)) if profile.base_url.is_some() => {
                (profile.base_url.clone(), of_profile(profile))
            }
            (None, _) => (None, "this machine's service".into()),
        };
        if let Some(url) = url.as_deref().filter(|url| !url.starts_with("http")) {
            return Err(Failure::other(format!(
                "{url:?} is not an address such as http://host:7070; repair it where it comes \
                 from: {address_of}"
            )));
        }
        // A profile's token is for the profile's service, and goes to no other.
        let its = profile.as_ref().filter(|profile| {
            let is_same = |its: &str| server.as_deref().is_none_or(|url| bare(url) == bare(its));
            profile.base_url.as_deref().map_or(server.is_none(), is_same)
        });
        let own = self.data_dir.join(s0_service::TOKEN_FILE);
        let (token, token_of) = match (token, its.and_then(|it| Some((it, it.token.clone()?)))) {
            (Some(token), _) => {
                let token = Token::Text(s0_host::Secret(token.clone()));
                (Some(token), by_hand("--token", "SANDBOX0_TOKEN"))
            }
            (None, Some((profile, token))) => (Some(token), of_profile(profile)),
            (None, None) => (None, own.display().to_string()),
        };
        let service = match (url, token) {
            (None, None) => ServiceAddress::Local(self.data_dir.clone()),
            (Some(url), Some(token)) => ServiceAddress::Remote { url, token },
            (Some(url), None) if s0_api::is_this_machine(&url) => {
                ServiceAddress::Remote { url, token: Token::File(own) }
            }
            (Some(url), None) => {
                return Err(Failure::other(format!(
                    "no token was given for {url}, and this machine's own goes to no other; give \
                     one with --token, SANDBOX0_TOKEN or a profile"
                )));
            }
            // A token for this machine's service; its address now is as good as any.
            (None, Some(token)) => {
                ServiceAddress::Remote { url: self.local().url().map_err(offline)?, token }
            }
        };
        Ok(Chosen { service, profile, address_of, token_of })
    }

    /// What is asked for and is not so with a service, in words about that one.
    pub(crate) fn differs_from(&self, service: &ServiceAddress) -> Result<Option<String>, Failure> {
        // A profile that nobody named is only where a new attachment begins.
        let server = match (&self.server, &self.profiles.profile) {
            (None, Some(_)) => self.profiles.find()?.and_then(|profile| profile.base_url),
            (server, _) => server.clone(),
        };
        if let Some(server) = &server {
            let url = service.url().ok();
            if url.as_deref().is_none_or(|url| bare(url) != bare(server)) {
                return Ok(Some(match (service, url) {
                    (ServiceAddress::Local(data_dir), _) => {
                        format!("at the service of {}", data_dir.display())
                    }
                    (_, url) => format!("at the service {}", url.unwrap_or_default()),
                }));
            }
        }
        Ok(match service {
            ServiceAddress::Local(data_dir)
                if server.is_none()
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
        })
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

/// An address as it is compared.
fn bare(url: &str) -> &str {
    url.trim_end_matches('/')
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

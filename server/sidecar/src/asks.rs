//! Answers to what clients ask: each runs in a task of its own, with what was
//! known when it was asked.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use s0_api::history::PathVersionId;
use s0_host::protocol::{
    Answer, Choice as HostChoice, FileView, HoldWay, Request, Side, Way as HostWay,
};
use s0_host::{Attachment, AttachmentDir, Control, ControlError};
use s0_replica::shell::guarded::GUARDED;
use s0_review::{HunkId, Version as ReviewVersion};
use s0_tree::{Seq, TreePath};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::messages::{Ask, Choice, HeldWay, Way};
use crate::program::{Program, argument};
use crate::settings::Settings;
use crate::state;
use crate::uri::{Text, Version, below, file_of};

/// Larger texts are not shown, in bytes.
const LARGEST: u64 = 16 << 20;
/// How long a flush is waited for when nothing is said.
const FLUSH: u64 = 30_000;
/// How long a host may take to start, and how often it is looked for.
const STARTING: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(30);

/// A folder, as it is for one answer.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// As the client wrote it.
    pub(crate) folder: String,
    pub(crate) path: PathBuf,
    pub(crate) attached: Option<(AttachmentDir, Attachment)>,
}

/// What answers need.
pub(crate) struct Asked {
    pub(crate) program: Program,
    pub(crate) settings: Settings,
    pub(crate) places: Vec<Place>,
}

impl Asked {
    pub(crate) fn place(&self, folder: &str) -> Result<&Place, String> {
        let same = |place: &&Place| {
            place.folder == folder || file_of(folder).is_some_and(|path| path == place.path)
        };
        self.places
            .iter()
            .find(same)
            .ok_or_else(|| format!("{folder} is not a folder of this workspace"))
    }

    /// The attached place of a file, and the file's path in it.
    fn locate(&self, uri: &str) -> Result<(&Place, TreePath), String> {
        let file = file_of(uri).ok_or_else(|| format!("{uri} is not a file"))?;
        let found = self.places.iter().find_map(|place| {
            let (_, attachment) = place.attached.as_ref()?;
            Some((place, below(&attachment.root, &file)?))
        });
        found.ok_or_else(|| format!("{} is in no attached folder", file.display()))
    }

    /// The answer.
    pub(crate) async fn answer(&self, ask: Ask) -> Result<Value, String> {
        match ask {
            Ask::Attach { folder, volume, init_from } => {
                self.attach(self.place(&folder)?, volume, init_from).await
            }
            Ask::Detach { folder } => {
                let root = self.place(&folder)?.attached()?.1.root.clone();
                self.program.run(["sync".into(), "detach".into(), argument(&root)]).await?;
                Ok(json!({}))
            }
            Ask::Start { folder } => {
                let (directory, _) = self.place(&folder)?.attached()?;
                let started =
                    s0_host::spawn(&self.program.path, &self.program.state, directory).await;
                started.map_err(|error| error.to_string())?;
                Ok(json!({}))
            }
            Ask::Stop { folder } => {
                self.place(&folder)?.ask(Request::Stop).await?;
                Ok(json!({}))
            }
            Ask::Resume { folder, confirm_deletions } => {
                self.place(&folder)?.ask(Request::Resume { confirm_deletions }).await?;
                Ok(json!({}))
            }
            Ask::Flush { folder, timeout_ms } => {
                let timeout_ms = timeout_ms.unwrap_or(FLUSH);
                match self.place(&folder)?.ask(Request::Flush { timeout_ms }).await? {
                    Answer::Flushed { done, unfinished, .. } => {
                        Ok(json!({ "done": done, "unfinished": unfinished }))
                    }
                    other => Err(unexpected(&other)),
                }
            }
            Ask::Volumes {} => self.volumes().await,
            Ask::Snapshots { folder } => {
                let volume = self.volume(&folder)?;
                let listed = self.program.run(["volume", "snapshot", "list", &volume]).await?;
                let snapshots = listed.as_array().cloned().unwrap_or_default();
                let snapshots: Vec<Value> = snapshots
                    .iter()
                    .map(|it| {
                        json!({ "id": it["id"], "name": it["name"], "created": it["created_at"] })
                    })
                    .collect();
                Ok(json!({ "snapshots": snapshots }))
            }
            Ask::Snapshot { folder, name } => {
                let volume = self.volume(&folder)?;
                let arguments = ["volume", "snapshot", "create", &volume, "--name", &name];
                Ok(json!({ "id": self.program.run(arguments).await?["id"] }))
            }
            Ask::Restore { folder, snapshot } => {
                let volume = self.volume(&folder)?;
                self.program.run(["volume", "snapshot", "restore", &volume, &snapshot]).await?;
                Ok(json!({}))
            }
            Ask::Fork { folder } => {
                let volume = self.volume(&folder)?;
                Ok(json!({ "volume": self.program.run(["volume", "fork", &volume]).await?["id"] }))
            }
            Ask::Agent { folder } => self.agent(self.place(&folder)?).await,
            Ask::Log { folder } => {
                let (directory, _) = self.place(&folder)?.attached()?;
                Ok(json!({ "file": directory.log() }))
            }
            Ask::Keep(choice) => self.decide(choice, true).await,
            Ask::Revert(choice) => self.decide(choice, false).await,
            Ask::Resolve { folder, paths, way, name } => {
                self.resolve(self.place(&folder)?, &paths, way, name).await
            }
            Ask::SettleHeld { folder, path, way } => {
                let end = match way {
                    HeldWay::Take => HoldWay::Take,
                    HeldWay::Discard => HoldWay::Discard,
                    HeldWay::KeepBoth => HoldWay::KeepBoth,
                };
                let request = Request::SettleHeld { path: tree_path(&path)?, end };
                match self.place(&folder)?.ask(request).await? {
                    Answer::HoldSettled { beside } => Ok(json!({ "beside": beside })),
                    other => Err(unexpected(&other)),
                }
            }
            Ask::Content { uri } => Ok(json!({ "text": self.content(&uri).await? })),
            // Those are answered from what is known.
            Ask::State {} | Ask::Hunks { .. } | Ask::Compare { .. } => Ok(Value::Null),
        }
    }

    fn volume(&self, folder: &str) -> Result<String, String> {
        Ok(self.place(folder)?.attached()?.1.volume_id.clone())
    }

    async fn attach(
        &self,
        place: &Place,
        volume: Option<String>,
        init_from: Option<String>,
    ) -> Result<Value, String> {
        let volume = match volume {
            Some(volume) => volume,
            None => {
                if !self.program.names_service() {
                    self.program.run(["serve", "--background"]).await?;
                }
                let made = self.program.run(["volume", "create"]).await?;
                made["id"].as_str().ok_or("the new Volume has no id")?.to_owned()
            }
        };
        let mut arguments = vec!["sync".into(), "attach".into(), volume.clone().into()];
        arguments.extend([argument(&place.path), "--no-wait".into()]);
        if let Some(side) = init_from.or_else(|| self.settings.attach.init_from.clone()) {
            arguments.extend(["--init-from".into(), side.into()]);
        }
        if let Some(pause) = &self.settings.attach.pause {
            arguments.extend(["--pause".into(), pause.into()]);
        }
        for pattern in &self.settings.attach.ignore {
            arguments.extend(["--ignore".into(), pattern.into()]);
        }
        let guard = &self.settings.attach.guard;
        if guard.is_empty() {
            arguments.push("--no-guard".into());
        } else if guard != GUARDED {
            for pattern in guard {
                arguments.extend(["--guard".into(), pattern.into()]);
            }
        }
        self.program.run(arguments).await?;
        Ok(json!({ "volume": volume }))
    }

    async fn volumes(&self) -> Result<Value, String> {
        let listed = self.program.run(["volume", "list"]).await?;
        let attached = self.program.state.list().unwrap_or_default();
        let volumes: Vec<Value> = listed
            .as_array()
            .into_iter()
            .flatten()
            .map(|it| {
                let here = attached.iter().filter(|(_, at)| it["id"] == at.volume_id.as_str());
                let roots: Vec<_> = here.map(|(_, at)| at.root.display().to_string()).collect();
                json!({ "id": it["id"], "created": it["created_at"], "attachedHere": roots })
            })
            .collect();
        Ok(json!({ "volumes": volumes }))
    }

    /// A second directory of the same Volume, for an agent to work in.
    async fn agent(&self, place: &Place) -> Result<Value, String> {
        let (_, attachment) = place.attached()?;
        let name = attachment.root.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_else(|| "workspace".into());
        // What s0 keeps for itself cannot be a workspace, so it lies beside that.
        let mut agents = self.program.state.path().as_os_str().to_owned();
        agents.push("-agents");
        let within = PathBuf::from(agents).join(&attachment.replica_id);
        let (directory, sandbox) = (within.join(name), "sb_agent");
        let arguments = [
            "sync".into(),
            "attach".into(),
            attachment.volume_id.clone().into(),
            argument(&directory),
            "--as".into(),
            "sandbox".into(),
            "--sandbox-id".into(),
            sandbox.into(),
        ];
        self.program.run(arguments).await?;
        Ok(json!({ "directory": directory, "sandbox": sandbox }))
    }

    async fn decide(&self, choice: Choice, keep: bool) -> Result<Value, String> {
        let version = |text: &String| {
            text.parse().map(ReviewVersion).map_err(|_| format!("{text} is not a version"))
        };
        let (place, choice) = match (&choice.uri, &choice.folder) {
            (Some(uri), _) => {
                let (place, path) = self.locate(uri)?;
                let chosen = match &choice.hunk {
                    Some(hunk) => HostChoice::Hunks { path, hunks: vec![hunk_id(hunk)?] },
                    None => HostChoice::Path {
                        path,
                        version: choice.version.as_ref().map(version).transpose()?,
                        agent: choice.actor.as_deref().and_then(state::actor_of),
                    },
                };
                (place, chosen)
            }
            (None, Some(folder)) => {
                let agent = match &choice.actor {
                    Some(id) => Some(state::actor_of(id).ok_or("this agent is not known")?),
                    None => None,
                };
                (self.place(folder)?, HostChoice::All { version: None, agent })
            }
            (None, None) => return Err("neither `uri` nor `folder` says what is meant".into()),
        };
        let request = if keep { Request::Keep { choice } } else { Request::Revert { choice } };
        match place.ask(request).await? {
            Answer::Decided { done, left } => Ok(json!({ "done": done, "refused": left })),
            other => Err(unexpected(&other)),
        }
    }

    async fn resolve(
        &self,
        place: &Place,
        paths: &[String],
        way: Way,
        name: Option<String>,
    ) -> Result<Value, String> {
        let paths = paths.iter().map(|path| tree_path(path)).collect::<Result<Vec<_>, _>>()?;
        let way = match way {
            Way::KeepMine => HostWay::KeepMine,
            Way::TakeTheirs => HostWay::TakeTheirs,
            Way::KeepBoth => HostWay::KeepBoth,
            Way::Merge => HostWay::Merge,
            Way::Mark => HostWay::Mark,
            Way::Ignore => HostWay::Ignore,
            Way::Rename => {
                let ([path], Some(name)) = (paths.as_slice(), name) else {
                    return Err("a rename is of one path, and to a name".into());
                };
                let to = tree_path(&name)?;
                place.ask(Request::Rename { path: path.clone(), to }).await?;
                return Ok(json!({ "results": [{ "path": path }] }));
            }
        };
        match place.ask(Request::Resolve { paths, way }).await? {
            Answer::Resolved { paths } => Ok(json!({ "results": paths })),
            other => Err(unexpected(&other)),
        }
    }

    /// A text that is not on the disk. What is not there is the empty one.
    async fn content(&self, uri: &str) -> Result<String, String> {
        let text = Text::parse(uri).ok_or_else(|| format!("{uri} names no text"))?;
        let place = self.place(&text.folder)?;
        let path = text.path;
        match text.version {
            Version::Base => place.side(path, Side::Base).await,
            Version::Mine => place.side(path, Side::Mine).await,
            Version::Theirs => place.side(path, Side::Theirs).await,
            Version::Reviewed => Ok(place.file(path).await?.reviewed.unwrap_or_default()),
            Version::Current => Ok(place.file(path).await?.current.unwrap_or_default()),
            Version::Incoming => {
                let there = place.attached()?.1.root.join(path.as_str());
                match place.control().await?.held_content(path).await {
                    Ok(content) => read(content.size, content.bytes).await,
                    // What came before it could be held is in the file.
                    Err(ControlError::Refused(why)) => {
                        tokio::fs::read_to_string(there).await.map_err(|_| why)
                    }
                    Err(error) => Err(error.to_string()),
                }
            }
            Version::At(seq) => place.at(path, Seq(seq)).await,
        }
    }
}

impl Place {
    pub(crate) fn attached(&self) -> Result<&(AttachmentDir, Attachment), String> {
        self.attached
            .as_ref()
            .ok_or_else(|| format!("{} is not attached to a Volume", self.path.display()))
    }

    /// The host; one that is just being started is waited for.
    async fn control(&self) -> Result<Control, String> {
        let directory = &self.attached()?.0;
        let deadline = Instant::now() + STARTING;
        loop {
            match Control::connect(directory).await {
                Err(ControlError::NotRunning)
                    if !directory.was_stopped() && Instant::now() < deadline =>
                {
                    tokio::time::sleep(AGAIN).await;
                }
                connected => return connected.map_err(|error| error.to_string()),
            }
        }
    }

    pub(crate) async fn ask(&self, request: Request) -> Result<Answer, String> {
        let mut control = self.control().await?;
        control.ask(&request).await.map_err(|error| error.to_string())
    }

    /// A file under review.
    pub(crate) async fn file(&self, path: TreePath) -> Result<FileView, String> {
        match self.ask(Request::ReviewFile { path }).await? {
            Answer::ReviewFile(file) => Ok(*file),
            other => Err(unexpected(&other)),
        }
    }

    /// One side of a conflict.
    pub(crate) async fn side(&self, path: TreePath, side: Side) -> Result<String, String> {
        match self.control().await?.content(path, side).await {
            Ok(content) => read(content.size, content.bytes).await,
            // A side that has nothing says so by refusing.
            Err(s0_host::ControlError::Refused(_)) => Ok(String::new()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn at(&self, path: TreePath, at: Seq) -> Result<String, String> {
        let (_, attachment) = self.attached()?;
        let client = attachment.service.client()?;
        let id = PathVersionId { path, at, follow: true };
        let found = client.path_at(&attachment.volume_id, &id).await;
        let state = found.map_err(|error| error.to_string())?.state;
        let Some(content) = state.content else {
            return Ok(state.target.map(|target| target.to_string()).unwrap_or_default());
        };
        if content.size > LARGEST {
            return Err("it is too large to be shown".into());
        }
        let stream = client.content(&attachment.volume_id, content.id, None).await;
        let mut stream = stream.map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await {
            bytes.extend_from_slice(&piece.map_err(|error| error.to_string())?);
        }
        String::from_utf8(bytes).map_err(|_| "it is not text (UTF-8)".into())
    }
}

async fn read(
    size: u64,
    bytes: Box<dyn tokio::io::AsyncRead + Send + Unpin>,
) -> Result<String, String> {
    if size > LARGEST {
        return Err("it is too large to be shown (more than 16 MiB)".into());
    }
    let mut whole = Vec::new();
    let mut bytes = bytes.take(LARGEST);
    let read = bytes.read_to_end(&mut whole);
    let read = tokio::time::timeout(Duration::from_secs(30), read).await;
    read.map_err(|_| "the host does not send it".to_owned())?.map_err(|error| error.to_string())?;
    String::from_utf8(whole).map_err(|_| "it is not text (UTF-8)".into())
}

fn tree_path(text: &str) -> Result<TreePath, String> {
    TreePath::new(text).map_err(|error| format!("{text}: {error}"))
}

/// The name of a hunk, for clients.
pub(crate) fn hunk_name(id: HunkId) -> String {
    format!("{}-{}", id.version.0, id.number)
}

fn hunk_id(name: &str) -> Result<HunkId, String> {
    let parsed = name.split_once('-').and_then(|(version, number)| {
        Some(HunkId { version: ReviewVersion(version.parse().ok()?), number: number.parse().ok()? })
    });
    parsed.ok_or_else(|| format!("{name} names no hunk"))
}

pub(crate) fn unexpected(answer: &Answer) -> String {
    format!("the host answered {answer:?}")
}

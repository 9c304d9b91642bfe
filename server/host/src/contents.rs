//! Contents of the Volume, in memory.

use futures_util::StreamExt as _;
use s0_tree::Content;

use crate::host::Host;

/// All of a content, checked. Who asks has bounded its size.
pub(crate) async fn fetch(host: &Host, content: Content) -> Result<Vec<u8>, String> {
    let found = fetch_if_there(host, content).await?;
    found.ok_or_else(|| "the Volume does not have this content any more".into())
}

/// The same; nothing when the service answers that it does not give it.
pub(crate) async fn fetch_if_there(
    host: &Host,
    content: Content,
) -> Result<Option<Vec<u8>>, String> {
    let client = host.attachment.service.client()?;
    let volume = &host.attachment.volume_id;
    let asked = client.content(volume, content.id, None).await;
    let mut stream = match asked {
        Err(error) if !error.is_transient() => return Ok(None),
        asked => asked.map_err(|error| error.to_string())?,
    };
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece.map_err(|error| error.to_string())?);
        if bytes.len() as u64 > content.size {
            break;
        }
    }
    if Content::of(&bytes) != content {
        return Err("the service gave another content than was asked for; try again".into());
    }
    Ok(Some(bytes))
}

//! What every content store does.

use bytes::Bytes;
use s0_tree::{ContentId, Hash};

use super::Contents;

/// `open` gives the store as it was left, every time.
pub(crate) async fn suite<S: Contents>(open: impl Fn() -> S) {
    let bytes = Bytes::from(vec![7; 100_000]);
    let (chunk, recipe) = (Hash::of(&bytes), Hash::of(b"recipe"));
    let (chunk, recipe) = (ContentId::Chunk(chunk), ContentId::Recipe(recipe));
    let store = open();
    assert_eq!(store.get("a", chunk).await.unwrap(), None);
    assert_eq!(store.size("a", chunk).await.unwrap(), None);
    let both = vec![(chunk, bytes.clone()), (recipe, Bytes::from_static(b"recipe"))];
    store.put("a", both.clone()).await.unwrap();
    // Again is fine, and so is twice in one call.
    store.put("a", both.into_iter().cycle().take(4).collect()).await.unwrap();
    drop(store);
    let store = open();
    assert_eq!(store.get("a", chunk).await.unwrap(), Some(bytes));
    assert_eq!(store.size("a", chunk).await.unwrap(), Some(100_000));
    assert_eq!(store.get("a", recipe).await.unwrap().unwrap(), &b"recipe"[..]);
    assert!(store.verify("a", chunk).await.unwrap());
    assert!(!store.verify("b", chunk).await.unwrap());
    // A chunk and a recipe of one hash are two things, and teams are apart.
    assert_eq!(store.get("a", ContentId::Chunk(recipe.hash())).await.unwrap(), None);
    assert_eq!(store.get("b", chunk).await.unwrap(), None);
    // A team's name is text, not a path.
    store.put("../../x", vec![(recipe, Bytes::from_static(b"recipe"))]).await.unwrap();
    assert!(store.get("../../x", recipe).await.unwrap().is_some());
    // Many at once.
    let store = std::sync::Arc::new(store);
    let tasks: Vec<_> = (0..8_u8)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for step in 0..10_u8 {
                    let bytes = Bytes::from(vec![step, task % 2]);
                    let id = ContentId::Chunk(Hash::of(&bytes));
                    store.put("a", vec![(id, bytes.clone())]).await.unwrap();
                    assert_eq!(store.get("a", id).await.unwrap(), Some(bytes));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

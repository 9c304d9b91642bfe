//! Watching files over a WebSocket.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use s0_tree::{Action, AttributeChange, Change, RenameHow};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::rig::{Rig, path, registration, submission};

struct Watcher(WebSocketStream<TcpStream>);

impl Watcher {
    async fn try_open(rig: &Rig, volume: &str, token: &str) -> Result<Self, u16> {
        let address = rig.url.strip_prefix("http://").unwrap();
        let url = format!("ws://{address}/api/v1/sandboxvolumes/{volume}/files/watch");
        let mut request = url.into_client_request().unwrap();
        let token = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", token);
        // What a client does not read lies with the service, and not in its socket.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        let stream = socket.connect(address.parse().unwrap()).await.unwrap();
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((stream, _)) => Ok(Self(stream)),
            Err(Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(other) => panic!("{other}"),
        }
    }

    async fn open(rig: &Rig, volume: &str) -> Self {
        Self::try_open(rig, volume, &rig.token).await.unwrap_or_else(|status| panic!("{status}"))
    }

    async fn say(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn next(&mut self) -> Message {
        let next = async {
            loop {
                match self.0.next().await.expect("no end").unwrap() {
                    Message::Ping(_) | Message::Pong(_) => {}
                    other => return other,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), next).await.expect("a message in time")
    }

    async fn hear(&mut self) -> Value {
        serde_json::from_str(self.next().await.to_text().unwrap()).unwrap()
    }

    async fn subscribe(&mut self, at: &str, recursive: bool) -> String {
        self.say(json!({"action": "subscribe", "path": at, "recursive": recursive})).await;
        let said = self.hear().await;
        assert_eq!(said["type"], "subscribed", "{said}");
        said["watch_id"].as_str().unwrap().to_owned()
    }

    /// An event without what differs from run to run.
    async fn event(&mut self, watch: &str) -> [String; 3] {
        let said = self.hear().await;
        assert_eq!((&said["type"], &said["watch_id"]), (&json!("event"), &json!(watch)), "{said}");
        ["event", "path", "old_path"].map(|key| said[key].as_str().unwrap().to_owned())
    }
}

/// The id of a token.
async fn client_id(rig: &Rig, token: &str) -> String {
    let own = rig.as_bearer(Some(token), Method::GET, "/api-keys/current", ()).await.1;
    own["data"]["api_key"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_is_watched_is_told_and_nothing_else() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    rig.write(&volume, "d/before", "1").await;
    let mut one = Watcher::open(&rig, &volume).await;
    one.say(json!({"action": "subscribe", "path": " d//x/../ ", "recursive": true})).await;
    let said = one.hear().await;
    assert_eq!((&said["type"], &said["path"]), (&json!("subscribed"), &json!("/d")));
    let below = said["watch_id"].as_str().unwrap().to_owned();
    rig.write(&volume, "d/deep/f", "1").await;
    assert_eq!(one.event(&below).await, ["create", "/d/deep", ""]);
    assert_eq!(one.event(&below).await, ["create", "/d/deep/f", ""]);
    rig.write(&volume, "dd", "not below").await;
    rig.write(&volume, "d/deep/f", "2").await;
    assert_eq!(one.event(&below).await, ["write", "/d/deep/f", ""]);
    // A rename is told to both sides.
    rig.client.move_file(&volume, "d/deep/f", "out").await.unwrap();
    assert_eq!(one.event(&below).await, ["rename", "/out", "/d/deep/f"]);
    rig.client.move_file(&volume, "out", "d/back").await.unwrap();
    assert_eq!(one.event(&below).await, ["rename", "/d/back", "/out"]);
    rig.client.remove_file(&volume, "d/back").await.unwrap();
    assert_eq!(one.event(&below).await, ["remove", "/d/back", ""]);

    // Several share a connection; without `recursive` it is that path alone, and the root is
    // everything.
    let exact = one.subscribe("d", false).await;
    let root = one.subscribe("", false).await;
    rig.write(&volume, "d/g", "1").await;
    assert_eq!(one.event(&below).await, ["create", "/d/g", ""]);
    assert_eq!(one.event(&root).await, ["create", "/d/g", ""]);
    rig.client.move_file(&volume, "d", "e").await.unwrap();
    for id in [&below, &exact, &root] {
        assert_eq!(one.event(id).await, ["rename", "/e", "/d"]);
    }
    one.say(json!({"action": "unsubscribe", "watch_id": "none"})).await;
    one.say(json!({"action": "unsubscribe", "watch_id": below})).await;
    assert_eq!(one.hear().await, json!({"type": "unsubscribed", "watch_id": below}));
    one.say(json!({"action": "unsubscribe", "watch_id": root})).await;
    assert_eq!(one.hear().await["type"], "unsubscribed");
    rig.write(&volume, "e/quiet", "1").await;
    rig.write(&volume, "d", "1").await;
    assert_eq!(one.event(&exact).await, ["create", "/d", ""]);
    // Nothing else was told before this.
    let end = one.subscribe("end", false).await;
    rig.write(&volume, "end", "1").await;
    assert_eq!(one.event(&end).await, ["create", "/end", ""]);
}

#[tokio::test]
async fn what_has_no_word_is_to_be_looked_at_again() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    rig.write(&volume, "a/f", "1").await;
    rig.write(&volume, "b/f", "2").await;
    rig.client.register(&volume, "r", &registration()).await.unwrap();
    let mut one = Watcher::open(&rig, &volume).await;
    let in_b = one.subscribe("/b", true).await;
    let everything = one.subscribe("/", true).await;
    let exchange = Action::Rename { from: path("a/f"), to: path("b/f"), how: RenameHow::Exchange };
    let chmod = Action::Attributes { path: path("b/f"), set: AttributeChange::mode(0o600) };
    let changes = [exchange, chmod].map(Change::unstated);
    rig.client.submit(&volume, "r", 1, &submission(1, &changes), &[]).await.unwrap();
    assert_eq!(one.event(&in_b).await, ["invalidate", "/b/f", ""]);
    for at in ["/b/f", "/a/f"] {
        assert_eq!(one.event(&everything).await, ["invalidate", at, ""]);
    }
    for id in [&in_b, &everything] {
        assert_eq!(one.event(id).await, ["chmod", "/b/f", ""]);
    }
}

#[tokio::test]
async fn one_who_falls_behind_looks_again() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    let mut one = Watcher::open(&rig, &volume).await;
    let mut all = Vec::new();
    for _ in 0..30 {
        all.push(one.subscribe("/", true).await);
    }
    let other = one.subscribe("elsewhere", true).await;
    // More than the service keeps in memory, while nobody reads.
    let replica = format!("/api/v1/sandboxvolumes/{volume}/sync/replicas/r");
    rig.data(Method::PUT, &replica, json!({"case_sensitive": true})).await;
    let name = "n".repeat(200);
    for round in 0..4 {
        let changes: Vec<Value> = (0..1000)
            .map(|at| json!({"event_type": "create", "path": format!("/{name}{round}-{at}")}))
            .collect();
        let body = json!({"request_id": round.to_string(), "base_seq": round * 1000,
            "changes": changes});
        rig.data(Method::POST, &format!("{replica}/changes"), body).await;
    }
    let mut again = Vec::new();
    for told in 0.. {
        assert!(told < 4000 * 30, "it never fell behind");
        let said = one.hear().await;
        if said["event"] == "invalidate" {
            again.push((said["watch_id"].clone(), said["path"].clone()));
            if again.len() == all.len() + 1 {
                break;
            }
        } else {
            assert_eq!(said["event"], "create");
            assert!(again.is_empty(), "what comes later is told later");
        }
    }
    let mut expected: Vec<_> = all.iter().map(|id| (json!(id), json!("/"))).collect();
    expected.push((json!(other), json!("/elsewhere")));
    assert_eq!(again, expected);
    // And then it goes on: with what was made since, if it fell behind before the end.
    rig.write(&volume, "elsewhere", "1").await;
    for id in all.iter().chain([&other]) {
        let mut said = one.hear().await;
        while said["path"] != "/elsewhere" {
            assert_eq!((&said["type"], &said["event"]), (&json!("event"), &json!("create")));
            said = one.hear().await;
        }
        assert_eq!((&said["event"], &said["watch_id"]), (&json!("create"), &json!(id)));
    }
}

#[tokio::test]
async fn wrong_messages_are_answered_and_the_connection_stays() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    let mut one = Watcher::open(&rig, &volume).await;
    let long = "x".repeat(5000);
    for wrong in [
        "",
        "{",
        "[]",
        "null",
        r#"{"action": 1}"#,
        r#"{"action": "fly"}"#,
        "{}",
        r#"{"action": "subscribe", "path": "a\u0000b"}"#,
        r#"{"action": "subscribe", "path": "C:/x"}"#,
        &format!(r#"{{"action": "subscribe", "path": "{long}"}}"#),
    ] {
        one.0.send(Message::text(wrong)).await.unwrap();
        let said = one.hear().await;
        assert!(said["type"] == "error" && said["error"].is_string(), "{wrong}: {said}");
    }
    one.0.send(Message::binary(vec![1, 2])).await.unwrap();
    assert_eq!(one.hear().await["type"], "error");
    // As many subscriptions as are allowed, and not one more.
    let first = one.subscribe("/", true).await;
    for _ in 1..256 {
        one.subscribe("/", true).await;
    }
    one.say(json!({"action": "subscribe", "path": "/"})).await;
    assert_eq!(one.hear().await["type"], "error");
    one.say(json!({"action": "unsubscribe", "watch_id": first})).await;
    assert_eq!(one.hear().await["type"], "unsubscribed");
    one.subscribe("/", true).await;
    // A message that is too large ends the connection.
    let large = json!({"action": "subscribe", "path": "x".repeat(70_000)}).to_string();
    one.0.send(Message::text(large)).await.unwrap();
    while let Some(Ok(message)) = one.0.next().await {
        assert!(message.is_close(), "{message}");
    }
    // The service goes on.
    Watcher::open(&rig, &volume).await.subscribe("/", true).await;
}

#[tokio::test]
async fn only_those_watch_who_may_read_and_only_as_long() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    let opened = async |token: &str, volume: &str| {
        Watcher::try_open(&rig, volume, token).await.map(|_| ()).err()
    };
    let (builder, viewer) =
        (rig.token_of("local", "builder").await, rig.token_of("local", "viewer").await);
    let other = rig.token_of("others", "admin").await;
    assert_eq!(opened("wrong", &volume).await, Some(401));
    assert_eq!(opened(&builder, &volume).await, Some(403));
    assert_eq!(opened(&other, &volume).await, Some(404));
    assert_eq!(opened(&rig.token, "none").await, Some(404));
    assert_eq!(opened(&viewer, &volume).await, None);

    // Streams end with their token, at the next look at it.
    let mut ended = Watcher::try_open(&rig, &volume, &viewer).await.unwrap_or_else(|_| panic!());
    let client = s0_api::Client::new(&rig.url, &viewer).unwrap();
    let mut events = client.events(&volume, s0_tree::Seq(0), None).await.unwrap();
    ended.subscribe("/", true).await;
    let id = client_id(&rig, &viewer).await;
    rig.data(Method::DELETE, &format!("/api-keys/{id}"), ()).await;
    let both = async {
        let watched = loop {
            match ended.0.next().await.expect("a close").unwrap() {
                Message::Close(frame) => break frame.unwrap().code,
                other => assert!(other.is_ping(), "{other:?}"),
            }
        };
        while events.next().await.is_some() {}
        watched
    };
    let watched = tokio::time::timeout(Duration::from_secs(60), both).await.expect("they end");
    assert_eq!(watched, CloseCode::Policy);

    let closed = async |mut one: Watcher| loop {
        match one.next().await {
            Message::Close(Some(frame)) => return frame.code,
            other => assert!(!other.is_close(), "{other:?}"),
        }
    };
    let mut one = Watcher::open(&rig, &volume).await;
    one.subscribe("/", true).await;
    rig.client.delete_volume(&volume, false).await.unwrap();
    assert_eq!(closed(one).await, CloseCode::Normal, "the Volume is gone");
    let volume = rig.volume().await;
    let mut one = Watcher::open(&rig, &volume).await;
    one.subscribe("/", true).await;
    rig.shut_down().await;
    assert_eq!(closed(one).await, CloseCode::Away, "the service ends");
}

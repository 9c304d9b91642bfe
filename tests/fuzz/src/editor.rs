//! What editors send.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use s0_host::StateDir;
use s0_sidecar::{Program, fuzzing};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::Runtime;

use crate::{joined, parts, texts};

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    })
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = format!("Content-Length: {}\r\n\r\n", message.len()).into_bytes();
    frame.extend_from_slice(message);
    frame
}

/// Messages of an editor, a part for each; a part that begins with 0 goes out without a
/// frame. All that comes back is frames of JSON.
pub(crate) fn lsp(data: &[u8]) {
    let mut input = Vec::new();
    for part in parts(data).take(12) {
        match part.strip_prefix(b"\0") {
            Some(raw) => input.extend_from_slice(raw),
            None => input.extend(framed(part)),
        }
    }
    let program = Program {
        path: "/bin/false".into(),
        options: Vec::new(),
        token: None,
        state: StateDir::new(Path::new("/nonexistent/s0-fuzz").into()),
    };
    let output = runtime().block_on(async {
        let (mut ours, theirs) = tokio::io::duplex(1 << 20);
        let (reader, writer) = tokio::io::split(theirs);
        let (end, output) = (
            tokio::spawn(async move {
                let mut output = Vec::new();
                let (mut back, mut forth) = tokio::io::split(&mut ours);
                let read = async {
                    use tokio::io::AsyncReadExt as _;
                    let mut piece = [0; 4096];
                    while let Ok(count @ 1..) = back.read(&mut piece).await {
                        output.extend_from_slice(&piece[..count]);
                    }
                };
                let write = async {
                    let _ = forth.write_all(&input).await;
                    let _ = forth.shutdown().await;
                };
                tokio::join!(read, write);
                output
            }),
            fuzzing::serve(program, reader, writer),
        );
        let ended = tokio::time::timeout(Duration::from_secs(5), output).await;
        assert!(ended.is_ok(), "the sidecar does not end with its input");
        end.await.unwrap()
    });
    let mut rest = &output[..];
    while !rest.is_empty() {
        let at = rest.windows(4).position(|four| four == b"\r\n\r\n").expect("a head ends");
        let head = std::str::from_utf8(&rest[..at]).expect("a head is text");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.expect("a head has a length").parse().unwrap();
        let body = &rest[at + 4..];
        serde_json::from_slice::<Value>(&body[..length]).expect("a body is JSON");
        rest = &body[length..];
    }
}

pub(crate) fn lsp_seeds() -> Vec<Vec<u8>> {
    let ask = |id: u32, method: &str, params: Value| {
        json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
    };
    let tell = |method: &str, params: Value| {
        json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string()
    };
    let initialize =
        ask(1, "initialize", json!({"capabilities": {"experimental": {"s0Sync": {}}}}));
    let initialized = tell("initialized", json!({}));
    let uri = "file:///nonexistent/a.txt";
    let open = tell(
        "textDocument/didOpen",
        json!({"textDocument": {"uri": uri, "languageId": "t", "version": 1, "text": "a\nb\n"}}),
    );
    let change = tell(
        "textDocument/didChange",
        json!({"textDocument": {"uri": uri, "version": 2}, "contentChanges": [{"range": {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 1}}, "text": "x"}]}),
    );
    let action = ask(
        2,
        "textDocument/codeAction",
        json!({"textDocument": {"uri": uri}, "range": {"start": {"line": 0, "character": 0}, "end": {"line": 9, "character": 0}}, "context": {"diagnostics": []}}),
    );
    vec![
        joined([
            &initialize,
            &initialized,
            &open,
            &change,
            &action,
            &ask(3, "shutdown", Value::Null),
            &tell("exit", Value::Null),
        ]),
        joined([
            &initialize,
            &initialized,
            &ask(2, "s0-sync/state", json!({"folder": "file:///x"})),
            &ask(
                3,
                "workspace/executeCommand",
                json!({"command": "s0-sync.keep", "arguments": []}),
            ),
        ]),
        joined([
            &initialize,
            "\0Content-Length: 3\r\nContent-Type: x\r\n\r\n{}\n",
            "\0Content-Length: 99999999999\r\n\r\n",
            "[]",
        ]),
    ]
}

/// Edits of a document, as a model says that looks for positions the long way.
pub(crate) fn documents(data: &[u8]) {
    let mut all = texts(data);
    let (Some(text), Some(edit)) = (all.next(), all.next()) else { return };
    let mut bytes = edit.bytes();
    let mut number = || u32::from(bytes.next().unwrap_or_default() % 16);
    let (l1, c1, l2, c2) = (number(), number(), number(), number());
    let new: String = edit.chars().skip(4).collect();
    let changes = json!([{"range": {"start": {"line": l1, "character": c1}, "end": {"line": l2, "character": c2}}, "text": new}]);
    for utf16 in [false, true] {
        let start = position(text, l1, c1, utf16);
        let end = position(text, l2, c2, utf16).max(start);
        let wanted = format!("{}{new}{}", &text[..start], &text[end..]);
        assert_eq!(fuzzing::changed(text, changes.clone(), utf16), Some(wanted));
    }
}

/// The last byte that is a character's first, in this line, with no more than so many units
/// before it.
fn position(text: &str, line: u32, character: u32, utf16: bool) -> usize {
    let (mut at_line, mut units, mut found) = (0, 0, None);
    for (at, c) in text.char_indices() {
        if at_line == line && units <= character {
            found = Some(at);
        }
        match c {
            '\n' => (at_line, units) = (at_line + 1, 0),
            c => units += u32::try_from(if utf16 { c.len_utf16() } else { c.len_utf8() }).unwrap(),
        }
    }
    if at_line == line && units <= character { text.len() } else { found.unwrap_or(text.len()) }
}

pub(crate) fn document_seeds() -> Vec<Vec<u8>> {
    vec![
        joined(["aé𝄞b\nsecond\r\n", "\0\x01\0\x03new"]),
        joined(["", "\x01\x01\x02\x02x"]),
        joined(["a\n\nb", "\0\x09\x02\0"]),
    ]
}

/// URIs: what is understood is written so that it is understood alike.
pub(crate) fn uris(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(again) = fuzzing::text_uri(text) {
        assert_eq!(fuzzing::text_uri(&again).as_ref(), Some(&again), "{text:?}");
    }
    if let Some((file, again)) = fuzzing::file_uri(text)
        && !again.is_empty()
    {
        assert_eq!(fuzzing::file_uri(&again).map(|(file, _)| file), Some(file), "{text:?}");
    }
}

pub(crate) fn uri_seeds() -> Vec<Vec<u8>> {
    [
        "s0-sync:/a/b.txt?folder=file%3A%2F%2F%2Fx&version=base",
        "s0-sync:///a?folder=f&version=at:17",
        "file:///a/b%20c",
        "file://host/x",
        "s0-sync:/a?folder%3Df%26version%3Dmine",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// Settings and our own requests.
pub(crate) fn messages(data: &[u8]) {
    let mut all = texts(data);
    let (Some(name), Some(params)) = (all.next(), all.next()) else { return };
    if let Ok(value) = serde_json::from_str(params) {
        let _ = fuzzing::understands(name, value);
    }
}

pub(crate) fn message_seeds() -> Vec<Vec<u8>> {
    [
        ("keep", r#"{"folder":"f","path":"a","hunks":["1-0"]}"#),
        ("resolve", r#"{"folder":"f","path":"a","how":"keepMine"}"#),
        ("state", r#"{"s0-sync":{"attach":{"initFrom":"auto"},"guard":null}}"#),
        ("log", "null"),
    ]
    .map(|(name, params)| joined([name, params]))
    .into()
}

//! The command line, its file of profiles, and what it shows.

use s0_cli::fuzzing;

use crate::{joined, parts, texts};

/// A file of profiles: understood, or refused with a place and never with a token of it.
pub(crate) fn profiles(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(said) = fuzzing::profile(text, None) {
        assert!(said.contains("/c/config.toml"), "{said}");
        // Names of fields are told; what stands there as a token never is.
        let is_value = |line: &str| {
            line.trim_start()
                .strip_prefix("token = ")
                .is_some_and(|rest| rest.matches("hush").count() == 1)
        };
        let only_as_value = text.lines().all(|line| !line.contains("hush") || is_value(line));
        assert!(!only_as_value || !said.contains("hush-hush"), "{said}");
        assert!(!said.contains('\x1b'), "{said:?}");
    }
}

pub(crate) fn profile_seeds() -> Vec<Vec<u8>> {
    [
        "profile = \"work\"\n[profiles.work]\nbase_url = \"https://w\"\ntoken = \"hush-hush\"\n",
        "[profiles.a]\ntoken_file = \"t\"\nbase_url = \"x\"\n[profiles.b]\ntoken = [\"hush-hush\"]",
        "[profiles.default]\ntoken = \"hush-hush\nx",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// A command line.
pub(crate) fn arguments(data: &[u8]) {
    use std::os::unix::ffi::OsStringExt as _;
    let all = parts(data).take(16).map(|part| std::ffi::OsString::from_vec(part.to_vec()));
    let all: Vec<_> = std::iter::once("s0".into()).chain(all).collect();
    let _ = fuzzing::arguments(all);
}

pub(crate) fn argument_seeds() -> Vec<Vec<u8>> {
    vec![
        joined(["sync", "show", "main.rs@17"]),
        joined([
            "sync",
            "attach",
            "V",
            "dir",
            "--as",
            "sandbox",
            "--sandbox-id",
            "sb",
            "--ignore",
            "*.o",
        ]),
        joined(["serve", "--listen", "127.0.0.1:0", "--retention-entries", "5"]),
        joined(["sync", "restore", "a@b@3", "--seen", "23"]),
        joined(["--stdio"]),
        joined(["sync", "flush", "--timeout", "1.5s"]),
    ]
}

/// Texts of others on a terminal: no command among them, whatever they are put into.
pub(crate) fn screen(data: &[u8]) {
    let all: Vec<String> = texts(data).take(9).map(str::to_owned).collect();
    let rows: Vec<Vec<String>> = all.chunks(3).map(<[String]>::to_vec).collect();
    let tame = |text: &str, lines: bool| {
        text.chars().all(|c| !c.is_control() || (lines && c == '\n'))
            && !text.contains(['\u{202e}', '\u{2066}', '\u{2028}', '\u{200f}'])
    };
    let table = fuzzing::table(&rows);
    assert!(tame(&table, true), "{table:?}");
    for text in &all {
        let (one, several) = fuzzing::shown(text);
        assert!(tame(&one, false), "{one:?}");
        assert!(tame(&several, true), "{several:?}");
        assert_eq!(fuzzing::shown(&one).0, one);
        let cut = fuzzing::cut(&one, 20);
        assert!(cut.chars().count() <= 20, "{cut:?}");
    }
}

pub(crate) fn screen_seeds() -> Vec<Vec<u8>> {
    vec![joined(["a", "b\x1b[31m", "c\n", "\u{202e}evil", "\u{fdd0}x", "日本語日本語日本語日本語"])]
}

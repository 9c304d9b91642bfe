//! Earlier versions of files: seen, read, brought back.

mod machine;

use machine::{Machine, Service, text};
use serde_json::Value;

/// A workspace, and an agent's on the same Volume.
fn attached(service: &Service) -> (Machine, Machine) {
    let volume = service.volume();
    let (laptop, agent) = (service.machine("laptop"), service.machine("agent"));
    laptop.says(&["sync", "attach", &volume]);
    let stands_for = ["--as", "sandbox", "--sandbox-id", "sb_1"];
    agent.says(&[&["sync", "attach", &volume][..], &stands_for].concat());
    (laptop, agent)
}

fn save(machine: &Machine, path: &str, content: &str) {
    machine.write(path, content);
    machine.flush();
}

/// The versions of a path, newest first: seq, change and size.
fn versions(machine: &Machine, arguments: &[&str]) -> Vec<(u64, String, Option<u64>)> {
    let (code, history) = machine.json(&[&["sync", "history"], arguments].concat());
    assert_eq!(code, 0, "{history}");
    let each = |it: &Value| {
        let change = it["change"].as_str().unwrap().to_owned();
        (it["seq"].as_u64().unwrap(), change, it["content"]["size"].as_u64())
    };
    history["versions"].as_array().unwrap().iter().map(each).collect()
}

fn at(path: &str, seq: u64) -> String {
    format!("{path}@{seq}")
}

#[test]
fn an_earlier_version_is_listed_shown_and_brought_back() {
    let service = Service::start();
    let (laptop, agent) = attached(&service);
    std::fs::create_dir(laptop.root.join("src")).unwrap();
    save(&laptop, "src/a.txt", "one\n");
    agent.flush();
    save(&agent, "src/a.txt", "two, by the agent\n");
    laptop.flush();
    std::fs::rename(laptop.root.join("src/a.txt"), laptop.root.join("src/b.txt")).unwrap();
    laptop.flush();
    save(&laptop, "src/b.txt", "three\n");

    let all = versions(&laptop, &["src/b.txt"]);
    let told: Vec<_> = all.iter().map(|(_, change, size)| (change.as_str(), *size)).collect();
    let two = Some("two, by the agent\n".len() as u64);
    let expected = [("written", Some(6)), ("renamed", two), ("written", two), ("created", Some(4))];
    assert_eq!(told, expected);
    let first = all[3].0;
    let said = laptop.says(&["sync", "history", "src/b.txt"]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[1].contains("this workspace") && lines[1].ends_with("6 bytes"), "{said}");
    assert!(lines[2].contains("renamed from src/a.txt"), "{said}");
    assert!(lines[3].contains("sb_1") && lines[3].contains("written"), "{said}");
    assert!(said.contains(&format!("s0 sync restore src/b.txt@{}", all[1].0)), "{said}");
    assert_eq!(versions(&laptop, &["src/b.txt", "-n", "2"]), all[..2]);
    assert!(laptop.says(&["sync", "history", "src/b.txt", "-n", "2"]).contains("older ones: -n"));
    assert_eq!(versions(&laptop, &["src/b.txt", "--no-follow"]), all[..2], "since the rename");

    // Any seq will do, and paths are those of where one is.
    for (seq, text) in [(all[0].0, "three\n"), (all[2].0, "two, by the agent\n"), (first, "one\n")]
    {
        assert_eq!(laptop.says(&["sync", "show", &at("src/b.txt", seq)]), text);
        let mut below = laptop.command(&["sync", "show", &at("b.txt", seq)]);
        let below = below.current_dir(laptop.root.join("src")).output().unwrap();
        assert_eq!(machine::text(&below.stdout), text, "{}", machine::text(&below.stderr));
    }

    let said = laptop.says(&["sync", "restore", &at("src/b.txt", first)]);
    assert!(said.contains("4 bytes") && said.contains("workspaces follow"), "{said}");
    laptop.waits_for("src/b.txt", "one\n");
    agent.waits_for("src/b.txt", "one\n");
    let (code, again) = laptop.json(&["sync", "restore", &at("src/b.txt", first)]);
    assert_eq!((code, &again["seq"]), (0, &Value::Null), "it holds that already: {again}");

    // What is gone comes back, with its directory.
    std::fs::remove_dir_all(agent.root.join("src")).unwrap();
    agent.flush();
    laptop.flush();
    assert_eq!(laptop.read("src/b.txt"), None);
    assert_eq!(versions(&laptop, &["src/b.txt"])[0].1, "removed");
    laptop.says(&["sync", "restore", &at("src/b.txt", all[0].0)]);
    laptop.waits_for("src/b.txt", "three\n");
    agent.waits_for("src/b.txt", "three\n");
    std::os::unix::fs::symlink("src/b.txt", laptop.root.join("link")).unwrap();
    laptop.flush();
    let link = versions(&laptop, &["link"])[0].0;
    assert_eq!(laptop.says(&["sync", "show", &at("link", link)]), "src/b.txt");
}

#[test]
fn nothing_unseen_and_nothing_unsent_is_lost_to_a_restore() {
    let service = Service::start();
    let (laptop, agent) = attached(&service);
    save(&laptop, "a.txt", "one\n");
    let first = versions(&laptop, &["a.txt"])[0].0;
    save(&laptop, "a.txt", "two\n");
    let seen = versions(&laptop, &["a.txt"])[0].0.to_string();
    agent.flush();
    save(&agent, "a.txt", "three\n");
    let restore = ["sync", "restore", &at("a.txt", first), "--seen", &seen];
    let said = laptop.fails(1, &restore);
    assert!(
        said.contains("nothing was written") && said.contains("s0 sync history a.txt"),
        "{said}"
    );
    laptop.flush();
    assert_eq!(laptop.read("a.txt").as_deref(), Some("three\n"));
    assert_eq!(versions(&laptop, &["a.txt"]).len(), 3);
    assert_eq!(laptop.json(&["sync", "conflicts", "list"]).1, Value::Array(Vec::new()));

    // An edit that nobody has heard of stays on its disk, as a conflict.
    laptop.says(&["sync", "stop"]);
    laptop.write("a.txt", "unsent\n");
    agent.says(&["sync", "restore", &at("a.txt", first)]);
    agent.waits_for("a.txt", "one\n");
    assert_eq!(laptop.run(&["sync", "start"]).status.code(), Some(3));
    assert_eq!(laptop.read("a.txt").as_deref(), Some("unsent\n"));
    let (_, conflicts) = laptop.json(&["sync", "conflicts", "list"]);
    assert_eq!(conflicts[0]["path"], "a.txt");
    let theirs = ["sync", "conflicts", "show", "a.txt", "--side", "theirs"];
    assert_eq!(laptop.says(&theirs), "one\n");
}

#[test]
fn what_cannot_be_shown_or_brought_back_says_what_to_do() {
    let service = Service::start();
    let (laptop, _agent) = attached(&service);
    std::fs::create_dir(laptop.root.join("d")).unwrap();
    save(&laptop, "d/a.txt", "one\n");
    std::fs::remove_file(laptop.root.join("d/a.txt")).unwrap();
    laptop.flush();
    let removed = versions(&laptop, &["d/a.txt"])[0].0;
    let (gone, dir) = (at("d/a.txt", removed), at("d", removed));
    for (arguments, exit, said) in [
        (&["history", "none.txt"][..], 1, "nothing was ever at none.txt"),
        (&["history", "."], 1, "snapshot"),
        (&["history", "../elsewhere"], 1, "is not in"),
        (&["show", "d/a.txt"], 2, "s0 sync history PATH"),
        (&["show", "d/a.txt@x"], 2, "main.rs@17"),
        (&["show", "@1"], 2, "main.rs@17"),
        (&["show", &gone], 1, "nothing was at d/a.txt after entry"),
        (&["show", &dir], 1, "was a directory"),
        (&["show", "d/a.txt@999"], 1, "no entry 999 yet"),
        (&["restore", &gone], 1, "nothing was at d/a.txt then"),
        (&["restore", &dir], 1, "s0 volume snapshot restore"),
    ] {
        let failed = laptop.fails(exit, &[&["sync"], arguments].concat());
        assert!(failed.contains(said), "{arguments:?}: {failed}");
    }
    assert_eq!(laptop.read("d/a.txt"), None);

    let name = "evil\u{1b}[2J\u{202e}\n@7";
    save(&laptop, name, "x");
    for arguments in [&["history", name][..], &["show", &at(name, 1)], &["restore", &at(name, 1)]] {
        let output = laptop.run(&[&["sync"], arguments].concat());
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(!said.contains(['\u{1b}', '\u{202e}']), "{arguments:?}: {said:?}");
    }
    let seq = versions(&laptop, &[name])[0].0;
    assert_eq!(laptop.says(&["sync", "show", &at(name, seq)]), "x");
    let elsewhere = service.machine("elsewhere");
    assert!(elsewhere.fails(1, &["sync", "history", "a.txt"]).contains("no attached workspace"));
}

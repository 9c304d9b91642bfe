//! The ignore rules are Git's: compared with what `git check-ignore` says.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use s0_replica::disk::Rules;
use s0_replica::shell::disk::{Marker, RootDisk};
use s0_replica::shell::rules::GitRules;
use s0_tree::TreePath;

fn git(at: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(at)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("XDG_CONFIG_HOME", "/nonexistent");
    git
}

fn run(at: &Path, arguments: &[&str]) {
    let done = git(at).args(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Which of these paths Git ignores. A slash at the end makes a directory.
fn ignored_by_git(at: &Path, paths: &[String], index: &str) -> BTreeSet<String> {
    let mut child = git(at)
        .args(["check-ignore", "-z", "--stdin"])
        .args((!index.is_empty()).then_some(index))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // With a slash at the end, Git would match `a/` by `a/*`.
    let paths: Vec<_> = paths.iter().map(|path| path.trim_end_matches('/')).collect();
    stdin.write_all(paths.join("\0").as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap().stdout;
    let found = output.split(|byte| *byte == 0).filter(|path| !path.is_empty());
    found.map(|path| String::from_utf8(path.to_vec()).unwrap()).collect()
}

fn rules(at: &Path, settings: &[&str]) -> GitRules {
    let access = RootDisk::open(at, Marker::Create).unwrap().access();
    let settings: Vec<_> = settings.iter().map(ToString::to_string).collect();
    GitRules::new(access, &settings)
}

fn is_ignored(rules: &mut GitRules, path: &str) -> bool {
    let tree = TreePath::new(path.trim_end_matches('/')).unwrap();
    rules.is_ignored(&tree, path.ends_with('/'))
}

fn changed(rules: &mut GitRules, path: &str) -> bool {
    rules.changed(&TreePath::new(path).unwrap())
}

fn write(at: &Path, path: &str, text: &str) {
    let path = at.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A small generator: the cases are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

const NAMES: &[&str] =
    &["a", "b", "ab", "build", "x.log", "y.txt", ".env", "a b", "é", "{a}", "[b]", "a-b", "7"];
const PARTS: &[&str] = &[
    "a",
    "b",
    "*",
    "?",
    "**",
    "*.log",
    "build",
    "x.*",
    "[ab]",
    "[!a]",
    "[^a-x]",
    "a*b",
    "{a}",
    "{a,b}",
    "\\{a\\}",
    "[[:digit:]]",
    "[[:alpha:]-]",
    "[]-]",
    "[\\]a]",
    "[b]",
    "\\[b\\]",
    "[b",
    ".env",
    "é",
    "a\\ b",
    "a b",
    "[!!]",
    "[!a-]*",
    "[--0]",
    "a[!x]b",
    "[^]]",
    "[[:nope:]]",
    "[[:x]",
    "[z-a]",
    "a\\",
];

fn pattern(random: &mut Random) -> String {
    let mut text = String::new();
    text.push_str(random.pick(&["", "", "", "!", "!", "\\!", "#", "\\#"]));
    text.push_str(random.pick(&["", "", "/", "**/"]));
    for index in 0..=random.below(3) {
        if index > 0 {
            text.push('/');
        }
        text.push_str(random.pick(PARTS));
    }
    text.push_str(random.pick(&["", "", "", "/", "/**", "/*", " ", "  ", "\\ ", "\t", "\r"]));
    text
}

/// Makes a tree in which each name is a file and a directory somewhere, and
/// returns its paths, those of directories with a slash at the end.
fn grow(at: &Path) -> Vec<String> {
    let mut paths = vec!["7x".to_string(), "y.log".into()];
    for (outer, one) in NAMES.iter().enumerate() {
        paths.push(format!("{one}/"));
        for (inner, two) in NAMES.iter().enumerate() {
            if (outer + inner) % 2 == 0 {
                paths.push(format!("{one}/{two}"));
                continue;
            }
            paths.push(format!("{one}/{two}/"));
            for three in ["a", "b", "x.log", "build", ".env", "7", "-", "]", "a-b"] {
                paths.push(format!("{one}/{two}/{three}"));
            }
        }
    }
    for path in &paths {
        match path.strip_suffix('/') {
            Some(directory) => std::fs::create_dir(at.join(directory)).unwrap(),
            None => std::fs::write(at.join(path), "").unwrap(),
        }
    }
    paths
}

#[test]
fn rules_are_those_of_git() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    run(at, &["init", "-q"]);
    let paths = grow(at);
    let mut random = Random(11);
    let mut differences = Vec::new();
    for round in 0..300 {
        let mut files = Vec::new();
        for place in [".gitignore", "a/.gitignore", "build/a/.gitignore", ".git/info/exclude"] {
            let lines: Vec<_> = (0..random.below(4)).map(|_| pattern(&mut random)).collect();
            let text = lines.join("\n") + "\n";
            if !place.starts_with("build") || at.join("build/a").is_dir() {
                write(at, place, &text);
                files.push((place, text));
            }
        }
        let by_git = ignored_by_git(at, &paths, "--no-index");
        let mut rules = rules(at, &[]);
        let wrong = paths.iter().find(|path| {
            is_ignored(&mut rules, path) != by_git.contains(path.trim_end_matches('/'))
        });
        differences.extend(wrong.map(|path| (round, path, files)));
    }
    let shown: Vec<_> = differences.iter().take(12).collect();
    assert!(differences.is_empty(), "{} differences: {shown:#?}", differences.len());
}

#[test]
fn repositories_and_replicas_are_always_ignored() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), ".gitignore", "!.git\n!.s0\n");
    let mut rules = rules(dir.path(), &["!.git", "!**/.GIT/"]);
    for path in [".git", ".git/", ".git/config", "a/.GIT/x", "b/.Git", ".s0/", "c/.s0/id", ".S0/x"]
    {
        assert!(is_ignored(&mut rules, path), "{path}");
    }
    for path in ["", ".gitignore", "git/", ".github/", "a.git/", ".s0ignore", ".s0x"] {
        assert!(!is_ignored(&mut rules, path), "{path}");
    }
}

#[test]
fn the_nearest_file_decides() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    write(at, ".gitignore", "*.log\n*.bin\nout/\n");
    write(at, ".s0ignore", "!kept.log\n*.tmp\n");
    write(at, "a/.gitignore", "!*.bin\nkept.log\n");
    write(at, "out/.s0ignore", "!*\n");
    let mut rules = rules(at, &["*.iso", "!always.tmp"]);
    for (path, ignored) in [
        ("x.log", true),
        ("kept.log", false),
        ("a/kept.log", true),
        ("a/x.bin", false),
        ("b/x.bin", true),
        ("b/x.tmp", true),
        ("b/always.tmp", false),
        ("a/x.iso", true),
        ("out/", true),
        ("out/x.rs", true),
        ("out", false),
        ("src/x.rs", false),
    ] {
        assert_eq!(is_ignored(&mut rules, path), ignored, "{path}");
    }
}

#[test]
fn what_git_tracks_is_not_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    run(at, &["init", "-q"]);
    write(at, "build/kept/a", "");
    write(at, "build/other", "");
    write(at, "seen", "");
    run(at, &["add", "-f", "build/kept/a"]);
    write(at, ".gitignore", "build/\n");
    let mut rules = rules(at, &["kept"]);
    for (path, ignored) in [
        ("build/", false),
        ("build/kept/", false),
        ("build/kept/a", false),
        ("build/kept/b", true),
        ("build/other", true),
        ("buil", false),
    ] {
        assert_eq!(is_ignored(&mut rules, path), ignored, "{path}");
    }
    assert!(!changed(&mut rules, ".git/index"), "nothing happened");
    run(at, &["add", "seen"]);
    assert!(!changed(&mut rules, ".git/index"), "it was not ignored before");
    run(at, &["add", "-f", "build/other"]);
    assert!(!changed(&mut rules, ".git/index.lock"));
    assert!(changed(&mut rules, ".git/index"));
    assert!(!is_ignored(&mut rules, "build/other"));
    run(at, &["rm", "-q", "--cached", "build/other"]);
    assert!(changed(&mut rules, ".git/index"));
    assert!(is_ignored(&mut rules, "build/other"));
}

#[test]
fn linked_work_trees_and_inner_repositories() {
    let dir = tempfile::tempdir().unwrap();
    let (main, linked) = (dir.path().join("main"), dir.path().join("linked"));
    std::fs::create_dir(&main).unwrap();
    run(&main, &["init", "-q"]);
    run(
        &main,
        &["-c", "user.name=n", "-c", "user.email=e", "commit", "-q", "--allow-empty", "-m", "m"],
    );
    run(&main, &["worktree", "add", "-q", "../linked"]);
    write(&main, ".git/info/exclude", "*.local\n");
    write(&linked, "x.local", "");
    write(&linked, "y.local", "");
    run(&linked, &["add", "-f", "x.local"]);
    let mut rules_of_linked = rules(&linked, &[]);
    assert!(!is_ignored(&mut rules_of_linked, "x.local"));
    assert!(is_ignored(&mut rules_of_linked, "y.local"));

    // The same again, with the repositories inside of the root.
    let mut outer = rules(dir.path(), &[]);
    assert!(!is_ignored(&mut outer, "linked/x.local"));
    assert!(is_ignored(&mut outer, "linked/y.local"));
    assert!(is_ignored(&mut outer, "main/x.local"));
    assert!(!is_ignored(&mut outer, "x.local"));
}

#[test]
fn changed_rules_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let mut rules = rules(at, &[]);
    assert!(!is_ignored(&mut rules, "a/x.log"));
    write(at, ".gitignore", "*.log\n");
    assert!(changed(&mut rules, ".gitignore"));
    assert!(is_ignored(&mut rules, "a/x.log"));
    assert!(!changed(&mut rules, ".gitignore"), "it is the same as before");
    assert!(!changed(&mut rules, "a/x.log"));
    write(at, "a/.s0ignore", "!x.log\n");
    assert!(changed(&mut rules, "a/.s0ignore"));
    assert!(!is_ignored(&mut rules, "a/x.log"));
    std::fs::remove_file(at.join(".gitignore")).unwrap();
    assert!(changed(&mut rules, ".gitignore"));
    assert!(!is_ignored(&mut rules, "b/x.log"));
    // A directory that appears brings its own.
    write(at, "new/.gitignore", "*\n");
    assert!(!changed(&mut rules, "new/.gitignore"), "it was never asked for");
    assert!(is_ignored(&mut rules, "new/x"));

    run(at, &["init", "-q"]);
    write(at, ".git/info/exclude", "*.log\n");
    assert!(changed(&mut rules, ".git"));
    assert!(is_ignored(&mut rules, "b/x.log"));
    write(at, ".git/info/exclude", "");
    assert!(changed(&mut rules, ".git/info/exclude"));
    assert!(!is_ignored(&mut rules, "b/x.log"));
}

#[test]
fn rules_can_be_read_before_anybody_tells_of_them() {
    let root = tempfile::tempdir().unwrap();
    let at = root.path();
    run(at, &["init", "-q"]);
    write(at, "build/out.o", "");
    write(at, "build/tracked.o", "");
    run(at, &["add", "-f", "build/tracked.o"]);
    let mut rules = rules(at, &[]);
    assert!(!is_ignored(&mut rules, "build/out.o"));
    write(at, ".s0ignore", "/build/\n");
    assert!(!is_ignored(&mut rules, "build/out.o"));
    rules.read_again();
    assert!(is_ignored(&mut rules, "build/out.o"));
    for (path, tracked) in [("build/tracked.o", true), ("build", true), ("build/out.o", false)] {
        assert_eq!(rules.is_tracked(&TreePath::new(path).unwrap()), tracked, "{path}");
    }
    // What is heard of afterwards is no news.
    assert!(!changed(&mut rules, ".s0ignore"));
}

//! The tour ends well, and leaves nothing behind.

mod machine;

use machine::{names, s0, text};

#[test]
fn the_tour_ends_equal_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let output =
        s0().args(["up", "--tour"]).env("HOME", home.path()).env("TMPDIR", home.path()).output();
    let output = output.unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    for step in ["a sandbox has the same files", "a conflict at config.toml", "you keep yours"] {
        assert!(out.contains(step), "{step}: {out}");
    }
    assert_eq!(names(home.path()), Vec::<String>::new());
}

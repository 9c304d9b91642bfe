//! What is printed, for people and for programs, and what is written for them.

mod machine;

use machine::{Machine, Service, text};
use serde_json::Value;

fn attached() -> (Service, String, Machine) {
    let service = Service::start();
    let (volume, laptop) = (service.volume(), service.machine("laptop"));
    laptop.says(&["sync", "attach", &volume]);
    (service, volume, laptop)
}

#[test]
fn an_open_conflict_is_not_equal() {
    let (service, volume, laptop) = attached();
    let sandbox = service.machine("sandbox");
    laptop.write("shared.txt", "base\n");
    laptop.flush();
    laptop.says(&["sync", "stop"]);
    let stands_for = ["--as", "sandbox", "--sandbox-id", "sb_1"];
    sandbox.says(&[&["sync", "attach", &volume][..], &stands_for].concat());
    sandbox.write("shared.txt", "theirs\n");
    sandbox.flush();
    laptop.write("shared.txt", "mine\n");
    assert_eq!(laptop.run(&["sync", "start"]).status.code(), Some(3));

    let (code, verified) = laptop.json(&["sync", "verify"]);
    assert_eq!((code, &verified["equal"]), (3, &Value::Bool(false)), "{verified}");
    assert_eq!(verified["apart"]["conflicts"][0], "shared.txt");
    let said = text(&laptop.run(&["sync", "verify"]).stdout);
    assert!(said.contains("shared.txt") && said.contains("in conflict"), "{said}");

    laptop.says(&["sync", "conflicts", "mark", "shared.txt", "--ignore"]);
    let said = laptop.says(&["sync", "verify"]);
    assert!(said.contains("but for 1 conflict left as it is"), "{said}");
}

#[test]
fn what_is_set_apart_is_said() {
    let (service, volume, laptop) = attached();
    laptop.write("kept-away.log", "x\n");
    laptop.flush();
    let second = service.machine("second");
    second.write(".s0ignore", "*.log\n");
    second.write("private.txt", "mine\n");
    second.says(&["sync", "attach", &volume, "--init-from", "volume"]);
    second.flush();
    let (code, verified) = second.json(&["sync", "verify"]);
    assert_eq!((code, &verified["equal"]), (0, &Value::Bool(true)), "{verified}");
    assert_eq!(verified["apart"]["withheld"], 2, "{verified}");
    assert_eq!(verified["apart"]["ignored"], 1, "{verified}");
    let said = second.says(&["sync", "verify"]);
    assert!(said.contains("equal, but for 2 local paths waiting"), "{said}");
}

//! What the documented API says that it answers, route by route, and why some of it is
//! never answered here.

use std::fmt::Write as _;

use super::Document;

/// Sections 3 to 8 of the documented API: each operation with its statuses, below
/// `/api/v1/sandboxvolumes`. Those of the gateway (401, 403, 429) are of all.
const DOCUMENTED: &[(&str, &str, &[u16])] = &[
    ("POST", "", &[201, 400, 500]),
    ("GET", "", &[200, 500]),
    ("GET", "/{volume}", &[200, 404, 500]),
    ("DELETE", "/{volume}", &[200, 404, 409, 500]),
    ("POST", "/{volume}/fork", &[201, 400, 404, 409, 500]),
    ("GET", "/{volume}/files", &[200, 400, 403, 404, 409, 412, 500, 502, 503]),
    ("POST", "/{volume}/files", &[200, 201, 400, 403, 404, 409, 412, 413, 500, 502, 503]),
    ("DELETE", "/{volume}/files", &[200, 400, 403, 404, 409, 412, 500, 502, 503]),
    ("GET", "/{volume}/files/stat", &[200, 400, 403, 404, 409, 412, 500, 502, 503]),
    ("GET", "/{volume}/files/list", &[200, 400, 403, 404, 409, 412, 500, 502, 503]),
    ("POST", "/{volume}/files/move", &[200, 400, 403, 404, 409, 412, 500, 502, 503]),
    ("GET", "/{volume}/files/watch", &[101, 403, 404, 412, 500, 502, 503]),
    ("POST", "/{volume}/snapshots", &[201, 400, 404, 500]),
    ("GET", "/{volume}/snapshots", &[200, 404, 500]),
    ("GET", "/{volume}/snapshots/{snapshot}", &[200, 404, 500]),
    ("DELETE", "/{volume}/snapshots/{snapshot}", &[200, 500]),
    ("POST", "/{volume}/snapshots/{snapshot}/restore", &[200, 404, 409, 500, 504]),
    ("PUT", "/{volume}/sync/replicas/{replica}", &[200, 400, 404, 500, 503]),
    ("GET", "/{volume}/sync/replicas/{replica}", &[200, 404, 500, 503]),
    ("POST", "/{volume}/sync/bootstrap", &[201, 400, 404, 409, 500, 503, 504]),
    ("GET", "/{volume}/sync/bootstrap/archive", &[200, 400, 404, 500, 503]),
    ("GET", "/{volume}/sync/changes", &[200, 400, 404, 409, 500, 503]),
    ("GET", "/{volume}/sync/replay-payload", &[200, 400, 404, 500, 503]),
    ("POST", "/{volume}/sync/replicas/{replica}/changes", &[200, 400, 404, 409, 500, 503]),
    ("PUT", "/{volume}/sync/replicas/{replica}/cursor", &[200, 400, 404, 409, 500, 503]),
    ("GET", "/{volume}/sync/conflicts", &[200, 400, 404, 500, 503]),
    ("PUT", "/{volume}/sync/conflicts/{conflict}", &[200, 400, 404, 500, 503]),
];

/// A status that is documented and never answered.
struct Never {
    status: u16,
    /// The operations; all when there are none.
    of: &'static [(&'static str, &'static str)],
    why: &'static str,
}

const fn never(
    status: u16,
    of: &'static [(&'static str, &'static str)],
    why: &'static str,
) -> Never {
    Never { status, of, why }
}

const NEVER: &[Never] = &[
    never(409, &[("POST", "/{volume}/fork")], "a Volume is forked while it is in use"),
    never(
        409,
        &[("POST", "/{volume}/snapshots/{snapshot}/restore")],
        "nothing locks a Volume; a restore is entries like any others",
    ),
    never(412, &[], "every Volume has a default user and group"),
    never(429, &[], "there is no rate limit: the service is for the people of its own machine"),
    never(502, &[], "no node owns a Volume, so none can be out of reach"),
    never(504, &[], "nothing has to acknowledge a snapshot or a restore"),
];

fn is_never(status: u16, operation: (&str, &str)) -> bool {
    let covers = |all: &[(&str, &str)]| all.is_empty() || all.contains(&operation);
    NEVER.iter().any(|never| never.status == status && covers(never.of))
}

/// Every documented answer is described, or never given for a reason; not both.
pub(super) fn check(document: &Document) {
    for &(method, path, statuses) in DOCUMENTED {
        let operation = (method.to_owned(), format!("{}{path}", super::VOLUMES));
        assert!(!document.operation(&operation).is_null(), "{operation:?} is not served");
        let described = document.described(&operation);
        for status in statuses.iter().chain(&[401, 403, 429]) {
            let (is, never) = (described.contains_key(status), is_never(*status, (method, path)));
            assert!(is != never, "{operation:?} {status}: described {is}, never {never}");
        }
    }
}

/// The same as a table for people.
pub(super) fn table() -> String {
    let mut out = String::from("| documented, never answered | of | because |\n|---|---|---|\n");
    for Never { status, of: all, why } in NEVER {
        let all: Vec<String> =
            all.iter().map(|(method, path)| format!("`{method} …{path}`")).collect();
        let all = if all.is_empty() { "all".to_owned() } else { all.join(", ") };
        writeln!(out, "| {status} | {all} | {why} |").unwrap();
    }
    out
}

//! Requests, from the API server's own record. Pure but for reading the file.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};
use gastown_api::rbac::Controller;
use gastown_cluster::install::SYSTEM;
use serde::{Deserialize, Serialize};

/// One kind of request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Request {
    /// A controller of the operator by its name, another client by that of its program.
    pub writer: String,
    /// The verb: `patch` stands for an apply too.
    pub verb: String,
    /// The resource with its subresource. Leases of replicas are `leases (replicas)`: they are
    /// renewed by time, not by work.
    pub resource: String,
    /// The code of the answer.
    pub code: u16,
}

/// How often each kind was made.
pub type Requests = BTreeMap<Request, u64>;

/// Leases of replicas: those of the release's namespace that are not claims.
pub const REPLICAS: &str = "leases (replicas)";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    stage: String,
    verb: String,
    impersonated_user: Option<User>,
    #[serde(default)]
    user_agent: String,
    object_ref: Option<ObjectRef>,
    response_status: Option<Status>,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize)]
struct ObjectRef {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

/// Reads what was recorded since `offset`, and returns it with the offset of what comes next. A line
/// that is being written is left for the next call.
pub fn read(path: &Path, offset: u64) -> Result<(Requests, u64)> {
    let shown = || format!("reading {}", path.display());
    let mut file = std::fs::File::open(path).with_context(shown)?;
    file.seek(SeekFrom::Start(offset)).with_context(shown)?;
    let (mut lines, mut line, mut end) = (BufReader::new(file), Vec::new(), offset);
    let mut all = Requests::new();
    loop {
        line.clear();
        let length = lines.read_until(b'\n', &mut line).with_context(shown)?;
        if line.last() != Some(&b'\n') {
            return Ok((all, end));
        }
        end += length as u64;
        let event = serde_json::from_slice(&line).with_context(shown)?;
        if let Some(request) = request(event) {
            *all.entry(request).or_default() += 1;
        }
    }
}

/// The request of an event; a watch counts when it begins, everything else when it is answered.
fn request(event: Event) -> Option<Request> {
    let counts = if event.verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
    if event.stage != counts {
        return None;
    }
    let prefix = format!("system:serviceaccount:{SYSTEM}:");
    let account = event.impersonated_user.as_ref().and_then(|u| u.username.strip_prefix(&prefix));
    let program = event.user_agent.split('/').next().filter(|name| !name.is_empty());
    let object = event.object_ref?;
    let is_claim = object.name.starts_with("claim-");
    let is_replicas = object.resource == "leases" && object.namespace == SYSTEM && !is_claim;
    let resource = match object.subresource.as_str() {
        "" if is_replicas => REPLICAS.to_owned(),
        "" => object.resource,
        sub => format!("{}/{sub}", object.resource),
    };
    Some(Request {
        writer: account.or(program).unwrap_or("bench").to_owned(),
        verb: event.verb,
        resource,
        code: event.response_status.map(|s| s.code).unwrap_or_default(),
    })
}

/// Adds `more` to `all`.
pub fn add(all: &mut Requests, more: &Requests) {
    for (request, count) in more {
        *all.entry(request.clone()).or_default() += count;
    }
}

/// How many of these requests are as wanted.
pub fn count(all: &Requests, wanted: impl Fn(&Request) -> bool) -> u64 {
    all.iter().filter(|(request, _)| wanted(request)).map(|(_, count)| count).sum()
}

/// A request of a controller that is not made by time.
pub fn is_by_work(request: &Request) -> bool {
    Controller::ALL.iter().any(|controller| controller.name() == request.writer)
        && request.resource != REPLICAS
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use serde_json::{Value, json};

    use super::*;

    fn event(verb: &str, stage: &str, object: &Value) -> Value {
        json!({
            "stage": stage, "verb": verb, "user": {"username": "gastown-admin"}, "objectRef": object,
            "responseStatus": {"code": 200}, "userAgent": "kube-scheduler/v1.36.3 (linux/amd64)",
        })
    }

    fn parsed(value: Value) -> Option<Request> {
        request(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_controller_is_named_by_its_account_and_another_client_by_its_program() {
        let object = json!({"resource": "pods", "subresource": "binding", "namespace": "fleet"});
        let mut bound = event("create", "ResponseComplete", &object);
        let seen = parsed(bound.clone()).unwrap();
        assert_eq!(
            (seen.writer.as_str(), seen.resource.as_str()),
            ("kube-scheduler", "pods/binding")
        );
        bound["impersonatedUser"] =
            json!({"username": "system:serviceaccount:gastown-system:polecat-ctl"});
        assert_eq!(parsed(bound.clone()).unwrap().writer, "polecat-ctl");
        bound["impersonatedUser"] = json!({"username": "ann"});
        bound["userAgent"] = json!("");
        assert_eq!(parsed(bound).unwrap().writer, "bench");
    }

    #[test]
    fn a_watch_counts_once_and_so_does_everything_else() {
        let pods = json!({"resource": "pods"});
        let counted = |verb, stage| parsed(event(verb, stage, &pods)).is_some();
        assert!(counted("watch", "ResponseStarted") && !counted("watch", "ResponseComplete"));
        assert!(counted("list", "ResponseComplete") && !counted("list", "ResponseStarted"));
    }

    #[test]
    fn leases_of_replicas_are_apart_from_claims() {
        let of = |namespace, name| {
            let object = json!({"resource": "leases", "namespace": namespace, "name": name});
            parsed(event("update", "ResponseComplete", &object)).unwrap().resource
        };
        assert_eq!(of("gastown-system", "polecat-ctl"), REPLICAS);
        assert_eq!(of("gastown-system", "claim-0a1b"), "leases");
        assert_eq!(of("fleet", "x"), "leases");
    }

    #[test]
    fn a_line_that_is_being_written_is_read_the_next_time() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let line = event("get", "ResponseComplete", &json!({"resource": "pods"})).to_string();
        let (first, rest) = line.split_at(10);
        write!(file, "{line}\n{first}").unwrap();
        let (requests, end) = read(file.path(), 0).unwrap();
        assert_eq!((count(&requests, |_| true), end), (1, line.len() as u64 + 1));
        writeln!(file, "{rest}").unwrap();
        let (mut requests, _) = read(file.path(), end).unwrap();
        add(&mut requests, &read(file.path(), 0).unwrap().0);
        assert_eq!(count(&requests, |r| r.verb == "get"), 3);
    }
}

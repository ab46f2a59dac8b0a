//! Whether each controller uses what its roles allow, and nothing else: the API server's own record of
//! the tests' requests, compared with the table that the roles are made of.
//!
//! A request that no rule allows shows as refused, where the test that made it runs. A rule that no
//! request needed shows here. So each rule, taken away, breaks a test of the control plane; the exceptions
//! are listed in `elsewhere.rs`.

mod elsewhere;
mod place;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use gastown_api::rbac::{Controller, Grant};
use serde_json::Value;

use self::place::Place;

/// A request as RBAC sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    controller: &'static str,
    verb: String,
    group: String,
    /// With the subresource.
    resource: String,
    /// None for what has no namespace, and for lists of every namespace.
    namespace: Option<String>,
    /// The namespace of the controller's service account: that of its release.
    release: String,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.namespace.as_deref().unwrap_or("every namespace");
        write!(f, "{}: {} {} in {place}", self.controller, self.verb, self.resource)
    }
}

/// What was recorded.
#[derive(Debug, Default)]
pub struct Record {
    used: BTreeSet<Request>,
    refused: BTreeSet<Request>,
}

impl Record {
    /// Reads the records that API servers left in a folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut record = Self::default();
        let entries = std::fs::read_dir(folder);
        for entry in entries.with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("reading {}", path.display()))?;
            record.add(&text);
        }
        ensure!(!record.used.is_empty(), "no request of a controller is in {}", folder.display());
        Ok(record)
    }

    /// Adds audit events, one JSON document a line. The last line of a server that was killed may be cut.
    fn add(&mut self, lines: &str) {
        for event in lines.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok()) {
            let Some(request) = request(&event) else { continue };
            let decision = &event["annotations"]["authorization.k8s.io/decision"];
            let set = if decision == "allow" { &mut self.used } else { &mut self.refused };
            // Applying what does not exist needs both verbs.
            if request.verb == "patch" && event["responseStatus"]["code"] == 201 {
                set.insert(Request { verb: "create".to_owned(), ..request.clone() });
            }
            set.insert(request);
        }
    }

    /// What the roles allow and nothing used, and what was refused for which no role has a rule.
    pub fn complaints(&self) -> Vec<String> {
        let mut all = Vec::new();
        for controller in Controller::ALL {
            for place in Place::ALL {
                all.extend(self.unused(controller, place));
            }
        }
        let unknown = |request: &&Request| !has_rule(request);
        let refused = self.refused.iter().filter(unknown);
        all.extend(refused.map(|request| format!("{request} was refused: no role has a rule")));
        all
    }

    fn unused(&self, controller: Controller, place: Place) -> Vec<String> {
        let mut unused = Vec::new();
        for grant in place.grants(controller) {
            for (resource, verb) in pairs(grant) {
                let is_it = |request: &&Request| {
                    request.controller == controller.name()
                        && request.verb == verb
                        && request.group == grant.group
                        && request.resource == resource
                        && place.is_of(request.namespace.as_deref(), &request.release)
                };
                let name = controller.name();
                let is_known =
                    is_admission(resource) || elsewhere::is_listed(name, place, resource, verb);
                if !is_known && !self.used.iter().any(|request| is_it(&request)) {
                    unused.push(format!("{name}: nothing used {verb} {resource}, {place}"));
                }
            }
        }
        unused
    }
}

/// `update` on `finalizers` is not a request: where the admission plugin
/// OwnerReferencesPermissionEnforcement is on, as in OpenShift, it decides who may name a blocking owner.
/// `a_blocking_owner_needs_the_rule_on_finalizers` tests it.
fn is_admission(resource: &str) -> bool {
    resource.ends_with("/finalizers")
}

fn pairs(grant: &Grant) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
    let verbs = grant.verbs;
    grant
        .resources
        .iter()
        .flat_map(move |resource| verbs.iter().map(move |verb| (*resource, *verb)))
}

fn has_rule(request: &Request) -> bool {
    let controller = Controller::ALL.into_iter().find(|c| c.name() == request.controller);
    let grants = controller.into_iter().flat_map(|controller| {
        Place::ALL.into_iter().flat_map(move |place| place.grants(controller))
    });
    grants
        .filter(|grant| grant.group == request.group)
        .flat_map(pairs)
        .any(|(resource, verb)| resource == request.resource && verb == request.verb)
}

/// The request of an audit event, when a controller made it.
fn request(event: &Value) -> Option<Request> {
    let name = |user: &Value| {
        let account = user["username"].as_str()?.strip_prefix("system:serviceaccount:")?;
        let (release, name) = account.split_once(':')?;
        let controller = Controller::ALL.into_iter().find(|c| c.name() == name)?;
        Some((release.to_owned(), controller.name()))
    };
    let (release, controller) =
        name(&event["impersonatedUser"]).or_else(|| name(&event["user"]))?;
    let object = &event["objectRef"];
    let text = |key: &str| object[key].as_str().map(str::to_owned);
    let mut resource = text("resource")?;
    if let Some(sub) = text("subresource") {
        resource = format!("{resource}/{sub}");
    }
    Some(Request {
        controller,
        verb: event["verb"].as_str()?.to_owned(),
        group: text("apiGroup").unwrap_or_default(),
        resource,
        namespace: text("namespace"),
        release,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(controller: &str, verb: &str, group: &str, resource: &str, namespace: &str) -> Value {
        let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
        let mut object = json!({"resource": resource, "apiGroup": group});
        for (key, value) in [("subresource", sub), ("namespace", namespace)] {
            if !value.is_empty() {
                object[key] = value.into();
            }
        }
        json!({
            "verb": verb,
            "user": {"username": "gastown-admin"},
            "impersonatedUser": {"username": format!("system:serviceaccount:release:{controller}")},
            "objectRef": object,
            "annotations": {"authorization.k8s.io/decision": "allow"},
        })
    }

    /// A record in which everything that the roles allow was used.
    fn complete() -> Vec<Value> {
        let mut events = Vec::new();
        for controller in Controller::ALL {
            for place in Place::ALL {
                let namespace = match place {
                    Place::Everywhere => "",
                    Place::Release => "release",
                    Place::Configured => "tenant",
                };
                for grant in place.grants(controller) {
                    events.extend(pairs(grant).map(|(resource, verb)| {
                        event(controller.name(), verb, grant.group, resource, namespace)
                    }));
                }
            }
        }
        events
    }

    fn complaints(events: &[Value]) -> Vec<String> {
        let lines: Vec<String> = events.iter().map(Value::to_string).collect();
        let mut record = Record::default();
        record.add(&lines.join("\n"));
        record.complaints()
    }

    #[test]
    fn nothing_is_amiss_when_every_rule_was_used() {
        assert_eq!(complaints(&complete()), Vec::<String>::new());
    }

    #[test]
    fn each_rule_that_nothing_used_is_named() {
        let all = complete();
        for (at, left_out) in all.iter().enumerate() {
            let mut rest = all.clone();
            rest.remove(at);
            let found = complaints(&rest);
            // A Role's use counts for a ClusterRole that allows the same.
            let is_excepted = found.is_empty() && excepted(left_out);
            let has_same = rest.iter().any(|e| same(e, left_out));
            assert!(found.len() == 1 || is_excepted || has_same, "{left_out}: {found:?}");
        }
    }

    fn excepted(event: &Value) -> bool {
        let request = request(event).unwrap();
        let places = Place::ALL.into_iter();
        is_admission(&request.resource)
            || places.into_iter().any(|place| {
                elsewhere::is_listed(request.controller, place, &request.resource, &request.verb)
            })
    }

    #[test]
    fn applying_what_does_not_exist_uses_the_verb_create_too() {
        let mut applied = event("rig-ctl", "patch", "gastown.gastown.io", "witnesses", "release");
        applied["responseStatus"] = json!({"code": 201});
        let mut record = Record::default();
        record.add(&applied.to_string());
        let verbs: Vec<&str> = record.used.iter().map(|r| r.verb.as_str()).collect();
        assert_eq!(verbs, ["create", "patch"]);
    }

    fn same(one: &Value, other: &Value) -> bool {
        let without_place = |event: &Value| {
            let mut event = event.clone();
            event["objectRef"]["namespace"] = Value::Null;
            event
        };
        without_place(one) == without_place(other)
    }

    #[test]
    fn a_request_that_no_rule_allows_is_named() {
        let mut events = complete();
        let mut refused = event("rig-ctl", "list", "", "secrets", "tenant");
        refused["annotations"] = json!({"authorization.k8s.io/decision": "forbid"});
        events.push(refused);
        let found = complaints(&events);
        assert_eq!(found, ["rig-ctl: list secrets in tenant was refused: no role has a rule"]);
    }

    #[test]
    fn requests_of_others_are_not_looked_at() {
        let person =
            json!({"verb": "get", "user": {"username": "ann"}, "objectRef": {"resource": "pods"}});
        assert_eq!(request(&person), None);
    }
}

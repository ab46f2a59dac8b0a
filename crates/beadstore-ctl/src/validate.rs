//! Which BeadStore of a rig is active, and its validated spec. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gastown_api::names::reason;
use gastown_api::{BeadBackend, BeadStore, BeadStoreSpec, Refinery, Rig, WritePolicy, duration};
use gastown_beads_http::Endpoint;
use gastown_core::beads::Prefixes;
use gastown_core::seniority::{self, Seniority};
use gastown_types::{BranchName, GitUrl, text};
use kube::{Resource as _, ResourceExt as _};

use crate::git::folder::NotReadable;

/// The write branch where neither the spec nor the repository names one.
const DEFAULT_BRANCH: &str = "beads-sync";
/// The shortest interval between two readings of a store.
const MIN_INTERVAL: Duration = Duration::from_secs(5);
/// The interval where the spec's cannot be parsed.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(300);

/// The validated spec of a BeadStore. After validation nobody reads the spec's own fields.
#[derive(Clone, Debug)]
pub struct ValidBeadStore {
    /// The rig.
    pub rig: String,
    /// The place of the beads.
    pub source: Source,
    /// The prefixes of the beads that may be written.
    pub prefixes: Prefixes,
    /// Whether beads may be written.
    pub policy: WritePolicy,
    /// The interval between two readings.
    pub interval: Duration,
}

/// The place of a store's beads.
#[derive(Clone, Debug)]
pub enum Source {
    /// Files in a repository.
    Git(Repository),
    /// A server.
    Http(Server),
}

/// A server with beads.
#[derive(Clone, Debug)]
pub struct Server {
    /// The URL, for people.
    pub url: String,
    /// The address of the server.
    pub endpoint: Endpoint,
    /// The project that the server must have; absent where any project is taken at the first
    /// connection.
    pub project: Option<String>,
}

/// A repository with beads.
#[derive(Clone, Debug)]
pub struct Repository {
    /// The URL of the repository.
    pub url: GitUrl,
    /// The target branch, which work lands on.
    pub target: BranchName,
    /// All branches of the repository that Refineries land on: beads are never written there.
    pub landed_on: BTreeSet<BranchName>,
    /// The write branch of the spec.
    pub branch: Option<BranchName>,
    /// The folder of the beads.
    pub path: String,
    /// The author of our commits; our own name where absent.
    pub author: Option<String>,
}

impl ValidBeadStore {
    /// The host of the repository or the server.
    pub fn host(&self) -> String {
        match &self.source {
            Source::Git(repository) => repository.url.host().to_owned(),
            Source::Http(server) => server.endpoint.authority().to_owned(),
        }
    }

    /// Identifies the source of the beads: a reading of another source is not used.
    pub fn source_key(&self) -> String {
        match &self.source {
            Source::Git(repository) => repository.key(),
            Source::Http(server) => {
                format!("{}|{}", server.url, server.project.as_deref().unwrap_or_default())
            }
        }
    }
}

impl Repository {
    fn key(&self) -> String {
        let branch = self.branch.as_ref().map_or("", BranchName::as_str);
        format!("{}|{}|{branch}|{}", self.url.normalised(), self.target, self.path)
    }

    /// The write branch: the spec's, else the one of config.yaml (`config`), else `beads-sync`.
    pub fn write_branch(&self, config: Option<&str>) -> Result<BranchName, NotReadable> {
        let name =
            self.branch.as_ref().map(BranchName::as_str).or(config).unwrap_or(DEFAULT_BRANCH);
        let branch: BranchName = name.parse().map_err(|error| {
            let shown = text::line(name, 80);
            NotReadable {
                reason: "BadBranchName",
                message: format!(
                    "sync-branch of config.yaml, {shown}: {error}; name a branch in spec.git.branch"
                ),
            }
        })?;
        if self.landed_on.contains(&branch) {
            let message = format!(
                "{branch} is a branch that a Refinery lands on, and beads are never written there: name another branch in spec.git.branch"
            );
            return Err(NotReadable { reason: "BranchIsTarget", message });
        }
        Ok(branch)
    }
}

/// The role of a BeadStore.
#[derive(Debug)]
pub enum Role {
    /// It serves the beads of its rig.
    Active(Box<ValidBeadStore>),
    /// It does nothing; its conditions show why.
    Inactive {
        /// The reason, in CamelCase.
        reason: &'static str,
        /// The message, a sentence.
        message: String,
    },
}

/// The active BeadStore of a rig.
pub fn active<'a>(all: &'a [Arc<BeadStore>], rig: &str) -> Option<&'a BeadStore> {
    let of_rig = all.iter().map(AsRef::as_ref).filter(|s: &&BeadStore| s.spec.rig_ref == rig);
    seniority::active(of_rig)
}

/// The role of `store` among all BeadStores.
pub fn role(
    store: &BeadStore,
    all: &[Arc<BeadStore>],
    rig: Option<&Rig>,
    refineries: &[Arc<Refinery>],
    rigs: &[Arc<Rig>],
) -> Role {
    let inactive = |reason, message: String| Role::Inactive { reason, message };
    let (spec, name) = (&store.spec, &store.spec.rig_ref);
    let Some(rig) = rig else {
        return inactive(reason::RIG_NOT_FOUND, format!("Rig {name} does not exist"));
    };
    if let Some(elder) = active(all, name).filter(|elder| elder.uid() != store.uid()) {
        let full = format!("{}/{}", elder.namespace().unwrap_or_default(), elder.name_any());
        return inactive(
            reason::DUPLICATE,
            format!("BeadStore {full} is older and serves the beads of rig {name}"),
        );
    }
    let source = match spec.backend {
        BeadBackend::GitJsonl => repository(spec, rig, refineries, rigs).map(Source::Git),
        BeadBackend::HttpV0 => http(spec).map(Source::Http),
        BeadBackend::Unknown => {
            Err("spec.backend has a value that this version of beadstore-ctl does not know".into())
        }
    };
    let source = match source {
        Ok(source) => source,
        Err(message) => return inactive(reason::INVALID_OBJECT, message),
    };
    Role::Active(Box::new(ValidBeadStore {
        rig: name.clone(),
        source,
        prefixes: Prefixes::new(
            spec.allowed_prefixes.iter().chain([&spec.prefix]).map(String::as_str),
        ),
        policy: spec.write_policy,
        interval: duration::parse(&spec.sync_interval)
            .unwrap_or(DEFAULT_INTERVAL)
            .max(MIN_INTERVAL),
    }))
}

/// The server of a spec, or why the spec is not valid.
fn http(spec: &BeadStoreSpec) -> Result<Server, String> {
    let http = spec
        .http
        .as_ref()
        .ok_or_else(|| "spec.http: backend HttpV0 needs the server's url".to_owned())?;
    let endpoint = Endpoint::parse(&http.url).map_err(|error| format!("spec.http.url: {error}"))?;
    Ok(Server { url: endpoint.to_string(), endpoint, project: http.project_id.clone() })
}

/// The repository of a spec, or why the spec is not valid.
fn repository(
    spec: &BeadStoreSpec,
    rig: &Rig,
    refineries: &[Arc<Refinery>],
    rigs: &[Arc<Rig>],
) -> Result<Repository, String> {
    let name = &spec.rig_ref;
    let url = spec.git.url.as_ref().unwrap_or(&rig.spec.git_url).parse::<GitUrl>();
    let url = url.map_err(|error| format!("the repository's URL: {error}"))?;
    let target = target_of(rig, refineries).parse::<BranchName>();
    let target = target.map_err(|error| format!("the target branch of rig {name}: {error}"))?;
    let branch = spec.git.branch.as_ref().map(|branch| branch.parse::<BranchName>()).transpose();
    let branch = branch.map_err(|error| format!("spec.git.branch: {error}"))?;
    let same = |rig: &Rig| {
        rig.spec.git_url.parse::<GitUrl>().is_ok_and(|other| other.normalised() == url.normalised())
    };
    let mut landed_on: BTreeSet<BranchName> = refineries
        .iter()
        .filter(|refinery| {
            rigs.iter().any(|rig| rig.name_any() == refinery.spec.rig_ref && same(rig))
        })
        .filter_map(|refinery| refinery.spec.target_branch.parse().ok())
        .collect();
    if same(rig) {
        landed_on.insert(target.clone());
    }
    Ok(Repository {
        url,
        target,
        landed_on,
        branch,
        path: spec.git.path.clone(),
        author: spec.git.commit_author.clone(),
    })
}

/// The target branch of a rig: that of its oldest Refinery, else that of its Refinery template.
fn target_of(rig: &Rig, refineries: &[Arc<Refinery>]) -> String {
    let name = rig.name_any();
    let template = rig.spec.refinery.clone().unwrap_or_default().for_rig(&name).target_branch;
    let ours = refineries.iter().filter(|refinery| {
        refinery.spec.rig_ref == name && refinery.meta().deletion_timestamp.is_none()
    });
    // A Refinery of the template's branch is the rig's own; others count by their age.
    let oldest = ours.min_by_key(|refinery| {
        (refinery.spec.target_branch != template, Seniority::of(refinery.as_ref()))
    });
    oldest.map_or(template, |refinery| refinery.spec.target_branch.clone())
}

#[cfg(test)]
mod tests {
    use gastown_api::{BeadHttp, RefinerySpec, RigSpec};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn store(name: &str, rig: &str, born: i64) -> BeadStore {
        let mut store = BeadStore::new(name, BeadStoreSpec::of_rig(rig, "gt"));
        store.metadata.namespace = Some("ns".into());
        store.metadata.uid = Some(name.into());
        store.metadata.creation_timestamp = Some(Time(jiff::Timestamp::from_second(born).unwrap()));
        store
    }

    fn rig(name: &str) -> Arc<Rig> {
        Arc::new(Rig::new(
            name,
            RigSpec {
                git_url: "git@host:org/web.git".into(),
                beads_prefix: "gt".into(),
                ..RigSpec::default()
            },
        ))
    }

    fn refinery(rig: &str, target: &str) -> Arc<Refinery> {
        Arc::new(Refinery::new(
            &format!("{rig}-{target}"),
            RefinerySpec { target_branch: target.into(), ..RefinerySpec::of_rig(rig) },
        ))
    }

    fn valid(store: &BeadStore, refineries: &[Arc<Refinery>]) -> ValidBeadStore {
        let rigs = [rig("web"), rig("web-too")];
        match role(store, &[Arc::new(store.clone())], Some(&rigs[0]), refineries, &rigs) {
            Role::Active(valid) => *valid,
            Role::Inactive { reason, message } => panic!("{reason}: {message}"),
        }
    }

    fn repository(store: &BeadStore, refineries: &[Arc<Refinery>]) -> Repository {
        match valid(store, refineries).source {
            Source::Git(repository) => repository,
            Source::Http(server) => panic!("{server:?}"),
        }
    }

    fn role_of(store: &BeadStore, all: &[Arc<BeadStore>], rig: Option<&Rig>) -> &'static str {
        match role(store, all, rig, &[], &[]) {
            Role::Active(_) => "active",
            Role::Inactive { reason, .. } => reason,
        }
    }

    #[test]
    fn the_oldest_is_active_and_others_are_inactive_with_a_reason() {
        let all = [
            Arc::new(store("a", "web", 2)),
            Arc::new(store("b", "web", 1)),
            Arc::new(store("c", "api", 3)),
        ];
        let web = rig("web");
        assert_eq!(role_of(&all[0], &all, Some(&web)), "Duplicate");
        assert_eq!(role_of(&all[1], &all, Some(&web)), "active");
        assert_eq!(role_of(&all[2], &all, None), "RigNotFound");
        let mut going = store("b", "web", 1);
        going.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        let all = [Arc::new(store("a", "web", 2)), Arc::new(going)];
        assert_eq!(role_of(&all[0], &all, Some(&web)), "active");
    }

    #[test]
    fn a_branch_that_any_refinery_lands_on_is_never_written() {
        let mut written = store("a", "web", 1);
        let refineries = [
            refinery("web", "main"),
            refinery("web-too", "release"),
            refinery("elsewhere", "beads"),
        ];
        for (branch, allowed) in [("main", false), ("release", false), ("beads", true)] {
            written.spec.git.branch = Some(branch.into());
            let found = repository(&written, &refineries).write_branch(None);
            assert_eq!(found.is_ok(), allowed, "{branch}");
        }
        written.spec.git.branch = None;
        let repository = repository(&written, &refineries);
        assert_eq!(repository.write_branch(None).unwrap().as_str(), "beads-sync");
        assert_eq!(repository.write_branch(Some("sync")).unwrap().as_str(), "sync");
        assert_eq!(repository.write_branch(Some("main")).unwrap_err().reason, "BranchIsTarget");
        assert_eq!(
            repository.write_branch(Some("--upload-pack=x")).unwrap_err().reason,
            "BadBranchName"
        );
    }

    #[test]
    fn a_store_in_a_repository_of_its_own_may_write_the_target_branch() {
        let mut written = store("a", "web", 1);
        written.spec.git.url = Some("https://host/beads".into());
        written.spec.git.branch = Some("main".into());
        assert_eq!(
            repository(&written, &[refinery("web", "main")]).write_branch(None).unwrap().as_str(),
            "main"
        );
    }

    #[test]
    fn the_server_is_read_from_the_spec_and_an_invalid_url_is_refused() {
        let mut written = store("a", "web", 1);
        written.spec.backend = BeadBackend::HttpV0;
        let http = |url: &str| {
            Some(BeadHttp {
                url: url.into(),
                project_id: Some("proj-web".into()),
                token_secret_ref: None,
            })
        };
        written.spec.http = http("http://beads:8080/");
        let Source::Http(server) = valid(&written, &[]).source else { panic!() };
        assert_eq!(
            (server.url.as_str(), server.project.as_deref()),
            ("http://beads:8080", Some("proj-web"))
        );
        let all = [Arc::new(written.clone())];
        for bad in [http("http://[::::]"), None] {
            written.spec.http = bad;
            assert_eq!(role_of(&written, &all, Some(&rig("web"))), "InvalidObject");
        }
    }

    #[test]
    fn a_short_interval_is_raised_to_the_minimum() {
        let mut often = store("a", "web", 1);
        often.spec.sync_interval = "1ms".into();
        assert_eq!(valid(&often, &[]).interval, MIN_INTERVAL);
    }
}

//! Which BeadStore serves a rig, and where its beads are. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gastown_api::names::reason;
use gastown_api::{BeadBackend, BeadStore, BeadStoreSpec, Refinery, Rig, WritePolicy, duration};
use gastown_beads_http::Endpoint;
use gastown_types::{BranchName, GitUrl};
use kube::{Resource as _, ResourceExt as _};

use crate::branches::DEFAULT_BRANCH;
use crate::folder::Lack;
use crate::plan::Prefixes;

/// A store is read at most this often.
const MIN_INTERVAL: Duration = Duration::from_secs(5);
/// What a strange interval counts as.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(300);

/// Where a store's beads are, and what may be done with them.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The rig.
    pub rig: String,
    /// Where they are.
    pub source: Source,
    /// Whose beads may be written.
    pub prefixes: Prefixes,
    /// What may be written.
    pub policy: WritePolicy,
    /// How often it is read.
    pub interval: Duration,
}

/// Where beads are.
#[derive(Clone, Debug)]
pub enum Source {
    /// In files of a repository.
    Git(Repository),
    /// In a server.
    Served(Server),
}

/// A server with beads.
#[derive(Clone, Debug)]
pub struct Server {
    /// As the spec has it.
    pub url: String,
    /// The same, read.
    pub endpoint: Endpoint,
    /// The project that it must have.
    pub project: Option<String>,
}

/// A repository with beads.
#[derive(Clone, Debug)]
pub struct Repository {
    /// The repository.
    pub url: GitUrl,
    /// The branch that work lands on.
    pub target: BranchName,
    /// All branches of the repository that a Refinery lands on: none of them is ever written.
    pub landed_on: BTreeSet<BranchName>,
    /// The branch that the spec names for writes.
    pub branch: Option<BranchName>,
    /// The folder.
    pub path: String,
    /// Who our commits are by.
    pub author: Option<String>,
}

impl Setting {
    /// What was read under another one of these says nothing.
    pub fn key(&self) -> String {
        match &self.source {
            Source::Git(repository) => repository.key(),
            Source::Served(server) => {
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

    /// The branch to write: the spec's, else the repository's own, else ours. `config` is what
    /// config.yaml says.
    pub fn write_branch(&self, config: Option<&str>) -> Result<BranchName, Lack> {
        let text =
            self.branch.as_ref().map(BranchName::as_str).or(config).unwrap_or(DEFAULT_BRANCH);
        let branch: BranchName = text.parse().map_err(|error| {
            let shown: String = text.chars().filter(|c| !c.is_control()).take(80).collect();
            Lack {
                reason: "BadBranchName",
                message: format!(
                    "sync-branch of config.yaml, {shown}: {error}; name one in spec.git.branch"
                ),
            }
        })?;
        if self.landed_on.contains(&branch) {
            let message = format!(
                "{branch} is a branch that a Refinery lands on, which bead writes never move: name another in spec.git.branch"
            );
            return Err(Lack { reason: "BranchIsTarget", message });
        }
        Ok(branch)
    }
}

/// What a BeadStore is to do.
#[derive(Debug)]
pub enum Place {
    /// It keeps a rig's beads.
    Serves(Box<Setting>),
    /// It must not; why, for its conditions.
    Stands {
        /// One word.
        reason: &'static str,
        /// A sentence.
        message: String,
    },
}

fn age(store: &BeadStore) -> (i64, String, String) {
    (
        store.creation_timestamp().map_or(i64::MAX, |t| t.0.as_second()),
        store.namespace().unwrap_or_default(),
        store.name_any(),
    )
}

/// The store of a rig: the oldest that is not being deleted; ties by name.
pub fn server<'a>(all: &'a [Arc<BeadStore>], rig: &str) -> Option<&'a Arc<BeadStore>> {
    let fits = |store: &&Arc<BeadStore>| {
        store.meta().deletion_timestamp.is_none() && store.spec.rig_ref == rig
    };
    all.iter().filter(fits).min_by_key(|store| age(store))
}

/// The place of `store` among all.
pub fn place(
    store: &BeadStore,
    all: &[Arc<BeadStore>],
    rig: Option<&Rig>,
    refineries: &[Arc<Refinery>],
    rigs: &[Arc<Rig>],
) -> Place {
    let stands = |reason, message: String| Place::Stands { reason, message };
    let (spec, name) = (&store.spec, &store.spec.rig_ref);
    let Some(rig) = rig else {
        return stands(reason::RIG_NOT_FOUND, format!("Rig {name} does not exist"));
    };
    if let Some(elder) = server(all, name).filter(|elder| elder.uid() != store.uid()) {
        let full = format!("{}/{}", elder.namespace().unwrap_or_default(), elder.name_any());
        return stands(
            reason::DUPLICATE,
            format!("BeadStore {full} keeps the beads of rig {name}"),
        );
    }
    let source = match spec.backend {
        BeadBackend::GitJsonl => repository(spec, rig, refineries, rigs).map(Source::Git),
        BeadBackend::HttpV0 => http(spec).map(Source::Served),
    };
    let source = match source {
        Ok(source) => source,
        Err(message) => return stands(reason::INVALID_OBJECT, message),
    };
    Place::Serves(Box::new(Setting {
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

/// The server that a spec means, or what is wrong with it.
fn http(spec: &BeadStoreSpec) -> Result<Server, String> {
    let http = spec
        .http
        .as_ref()
        .ok_or_else(|| "spec.http: backend HttpV0 needs the server's url".to_owned())?;
    let endpoint = Endpoint::parse(&http.url).map_err(|error| format!("spec.http.url: {error}"))?;
    Ok(Server { url: endpoint.to_string(), endpoint, project: http.project_id.clone() })
}

/// The repository that a spec means, or what is wrong with it.
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

/// The branch that a rig's work lands on: of its oldest Refinery, else as its own template says.
fn target_of(rig: &Rig, refineries: &[Arc<Refinery>]) -> String {
    let name = rig.name_any();
    let template = rig.spec.refinery.clone().unwrap_or_default().for_rig(&name).target_branch;
    let ours = refineries.iter().filter(|refinery| {
        refinery.spec.rig_ref == name && refinery.meta().deletion_timestamp.is_none()
    });
    // One that serves the template's branch is the rig's own; any other counts by its age.
    let oldest = ours.min_by_key(|refinery| {
        let born = refinery.creation_timestamp().map_or(i64::MAX, |t| t.0.as_second());
        (refinery.spec.target_branch != template, born, refinery.namespace(), refinery.name_any())
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

    fn setting(store: &BeadStore, refineries: &[Arc<Refinery>]) -> Setting {
        let rigs = [rig("web"), rig("web-too")];
        match place(store, &[Arc::new(store.clone())], Some(&rigs[0]), refineries, &rigs) {
            Place::Serves(setting) => *setting,
            Place::Stands { reason, message } => panic!("{reason}: {message}"),
        }
    }

    fn repository(store: &BeadStore, refineries: &[Arc<Refinery>]) -> Repository {
        match setting(store, refineries).source {
            Source::Git(repository) => repository,
            Source::Served(server) => panic!("{server:?}"),
        }
    }

    fn stands(store: &BeadStore, all: &[Arc<BeadStore>], rig: Option<&Rig>) -> &'static str {
        match place(store, all, rig, &[], &[]) {
            Place::Serves(_) => "serves",
            Place::Stands { reason, .. } => reason,
        }
    }

    #[test]
    fn the_oldest_serves_and_others_say_why_they_do_not() {
        let all = [
            Arc::new(store("a", "web", 2)),
            Arc::new(store("b", "web", 1)),
            Arc::new(store("c", "api", 3)),
        ];
        let web = rig("web");
        assert_eq!(stands(&all[0], &all, Some(&web)), "Duplicate");
        assert_eq!(stands(&all[1], &all, Some(&web)), "serves");
        assert_eq!(stands(&all[2], &all, None), "RigNotFound");
        let mut going = store("b", "web", 1);
        going.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        let all = [Arc::new(store("a", "web", 2)), Arc::new(going)];
        assert_eq!(stands(&all[0], &all, Some(&web)), "serves");
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
        let setting = repository(&written, &refineries);
        assert_eq!(setting.write_branch(None).unwrap().as_str(), "beads-sync");
        assert_eq!(setting.write_branch(Some("sync")).unwrap().as_str(), "sync");
        assert_eq!(setting.write_branch(Some("main")).unwrap_err().reason, "BranchIsTarget");
        assert_eq!(
            setting.write_branch(Some("--upload-pack=x")).unwrap_err().reason,
            "BadBranchName"
        );
    }

    #[test]
    fn a_repository_of_its_own_may_write_the_branch_that_it_reads() {
        let mut written = store("a", "web", 1);
        written.spec.git.url = Some("https://host/beads".into());
        written.spec.git.branch = Some("main".into());
        assert_eq!(
            repository(&written, &[refinery("web", "main")]).write_branch(None).unwrap().as_str(),
            "main"
        );
    }

    #[test]
    fn a_server_is_where_the_spec_says_and_an_url_that_leads_nowhere_is_named() {
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
        let Source::Served(server) = setting(&written, &[]).source else { panic!() };
        assert_eq!(
            (server.url.as_str(), server.project.as_deref()),
            ("http://beads:8080", Some("proj-web"))
        );
        let all = [Arc::new(written.clone())];
        for bad in [http("http://[::::]"), None] {
            written.spec.http = bad;
            assert_eq!(stands(&written, &all, Some(&rig("web"))), "InvalidObject");
        }
    }

    #[test]
    fn a_short_interval_is_bounded() {
        let mut often = store("a", "web", 1);
        often.spec.sync_interval = "1ms".into();
        assert_eq!(setting(&often, &[]).interval, MIN_INTERVAL);
    }
}

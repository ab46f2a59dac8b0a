//! The health of a rig's polecats in numbers, under the Go operator's names.

use gastown_api::PolecatPhase;

/// One polecat, as far as it is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolecatHealth {
    /// `namespace/name`.
    pub name: String,
    /// Its phase; none counts as Idle.
    pub phase: Option<PolecatPhase>,
    /// Its work failed: condition Degraded is True.
    pub failed: bool,
    /// Its agent makes no progress: condition Healthy is False for a reason that counts.
    pub unhealthy: bool,
}

/// The health of a rig's polecats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// All polecats.
    pub total: usize,
    /// Those that are Working, whether their agents make progress or not.
    pub running: usize,
    /// Those that are Done.
    pub succeeded: usize,
    /// The names of those that are Stuck with a failure.
    pub failed: Vec<String>,
    /// The names of those that are Stuck without a failure, or Working without progress.
    pub stuck: Vec<String>,
}

/// Counts polecats. Each is in at most one of succeeded, failed and stuck.
pub fn count(polecats: &[PolecatHealth]) -> Summary {
    let mut summary = Summary { total: polecats.len(), ..Summary::default() };
    for polecat in polecats {
        match polecat.phase {
            Some(PolecatPhase::Working) => {
                summary.running += 1;
                if polecat.unhealthy {
                    summary.stuck.push(polecat.name.clone());
                }
            }
            Some(PolecatPhase::Done) => summary.succeeded += 1,
            Some(PolecatPhase::Stuck) if polecat.failed => {
                summary.failed.push(polecat.name.clone());
            }
            Some(PolecatPhase::Stuck) => summary.stuck.push(polecat.name.clone()),
            None | Some(PolecatPhase::Idle | PolecatPhase::Terminated | PolecatPhase::Unknown) => {}
        }
    }
    summary.failed.sort();
    summary.stuck.sort();
    summary
}

impl Summary {
    /// The polecats that are stuck or failed, as one line; none when all are well.
    pub fn issues(&self) -> Option<String> {
        let part = |what: &str, names: &[String]| {
            (!names.is_empty()).then(|| format!("{what}: {}", list(names)))
        };
        let parts: Vec<_> = [part("stuck", &self.stuck), part("failed", &self.failed)]
            .into_iter()
            .flatten()
            .collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

fn list(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(10).map(String::as_str).collect();
    match names.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

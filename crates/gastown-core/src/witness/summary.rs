//! A rig's health in numbers, in the Go operator's words.

/// What of a polecat is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolecatState {
    /// No pod.
    Idle,
    /// At work.
    Working,
    /// Done.
    Done,
    /// Stopped, and needs somebody.
    Stuck,
    /// Ended because that was wanted.
    Terminated,
}

/// One polecat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Namespace and name.
    pub name: String,
    /// Its phase.
    pub state: PolecatState,
    /// Its work failed: the condition Degraded.
    pub failed: bool,
    /// It works, but does not get on.
    pub unhealthy: bool,
}

/// How a rig's polecats are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// All.
    pub total: usize,
    /// At work, wedged ones too.
    pub running: usize,
    /// Done.
    pub succeeded: usize,
    /// Stopped with a failure.
    pub failed: Vec<String>,
    /// Stopped without one, or at work without getting on.
    pub stuck: Vec<String>,
}

/// Counts. A polecat is in one of succeeded, failed and stuck at most.
pub fn count(polecats: &[Counted]) -> Summary {
    let mut summary = Summary { total: polecats.len(), ..Summary::default() };
    for polecat in polecats {
        match polecat.state {
            PolecatState::Working => {
                summary.running += 1;
                if polecat.unhealthy {
                    summary.stuck.push(polecat.name.clone());
                }
            }
            PolecatState::Done => summary.succeeded += 1,
            PolecatState::Stuck if polecat.failed => summary.failed.push(polecat.name.clone()),
            PolecatState::Stuck => summary.stuck.push(polecat.name.clone()),
            PolecatState::Idle | PolecatState::Terminated => {}
        }
    }
    summary.failed.sort();
    summary.stuck.sort();
    summary
}

impl Summary {
    /// Who is in trouble; nothing when nobody is.
    pub fn sick(&self) -> Option<String> {
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

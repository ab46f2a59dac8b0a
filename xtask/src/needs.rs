//! What a command needs before it can begin.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use gastown_toolchain::{Missing, Programs, has_claude_code, host};
use xtask::cli::{Bench, ClusterCommand, Command, NodesArg, Tier};

/// How long all programs of the workspace take to compile on two cores that nobody else uses.
const COMPILE_ALL: Duration = Duration::from_mins(13);
/// How long the worker alone takes.
const COMPILE_WORKER: Duration = Duration::from_mins(9);
/// What comes after the builds: cluster, images, installation, and four changes that land.
const PLAY: Duration = Duration::from_mins(4);

/// What a command needs.
#[derive(Debug, Default)]
pub struct Needs {
    /// Programs of a cluster.
    pub programs: Vec<Programs>,
    /// Those of their parts that are not built yet.
    pub missing: Vec<Missing>,
    /// Claude Code, which is not fetched yet.
    pub claude_code: bool,
    /// All programs of the workspace, because images are built.
    pub binaries: bool,
    /// This machine as a node, which takes root and packages.
    pub node: bool,
    /// Everything of the workspace: nothing is compiled yet.
    pub cold: bool,
    /// Programs and the Debian packages that they are in.
    pub packages: Vec<(&'static str, &'static str)>,
    /// What distinguishes the command from others of its name, for its timing.
    variant: &'static str,
    /// Cluster, images and the demo itself.
    demo: bool,
}

impl Needs {
    /// What a command needs on this machine.
    pub fn of(command: &Command) -> Result<Self> {
        let mut needs = Self::whatever_is_there(command);
        for programs in &needs.programs {
            for part in programs.missing()? {
                if !needs.missing.contains(&part) {
                    needs.missing.push(part);
                }
            }
        }
        needs.claude_code &= !has_claude_code();
        needs.cold = !target_dir().join("x86_64-unknown-linux-gnu/debug/gastown-dev").exists();
        Ok(needs)
    }

    /// What a command needs, whether this machine has it or not.
    fn whatever_is_there(command: &Command) -> Self {
        match command {
            Command::Cluster(ClusterCommand::Up { nodes: NodesArg::Kubelet, .. }) => {
                Self { programs: vec![Programs::Node], node: true, ..Self::default() }
            }
            Command::Cluster(ClusterCommand::Up { nodes: NodesArg::Kwok(_), .. }) => {
                Self { programs: vec![Programs::FakeNodes], ..Self::default() }
            }
            Command::Cluster(ClusterCommand::Up { nodes: NodesArg::None, .. }) => {
                Self { programs: vec![Programs::ControlPlane], ..Self::default() }
            }
            Command::Cluster(_) | Command::Gen(_) => Self::default(),
            Command::Images(args) if args.relock => Self::default(),
            Command::Images(args) => {
                let variant = match args {
                    _ if args.release || args.push.is_some() => " for release",
                    _ if args.baseline.is_some() => " of a baseline",
                    _ => "",
                };
                let needs = Self { variant, ..Self::default() }.with_images();
                // A release is compiled in its own profile, and a baseline from its own sources.
                Self { binaries: variant.is_empty(), ..needs }
            }
            Command::Install(_) | Command::Uninstall(_) | Command::Lint(_) => {
                Self { programs: vec![Programs::Helm], ..Self::default() }
            }
            Command::Demo(args) if args.kubeconfig.is_some() => {
                let mut programs = vec![Programs::Helm];
                if host::find("kubectl").is_none() {
                    programs.push(Programs::ControlPlane);
                }
                Self { programs, ..Self::default() }
            }
            Command::Demo(args) => {
                let mut needs = Self::play();
                if args.observe {
                    needs.programs.push(Programs::Jaeger);
                }
                needs
            }
            Command::Bench(args) => match &args.bench {
                Bench::Fleet(fleet) => {
                    let programs = vec![Programs::FakeNodes];
                    Self { programs, binaries: !fleet.release, ..Self::default() }
                }
                Bench::Demo(_) | Bench::Boltons(_) => Self::play(),
                Bench::Streams(_) | Bench::Beads(_) | Bench::Landings(_) => {
                    Self { programs: vec![Programs::ControlPlane], ..Self::default() }
                }
            },
            Command::Test(args) => Self::test(args.tier),
        }
    }

    /// A cluster with our images on it.
    fn play() -> Self {
        let programs = vec![Programs::Node, Programs::Helm];
        Self { programs, node: true, demo: true, ..Self::default() }.with_images()
    }

    fn with_images(mut self) -> Self {
        self.claude_code = true;
        self.binaries = true;
        self.packages.extend([("mmdebstrap", "mmdebstrap"), ("strip", "binutils"), ("git", "git")]);
        self
    }

    fn test(tier: Option<Tier>) -> Self {
        let wanted = |of: Tier| tier.is_none_or(|tier| tier == of);
        let versions = tier == Some(Tier::Versions);
        let on_node = wanted(Tier::E2e) || versions;
        let mut needs = if on_node { Self::play() } else { Self::default() };
        if wanted(Tier::E2e) {
            needs.programs.push(Programs::Jaeger);
        }
        needs.variant = if versions { " of versions" } else { "" };
        // `cargo test` compiles in its own way.
        needs.binaries = false;
        needs.demo = false;
        if wanted(Tier::Process) {
            needs.programs.push(Programs::Helm);
            needs.claude_code = true;
            needs.packages.extend([
                ("git", "git"),
                ("sshd", "openssh-server"),
                ("git-lfs", "git-lfs"),
            ]);
        }
        if wanted(Tier::Plane) {
            needs.programs.push(Programs::ControlPlane);
        }
        needs
    }

    /// The name under which the time of a command is remembered: a run that builds everything first
    /// has another one.
    pub fn timing(&self, command: &str) -> String {
        let builds = if self.cold || !self.missing.is_empty() { " with all builds" } else { "" };
        format!("{command}{}{builds}", self.variant)
    }

    /// How long a command is likely to take on two cores that nobody else uses.
    pub fn expected(&self) -> Duration {
        let parts = self.missing.iter().map(|part| part.expected).sum::<Duration>();
        let compile = match (self.cold, self.binaries) {
            (false, _) => Duration::ZERO,
            (true, true) => COMPILE_ALL,
            (true, false) => COMPILE_WORKER,
        };
        parts + compile + if self.demo { PLAY } else { Duration::ZERO }
    }
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    let root = xtask::root();
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use xtask::cli::Cli;

    use super::*;

    fn needs(line: &str) -> Needs {
        let words = std::iter::once("xtask").chain(line.split(' '));
        Needs::whatever_is_there(&Cli::try_parse_from(words).unwrap().command)
    }

    #[test]
    fn a_command_needs_no_more_than_it_uses() {
        assert_eq!(needs("cluster env").programs, []);
        assert_eq!(needs("gen --check").programs, []);
        assert_eq!(needs("cluster up --nodes none").programs, [Programs::ControlPlane]);
        assert_eq!(needs("cluster up --nodes kwok:3").programs, [Programs::FakeNodes]);
        assert!(needs("bench fleet").binaries && !needs("bench fleet --release").binaries);
        assert!(!needs("demo --kubeconfig x").node && !needs("demo --kubeconfig x").binaries);
        assert!(needs("demo").node && needs("demo").binaries && needs("demo").claude_code);
        assert!(needs("demo --observe").programs.contains(&Programs::Jaeger));
        assert!(!needs("demo").programs.contains(&Programs::Jaeger));
        assert!(!needs("test unit").claude_code && needs("test unit").programs.is_empty());
        assert!(needs("test versions").node && !needs("test plane").node);
    }

    #[test]
    fn a_release_is_not_compiled_for_development_first() {
        assert!(needs("images").binaries);
        assert!(!needs("images --release").binaries);
        assert!(!needs("images --baseline 0.1.0").binaries);
        assert_eq!(needs("images --push r.io/x").timing("images"), "images for release");
    }
}

//! The command line of `cargo xtask`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, Subcommand, ValueEnum};

/// One command for each thing that a developer of the operator does.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Kubernetes on this machine: up, down, status, env.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Build the OCI images without a container engine; `--load` puts them on the cluster's node.
    Images(ImagesArgs),
    /// Install the CRDs and the chart on a cluster and wait until every controller is ready.
    Install(InstallArgs),
    /// Delete the operator's objects in their order, then the chart and the CRDs.
    Uninstall(UninstallArgs),
    /// From an empty machine to landed branches.
    Demo(DemoArgs),
    /// Run all tests, or one tier of them.
    Test(TestArgs),
    /// Write the generated files (CRDs, API reference, RBAC tables), or check that they are current.
    Gen(GenArgs),
    /// Measure.
    Bench(BenchArgs),
    /// Run every static check.
    Lint(LintArgs),
}

impl Command {
    /// The name of the command.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cluster(_) => "cluster",
            Self::Images(_) => "images",
            Self::Install(_) => "install",
            Self::Uninstall(_) => "uninstall",
            Self::Demo(_) => "demo",
            Self::Test(_) => "test",
            Self::Gen(_) => "gen",
            Self::Bench(_) => "bench",
            Self::Lint(_) => "lint",
        }
    }
}

/// What to do with the cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Start it, or find it running.
    Up {
        /// The cluster's folder.
        #[command(flatten)]
        folder: ClusterFolder,
        /// `kubelet`: this machine is a node (needs root); `kwok:N`: N nodes on which pods are Running
        /// without a container; `none`: a control plane alone.
        #[arg(long, default_value = "kubelet")]
        nodes: NodesArg,
    },
    /// Stop it and remove everything that it created.
    Down(ClusterFolder),
    /// Show what runs; exit code 1 unless all of it is ready.
    Status(ClusterFolder),
    /// Print the variables that make kubectl find it, for `eval "$(cargo xtask cluster env)"`.
    Env(ClusterFolder),
}

/// Where the cluster is.
#[derive(Debug, clap::Args)]
pub struct ClusterFolder {
    /// The cluster's folder; by default one in the user's cache folder.
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

/// The nodes of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodesArg {
    /// One real node.
    Kubelet,
    /// This many nodes that are objects alone.
    Kwok(u16),
    /// No node.
    None,
}

impl FromStr for NodesArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = |text: &str| text.parse().ok().filter(|count| (1..=1000).contains(count));
        match (text, text.strip_prefix("kwok:").and_then(count)) {
            ("kubelet", _) => Ok(Self::Kubelet),
            ("none", _) => Ok(Self::None),
            (_, Some(count)) => Ok(Self::Kwok(count)),
            _ => Err("expected kubelet, kwok:N with N from 1 to 1000, or none".to_owned()),
        }
    }
}

/// Flags of `cargo xtask images`.
#[derive(Debug, clap::Args)]
pub struct ImagesArgs {
    /// Which images; all of them when none is named.
    pub names: Vec<String>,
    /// Put them on the node of the cluster that `cargo xtask cluster up` started.
    #[arg(long)]
    pub load: bool,
    /// That cluster's folder, when it is not the default one.
    #[arg(long, requires = "load")]
    pub dir: Option<PathBuf>,
    /// Build them as they are published: optimised and compressed. A first build takes half an hour of
    /// CPU time.
    #[arg(long)]
    pub release: bool,
    /// Push them to a registry, such as registry.example.com/gastown; implies --release. The login is
    /// that of docker's config.json.
    #[arg(long, value_name = "REGISTRY")]
    pub push: Option<String>,
    /// The tag to push them under; by default this version.
    #[arg(long, requires = "push")]
    pub tag: Option<String>,
    /// Build those of the controllers and of agents with the programs of an earlier release, which
    /// `compat/` has: for tests of two versions at once. A first build takes some minutes.
    #[arg(long, value_name = "VERSION", conflicts_with_all = ["names", "release", "push"])]
    pub baseline: Option<String>,
    /// Build nothing, and lock today's Debian packages: writes images/debian.lock.
    #[arg(long, exclusive = true)]
    pub relock: bool,
}

/// Flags of `cargo xtask uninstall`.
#[derive(Debug, clap::Args)]
pub struct UninstallArgs {
    /// The kubeconfig of the cluster. By default $KUBECONFIG, else the cluster of `cargo xtask
    /// cluster up`, else ~/.kube/config.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// The namespace of the controllers.
    #[arg(long, default_value = "gastown-system")]
    pub namespace: String,
    /// How many seconds the objects of a kind may take to go: agents are stopped, and their work is
    /// saved.
    #[arg(long, default_value_t = 900)]
    pub timeout: u64,
    /// Remove the finalizers of objects that are left after the timeout. Work that is not saved by
    /// then is lost.
    #[arg(long)]
    pub force: bool,
    /// Keep the CRDs.
    #[arg(long)]
    pub keep_crds: bool,
}

/// Flags of `cargo xtask install`.
#[derive(Debug, clap::Args)]
pub struct InstallArgs {
    /// The kubeconfig of the cluster. By default $KUBECONFIG, else the cluster of `cargo xtask
    /// cluster up`, else ~/.kube/config.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// The namespace of the controllers.
    #[arg(long, default_value = "gastown-system")]
    pub namespace: String,
    /// A value of the chart, as for helm: key=value.
    #[arg(long = "set")]
    pub set: Vec<String>,
    /// How many seconds the controllers may take to be ready.
    #[arg(long, default_value_t = 180)]
    pub timeout: u64,
}

/// Flags of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// A git repository or bundle instead of the small project that the demo brings along; needs
    /// --plan.
    #[arg(long, requires = "plan")]
    pub repo: Option<String>,
    /// The changes to make in it: a JSON file with `base`, `test` and `changes` (README).
    #[arg(long, requires = "repo")]
    pub plan: Option<PathBuf>,
    /// How many polecats work at a time.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=100))]
    pub polecats: i32,
    /// Leave the cluster and everything on it.
    #[arg(long)]
    pub keep: bool,
    /// Write the result as JSON to this file.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// An existing cluster whose nodes can pull the images; without it one is started and the
    /// images are built and loaded.
    #[arg(long, conflicts_with = "dir")]
    pub kubeconfig: Option<PathBuf>,
    /// The registry that the nodes of that cluster pull from, as in `cargo xtask images --push`; by
    /// default ghcr.io/gastown-operator.
    #[arg(long, requires = "kubeconfig")]
    pub registry: Option<String>,
    /// The tag of the images there; by default this version.
    #[arg(long, requires = "kubeconfig")]
    pub tag: Option<String>,
    /// The folder of the cluster that is started; by default the one in the user's cache folder.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Run Jaeger and Prometheus beside the demo, and print the trace of one polecat's life at the end.
    /// With --keep they run until Ctrl-C.
    #[arg(long, conflicts_with = "kubeconfig")]
    pub observe: bool,
}

/// Flags of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// One tier only; all of them but `versions` when absent.
    #[arg(value_enum)]
    pub tier: Option<Tier>,
    /// All combinations of the matrices, of which otherwise every pair of values is run
    #[arg(long)]
    pub all: bool,
    /// Further arguments for `cargo test` and the test programs, such as a part of a test's name.
    #[arg(last = true)]
    pub rest: Vec<String>,
}

/// What a test needs to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tier {
    /// Nothing: pure functions.
    Unit,
    /// Programs on this machine: git, sshd.
    Process,
    /// A real control plane without a node.
    Plane,
    /// A real cluster.
    E2e,
    /// A real cluster with the programs of the release before beside today's: for the time before a
    /// release.
    Versions,
}

/// Flags of `cargo xtask gen`.
#[derive(Debug, clap::Args)]
pub struct GenArgs {
    /// Write nothing, and fail when a file differs from what would be written.
    #[arg(long)]
    pub check: bool,
    /// Freeze the present version as a baseline in `compat/` too, for a release.
    #[arg(long, conflicts_with = "check")]
    pub baseline: bool,
}

/// Flags of `cargo xtask lint`.
#[derive(Debug, clap::Args)]
pub struct LintArgs {
    /// Let rustfmt and gen write instead of complaining.
    #[arg(long)]
    pub fix: bool,
}

/// Flags of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub bench: Bench,
    /// Write the figures as JSON to this file.
    #[arg(long, global = true)]
    pub json: Option<PathBuf>,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// The demo's own project: four changes, one of them reworked, and one agent that falls silent.
    Demo(PlanArgs),
    /// 21 changes of a real repository, from the outside data.
    Boltons(PlanArgs),
    /// Agents that report to one witness-ctl: its memory, CPU time and requests.
    Streams(StreamsArgs),
    /// One beadstore-ctl with a large store: how long reads and comments take.
    Beads(BeadsArgs),
    /// One refinery-ctl: how long landings take, alone and beside rigs that nothing can be done for,
    /// what they cost, and what large files and long histories cost.
    Landings(LandingsArgs),
    /// All six controllers with a crowd of polecats on fake nodes: how long each step of a life takes,
    /// what it costs, and what is asked of the API server.
    Fleet(FleetArgs),
}

/// Flags of `cargo xtask bench demo|boltons`.
#[derive(Debug, clap::Args)]
pub struct PlanArgs {
    /// How many polecats work at a time.
    #[arg(long, default_value_t = 3)]
    pub polecats: i32,
    /// Leave the cluster.
    #[arg(long)]
    pub keep: bool,
}

/// Flags of `cargo xtask bench streams`.
#[derive(Debug, clap::Args)]
pub struct StreamsArgs {
    /// How many agents report.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u16).range(1..))]
    pub streams: u16,
}

/// Flags of `cargo xtask bench beads`.
#[derive(Debug, clap::Args)]
pub struct BeadsArgs {
    /// How many beads the store holds.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1000..=100_000))]
    pub lines: u32,
    /// How many beads are commented on.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub calls: u32,
    /// How many commits the write branch of a second store has.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub history: u32,
}

/// Flags of `cargo xtask bench landings`.
#[derive(Debug, clap::Args)]
pub struct LandingsArgs {
    /// How many rigs land.
    #[arg(long, default_value_t = 14, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub rigs: u16,
    /// How many requests each of them lands, one after the other, alone and beside the others.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub requests: u16,
    /// How many rigs there are beside them whose remote accepts connections and never answers.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=200))]
    pub silent: u16,
    /// The size of the history of another rig, in MiB: 64 versions of one file.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(64..=16_384))]
    pub history_mib: u32,
    /// The size of a file that is merged with one that differs from it, in MiB.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub file_mib: u32,
}

/// Flags of `cargo xtask bench fleet`.
#[derive(Clone, Debug, clap::Args)]
pub struct FleetArgs {
    /// How many polecats there are at a time.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub polecats: u32,
    /// How many rigs they are spread over.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rigs: u32,
    /// How many polecats of a rig may run at a time, at most 100; by default all of them.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub cap: Option<u32>,
    /// How many polecats a second are created in `create`.
    #[arg(long, default_value_t = 5.0)]
    pub rate: f64,
    /// How many polecats are created in `create`; by default all, at most 100.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub alone: Option<u32>,
    /// Seconds over which the pods end in `ends`.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub spread: u32,
    /// Seconds for which nothing changes in `idle`.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub idle_seconds: u32,
    /// Each rig has a store of beads, and each bead a Convoy of its own.
    #[arg(long)]
    pub convoys: bool,
    /// Minutes of `soak`.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub minutes: u32,
    /// What is measured, in this order. What a phase needs and is not there is made before it, and not
    /// measured.
    #[arg(long, value_enum, value_delimiter = ',',
        default_values = ["create", "burst", "idle", "ends", "restart", "delete"])]
    pub phases: Vec<FleetPhase>,
    /// How many fake nodes there are.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub nodes: u16,
    /// How many replicas each controller has.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub replicas: u8,
    /// Compile the controllers as they are published, with optimisations.
    #[arg(long)]
    pub release: bool,
    /// Compare the requests of a life with the committed table, and fail when they have grown.
    #[arg(long)]
    pub check: bool,
    /// Write that table anew.
    #[arg(long, conflicts_with = "check")]
    pub write_counts: bool,
}

/// A phase of `cargo xtask bench fleet`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum FleetPhase {
    /// Polecats are created one after the other, `--rate` a second.
    Create,
    /// All polecats are created at once.
    Burst,
    /// Nothing changes.
    Idle,
    /// Each replica of each controller is ended and started again, one after the other; then one of
    /// each is killed. Needs more than one replica.
    Replace,
    /// For `--minutes`, a tenth of the polecats at a time ends, is deleted and followed by others, while
    /// replicas are ended, killed and rolled out at random; then all end. Needs more than one replica.
    Soak,
    /// All pods end, evenly over `--spread` seconds.
    Ends,
    /// All controllers are killed, all pods end, and the controllers start again.
    Restart,
    /// All polecats are deleted.
    Delete,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn nodes_are_read_as_they_are_written() {
        assert_eq!("kubelet".parse(), Ok(NodesArg::Kubelet));
        assert_eq!("kwok:12".parse(), Ok(NodesArg::Kwok(12)));
        for wrong in ["kwok", "kwok:", "kwok:0", "kwok:1001", "kwok:x", "Kubelet"] {
            assert!(wrong.parse::<NodesArg>().is_err(), "{wrong}");
        }
    }
}

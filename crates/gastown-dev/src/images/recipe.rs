//! The content of an image: `images/<name>/image.yaml`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use gastown_toolchain::NpmPackage;
use serde::Deserialize;

/// The user and group of every container.
pub const USER: u64 = 65532;

/// One image, as its file describes it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Recipe {
    /// The image's purpose, in a sentence.
    pub summary: String,
    /// Only a root file system that other recipes start from; not an image.
    #[serde(default)]
    pub base: bool,
    /// The recipe whose root file system is the first layer. Without it the image starts empty.
    #[serde(default)]
    pub from: Option<String>,
    /// Debian packages, beyond those of `from`.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Programs of this workspace and their paths in the image.
    #[serde(default)]
    pub binaries: BTreeMap<String, String>,
    /// Coding agents, in the version that the tests run, and their paths in the image.
    #[serde(default)]
    pub agents: BTreeMap<Agent, String>,
    /// Files of another recipe's root file system, copied to the same path.
    #[serde(default)]
    pub copy: Vec<Copy>,
    /// Variables of the environment, besides `HOME` and `PATH`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The command that a container runs.
    #[serde(default)]
    pub entrypoint: Vec<String>,
}

/// A coding agent that is a single program.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub enum Agent {
    /// Claude Code, unmodified, as Anthropic publishes it.
    ClaudeCode,
}

impl Agent {
    /// The package of npm's that has it.
    pub fn package(self) -> Result<NpmPackage> {
        match self {
            Self::ClaudeCode => gastown_toolchain::claude_code_package(),
        }
    }
}

/// One file of another root file system.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Copy {
    /// The recipe whose root file system has it.
    pub from: String,
    /// Its path in both.
    pub path: String,
    /// The Debian package that it comes from.
    pub package: String,
}

impl Recipe {
    fn parse(text: &str) -> Result<Self> {
        let recipe: Self = serde_saphyr::from_str(text)?;
        let paths = recipe
            .binaries
            .values()
            .chain(recipe.agents.values())
            .chain(recipe.copy.iter().map(|c| &c.path));
        if let Some(path) = paths.into_iter().find(|p| !p.starts_with('/') || p.contains("..")) {
            bail!("`{path}` is not an absolute path");
        }
        if let Some(package) = recipe.packages.iter().find(|p| !is_package(p)) {
            bail!("`{package}` is not the name of a Debian package");
        }
        if recipe.base
            && (recipe.from.is_some() || !recipe.binaries.is_empty() || !recipe.agents.is_empty())
        {
            bail!("a base holds packages only");
        }
        if let Some(copy) = recipe.copy.iter().find(|copy| !is_package(&copy.package)) {
            bail!("`{}` is not the name of a Debian package", copy.package);
        }
        if !recipe.base && recipe.from.is_none() && !recipe.packages.is_empty() {
            bail!("packages need a `from`: the root file system that they are added to");
        }
        Ok(recipe)
    }
}

fn is_package(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// All recipes of a folder, by name.
pub fn read_all(folder: &Path) -> Result<BTreeMap<String, Recipe>> {
    let mut all = BTreeMap::new();
    for entry in
        std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?
    {
        let path = entry?.path().join("image.yaml");
        let Some(name) = path.parent().and_then(Path::file_name).and_then(|n| n.to_str()) else {
            continue;
        };
        if !path.is_file() {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        all.insert(
            name.to_owned(),
            Recipe::parse(&text).with_context(|| format!("{}", path.display()))?,
        );
    }
    let known = |name: &str| all.get(name).is_some_and(|r| r.base);
    for (name, recipe) in &all {
        if let Some(other) =
            recipe.from.iter().chain(recipe.copy.iter().map(|c| &c.from)).find(|o| !known(o))
        {
            bail!("image {name} starts from `{other}`, which is not a base");
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipes_of_this_project_are_understood() {
        let all = read_all(&crate::util::root().join("images")).unwrap();
        for controller in ["rig-ctl", "polecat-ctl"] {
            assert_eq!(all[controller].from, None, "{controller} needs no shell");
        }
        assert_eq!(all["polecat-agent"].agents[&Agent::ClaudeCode], "/usr/local/bin/claude");
        assert!(all.values().all(|r| r.summary.ends_with('.')));
    }

    #[test]
    fn an_unknown_field_or_agent_is_refused() {
        let error = Recipe::parse("{summary: x, form: base-git}").unwrap_err().to_string();
        assert!(error.contains("form"), "{error}");
        assert!(Recipe::parse("{summary: x, agents: {claude: /claude}}").is_err());
    }

    #[test]
    fn paths_outside_the_image_and_shell_syntax_are_refused() {
        for (text, why) in [
            ("{summary: x, binaries: {a: ../etc/passwd}}", "absolute"),
            ("{summary: x, binaries: {a: /usr/../etc/passwd}}", "absolute"),
            ("{summary: x, from: b, packages: ['git;reboot']}", "Debian package"),
            ("{summary: x, packages: [git]}", "need a `from`"),
            ("{summary: x, base: true, packages: [git], binaries: {a: /a}}", "packages only"),
        ] {
            let error = Recipe::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn an_image_starts_from_a_base_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        std::fs::write(dir.path().join("a/image.yaml"), "{summary: x., from: a}").unwrap();
        assert!(read_all(dir.path()).unwrap_err().to_string().contains("not a base"));
    }
}

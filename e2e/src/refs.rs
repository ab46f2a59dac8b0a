//! The refs of a remote, fetched into a repository of our own.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use gastown_demo::{Scenario, git};
use tempfile::TempDir;

/// The refs of a remote and their objects.
#[derive(Debug)]
pub struct Remote {
    dir: TempDir,
    /// Commit by full ref name.
    pub refs: BTreeMap<String, String>,
}

impl Remote {
    /// Fetches all refs.
    pub async fn read(scenario: &Scenario) -> Result<Self> {
        let dir = TempDir::new().context("a temporary folder")?;
        git(dir.path(), &["init", "--quiet", "--bare"]).await?;
        let url = scenario.repository_here();
        git(dir.path(), &["fetch", "--quiet", &url, "+refs/*:refs/*"]).await?;
        let listed =
            git(dir.path(), &["for-each-ref", "--format=%(refname) %(objectname)"]).await?;
        let listed = String::from_utf8(listed)?;
        let refs = listed
            .lines()
            .filter_map(|l| l.split_once(' '))
            .map(|(name, id)| (name.to_owned(), id.to_owned()))
            .collect();
        Ok(Self { dir, refs })
    }

    /// A ref whose name starts with this prefix.
    pub fn find(&self, prefix: &str) -> Option<&str> {
        self.refs.keys().find(|name| name.starts_with(prefix)).map(String::as_str)
    }

    /// A file's text in a commit.
    pub async fn file(&self, commit: &str, path: &str) -> Result<String> {
        Ok(String::from_utf8(git(self.dir.path(), &["show", &format!("{commit}:{path}")]).await?)?)
    }

    /// Mode and path of every file of a commit.
    pub async fn tree(&self, commit: &str) -> Result<Vec<(String, String)>> {
        let listed = git(self.dir.path(), &["ls-tree", "-r", "-z", "--full-tree", commit]).await?;
        let entries = String::from_utf8_lossy(&listed).into_owned();
        let entry =
            |e: &str| Some((e.split(' ').next()?.to_owned(), e.split_once('\t')?.1.to_owned()));
        Ok(entries.split('\0').filter_map(entry).collect())
    }

    /// The subjects of the commits that a ref has beyond another, newest first.
    pub async fn subjects(&self, beyond: &str, of: &str) -> Result<Vec<String>> {
        let log = git(self.dir.path(), &["log", "--format=%s", &format!("{beyond}..{of}")]).await?;
        Ok(String::from_utf8(log)?.lines().map(str::to_owned).collect())
    }

    /// Whether any object of the remote holds this text.
    pub async fn holds(&self, text: &str) -> Result<bool> {
        let revisions: Vec<&str> = self.refs.values().map(String::as_str).collect();
        let objects =
            git(self.dir.path(), &[&["rev-list", "--objects"][..], &revisions].concat()).await?;
        for line in String::from_utf8_lossy(&objects).lines() {
            let id = line.split(' ').next().unwrap_or_default();
            let kind = git(self.dir.path(), &["cat-file", "-t", id]).await?;
            if kind.starts_with(b"blob")
                && String::from_utf8_lossy(&git(self.dir.path(), &["cat-file", "blob", id]).await?)
                    .contains(text)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

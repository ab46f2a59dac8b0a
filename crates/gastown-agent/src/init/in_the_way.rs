//! Branches of the remote beside which the work branch cannot exist: git keeps `a` as a file and
//! `a/b` as a file in a folder `a`.

use gastown_types::BranchName;

/// The names to ask the remote for, as `Remote::ls_remote` takes them.
pub fn names(work: &BranchName) -> Vec<String> {
    let mut names: Vec<String> = folders(work).map(|f| format!("refs/heads/{f}")).collect();
    names.push(format!("{}/*", work.full()));
    names
}

/// The first of the remote's refs that is in the way, as a branch name.
pub fn found<'a>(work: &BranchName, refs: impl Iterator<Item = &'a String>) -> Option<&'a str> {
    let below = format!("{work}/");
    refs.filter_map(|name| name.strip_prefix("refs/heads/"))
        .find(|name| name.starts_with(&below) || folders(work).any(|folder| folder == *name))
}

/// The folders that the branch would be in: `a` and `a/b` for `a/b/c`.
fn folders(work: &BranchName) -> impl Iterator<Item = &str> {
    work.as_str().match_indices('/').map(|(at, _)| &work.as_str()[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_the_way(work: &str, there: &[&str]) -> Option<String> {
        let refs: Vec<String> = there.iter().map(|n| format!("refs/heads/{n}")).collect();
        found(&work.parse().unwrap(), refs.iter()).map(str::to_owned)
    }

    #[test]
    fn a_branch_above_or_below_is_in_the_way_and_others_are_not() {
        assert_eq!(in_the_way("polecat/x", &["main", "polecat"]), Some("polecat".into()));
        assert_eq!(in_the_way("polecat/x", &["polecat/x/y"]), Some("polecat/x/y".into()));
        assert_eq!(in_the_way("a/b/c", &["a/b"]), Some("a/b".into()));
        assert_eq!(in_the_way("polecat/x", &["polecat/xy", "polecat/x", "pole", "polecats"]), None);
        let work: BranchName = "a/b/c".parse().unwrap();
        assert_eq!(names(&work), ["refs/heads/a", "refs/heads/a/b", "refs/heads/a/b/c/*"]);
    }
}

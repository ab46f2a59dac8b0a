//! Links of the Markdown files lead somewhere: to a file of the tree, and to a heading that it has.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// Fails with each link to a file or a heading that is not there, of the Markdown files among
/// `listed` below `root`. Links to other hosts are not followed.
pub fn check(root: &Path, listed: &[&str]) -> Result<()> {
    let mut dead = Vec::new();
    for name in listed.iter().filter(|name| Path::new(name).extension().is_some_and(|e| e == "md"))
    {
        let path = root.join(name);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        let folder = path.parent().unwrap_or(root);
        for target in targets(&text) {
            if let Some(why) = dead_end(&path, folder, &target) {
                dead.push(format!("{name}: {target}: {why}"));
            }
        }
    }
    ensure!(dead.is_empty(), "dead links in Markdown:\n{}", dead.join("\n"));
    Ok(())
}

/// Why a link leads nowhere; nothing when it leads somewhere, or to another host.
fn dead_end(page: &Path, folder: &Path, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, heading) = target.split_once('#').map_or((target, None), |(f, h)| (f, Some(h)));
    let file: PathBuf = if file.is_empty() { page.to_owned() } else { folder.join(file) };
    if !file.exists() {
        return Some("no such file".to_owned());
    }
    let heading = heading?;
    let text = std::fs::read_to_string(&file).ok()?;
    let known = prose(&text).filter_map(anchor).any(|anchor| anchor == heading);
    (!known).then(|| "no such heading".to_owned())
}

/// The lines of a text outside of fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    })
}

/// The anchor that a heading's line gets on a forge.
fn anchor(line: &str) -> Option<String> {
    let title = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?;
    let kept = title.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    Some(kept.map(|c| if c == ' ' { '-' } else { c }).collect())
}

/// Where the links of a text lead: `[text](target)` outside of code.
fn targets(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        // Parts between back-ticks are code.
        let shown: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        let mut rest = shown.as_str();
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, more)) = after.split_once(')') else { break };
            found.push(target.split_whitespace().next().unwrap_or_default().to_owned());
            rest = more;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_outside_of_code_only() {
        let text = "[a](b.md) and [`c`](d.md#e \"title\"), `[no](x)`\n```\n[no](y)\n```\n";
        assert_eq!(targets(text), ["b.md", "d.md#e"]);
    }

    #[test]
    fn a_dead_link_and_a_dead_heading_are_found() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.md"), "# One: `two`, three\n[x](b.md) [y](#nine)\n")
            .unwrap();
        let dead = check(folder.path(), &["a.md"]).unwrap_err().to_string();
        assert!(dead.contains("b.md: no such file") && dead.contains("#nine: no such heading"));
        std::fs::write(folder.path().join("a.md"), "# One: `two`, three\n[y](#one-two-three)\n")
            .unwrap();
        check(folder.path(), &["a.md"]).unwrap();
    }
}

//! The fenced blocks of a Markdown file, and how the comment before one has it tested.

use anyhow::{Context as _, Result, bail};

/// Where a block can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On an API server without a node.
    Plane,
    /// Only on a cluster with nodes, images and a registry.
    Cluster,
    /// Nowhere by itself, for the reason that is given.
    Nowhere(String),
}

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The line of its fence, counted from 1.
    pub line: usize,
    /// What stands behind the fence: `sh`, `yaml`, …
    pub language: String,
    /// Where it can be run.
    pub runs: Place,
    /// What stands in it, without the indentation of its fence.
    pub text: String,
}

/// The blocks of a text, in their order. A comment `<!-- test: e2e -->` or
/// `<!-- test: skip REASON -->` on the line before a fence decides where its block runs.
pub fn read(text: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    let mut runs = Place::Plane;
    while let Some((number, line)) = lines.next() {
        let trimmed = line.trim_start();
        if let Some(comment) = trimmed.strip_prefix("<!-- test:") {
            runs = place(comment).with_context(|| format!("line {}: {line}", number + 1))?;
            continue;
        }
        if let Some(language) = trimmed.strip_prefix("```") {
            let indent = line.len() - trimmed.len();
            let mut text = String::new();
            loop {
                let Some((_, line)) = lines.next() else {
                    bail!("line {}: the block has no end", number + 1);
                };
                if line.trim() == "```" {
                    break;
                }
                text.push_str(line.get(indent..).unwrap_or_default());
                text.push('\n');
            }
            let (language, line) = (language.trim().to_owned(), number + 1);
            blocks.push(Block { line, language, runs, text });
        }
        runs = Place::Plane;
    }
    Ok(blocks)
}

fn place(comment: &str) -> Result<Place> {
    let comment = comment.trim().trim_end_matches("-->").trim();
    match comment.split_once(' ').unwrap_or((comment, "")) {
        ("e2e", "") => Ok(Place::Cluster),
        ("skip", reason) if !reason.is_empty() => Ok(Place::Nowhere(reason.to_owned())),
        _ => bail!("want `test: e2e` or `test: skip REASON`"),
    }
}

#[test]
fn blocks_are_read_with_what_stands_before_them() {
    let text = "a\n```sh\nls\n```\n<!-- test: e2e -->\n  ```yaml\n  a:\n    b: 1\n  ```\n";
    let blocks = read(text).unwrap();
    assert_eq!(
        blocks.iter().map(|b| (b.line, b.language.as_str(), b.text.as_str())).collect::<Vec<_>>(),
        [(2, "sh", "ls\n"), (6, "yaml", "a:\n  b: 1\n")]
    );
    assert_eq!((&blocks[0].runs, &blocks[1].runs), (&Place::Plane, &Place::Cluster));
    assert!(read("<!-- test: skip -->\n```sh\n```").is_err(), "a reason is owed");
    assert!(read("```sh\nls\n").is_err());
}

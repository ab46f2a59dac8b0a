//! The typed view of one issue.

use jiff::Timestamp;

/// An issue as far as the town reads it. The line in the file stays the truth: what is not here is
/// kept there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Issue {
    /// Checked by [`crate::is_valid_id`].
    pub id: String,
    /// One line, usually.
    pub title: String,
    /// Markdown.
    pub description: String,
    /// Markdown.
    pub design: String,
    /// Markdown.
    pub acceptance_criteria: String,
    /// Markdown.
    pub notes: String,
    /// Open where the file does not say.
    pub status: Status,
    /// 0 (critical) to 4. What is absent is 0, as `bd` reads it; what is no priority counts as 2,
    /// the default of `bd create`.
    pub priority: u8,
    /// `task` where the file does not say.
    pub issue_type: String,
    /// Who has claimed it; never empty.
    pub assignee: Option<String>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// When it was last changed: the later one of two branches wins.
    pub updated_at: Option<Timestamp>,
    /// When it was first claimed (exports only).
    pub started_at: Option<Timestamp>,
    /// When it was closed.
    pub closed_at: Option<Timestamp>,
    /// Why it was closed; empty where the file does not say.
    pub close_reason: String,
    /// Not ready before this time.
    pub defer_until: Option<Timestamp>,
    /// In the order of the file.
    pub labels: Vec<String>,
    /// Outgoing edges only.
    pub dependencies: Vec<Dependency>,
    /// In the order of the file.
    pub comments: Vec<Comment>,
    /// A standing item, never work.
    pub pinned: bool,
    /// Not to be kept, never work.
    pub ephemeral: bool,
    /// A pattern for other issues, never work.
    pub is_template: bool,
    /// The fields whose values were of a wrong type and count as absent.
    pub unreadable: Vec<&'static str>,
}

/// The status of an issue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Status {
    /// May be claimed.
    #[default]
    Open,
    /// Claimed.
    InProgress,
    /// Blocked by hand; says nothing about dependencies.
    Blocked,
    /// On an agent's hook in Gas Town.
    Hooked,
    /// Put off.
    Deferred,
    /// A standing item; counts as done for what it blocks.
    Pinned,
    /// Done.
    Closed,
    /// Deleted; the line stays for a while.
    Tombstone,
    /// A custom status: neither ready nor closed.
    Other(String),
}

/// An edge from an issue to what it depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The dependent; nearly always the issue that has the edge.
    pub issue_id: String,
    /// The target.
    pub depends_on_id: String,
    /// What the edge means.
    pub kind: DependencyKind,
    /// JSON text, where the file has any.
    pub metadata: Option<String>,
}

/// What an edge means. Only the named kinds have a say in what is ready.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DependencyKind {
    /// The target must be closed.
    Blocks,
    /// The target is the parent; its being blocked is inherited.
    ParentChild,
    /// As `bd` has it: exactly like `Blocks`.
    ConditionalBlocks,
    /// Waits for the children of the target.
    WaitsFor,
    /// A link for people, or of a kind that is not known.
    Other(String),
}

/// How many children a `waits-for` edge waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Gate {
    /// All of them.
    #[default]
    AllChildren,
    /// The first that is closed.
    AnyChildren,
}

/// A comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// A number in classic and `br` files, a UUID in exports; as text.
    pub id: String,
    /// Who wrote it.
    pub author: String,
    /// Markdown.
    pub text: String,
    /// When.
    pub created_at: Option<Timestamp>,
}

impl Issue {
    /// Whether what it blocks may go on: closed, or a standing item.
    pub fn is_done(&self) -> bool {
        matches!(self.status, Status::Closed | Status::Pinned)
    }

    /// Its direct parents.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        self.dependencies
            .iter()
            .filter(|edge| edge.kind == DependencyKind::ParentChild)
            .map(|edge| edge.depends_on_id.as_str())
    }
}

impl Status {
    /// The word in the file.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Open => "open",
            Self::InProgress => "in_progress",
            Self::Blocked => "blocked",
            Self::Hooked => "hooked",
            Self::Deferred => "deferred",
            Self::Pinned => "pinned",
            Self::Closed => "closed",
            Self::Tombstone => "tombstone",
            Self::Other(word) => word,
        }
    }
}

impl From<String> for Status {
    fn from(word: String) -> Self {
        match word.as_str() {
            "" | "open" => Self::Open,
            "in_progress" => Self::InProgress,
            "blocked" => Self::Blocked,
            "hooked" => Self::Hooked,
            "deferred" => Self::Deferred,
            "pinned" => Self::Pinned,
            "closed" => Self::Closed,
            "tombstone" | "deleted" => Self::Tombstone,
            _ => Self::Other(word),
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl DependencyKind {
    /// The word in the file.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Blocks => "blocks",
            Self::ParentChild => "parent-child",
            Self::ConditionalBlocks => "conditional-blocks",
            Self::WaitsFor => "waits-for",
            Self::Other(word) => word,
        }
    }

    /// Whether the edge has a say in what is ready.
    pub fn orders_work(&self) -> bool {
        !matches!(self, Self::Other(_))
    }
}

impl From<String> for DependencyKind {
    fn from(word: String) -> Self {
        match word.as_str() {
            "blocks" => Self::Blocks,
            "parent-child" => Self::ParentChild,
            "conditional-blocks" => Self::ConditionalBlocks,
            "waits-for" => Self::WaitsFor,
            _ => Self::Other(word),
        }
    }
}

impl std::fmt::Display for DependencyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Dependency {
    /// Whether the target is in another project (`external:<project>:<id>`); such an edge never
    /// blocks.
    pub fn is_external(&self) -> bool {
        self.depends_on_id.starts_with("external:")
    }

    /// Which children a `waits-for` edge waits for; all, unless its metadata says `any-children`.
    pub fn gate(&self) -> Gate {
        let gate = self
            .metadata
            .as_deref()
            .and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
        match gate.as_ref().and_then(|value| value.get("gate")).and_then(serde_json::Value::as_str)
        {
            Some("any-children") => Gate::AnyChildren,
            _ => Gate::AllChildren,
        }
    }
}

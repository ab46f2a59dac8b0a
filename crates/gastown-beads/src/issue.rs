//! The fields of one issue.

use jiff::Timestamp;

/// The fields of an issue that the operator reads. The line in the file stays authoritative: other
/// fields are kept there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Issue {
    /// The id, checked by [`crate::is_valid_id`].
    pub id: String,
    /// The title, usually one line.
    pub title: String,
    /// The description, in Markdown.
    pub description: String,
    /// The design, in Markdown.
    pub design: String,
    /// The acceptance criteria, in Markdown.
    pub acceptance_criteria: String,
    /// Notes, in Markdown.
    pub notes: String,
    /// The status; open where the file has none.
    pub status: Status,
    /// The priority, 0 (critical) to 4. An absent one is 0, as `bd` reads it; an invalid one counts
    /// as 2, the default of `bd create`.
    pub priority: u8,
    /// The type; `task` where the file has none.
    pub issue_type: String,
    /// Who claimed it; never an empty string.
    pub assignee: Option<String>,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// When it was last changed; of two branches the later change wins.
    pub updated_at: Option<Timestamp>,
    /// When it was first claimed (exports only).
    pub started_at: Option<Timestamp>,
    /// When it was closed.
    pub closed_at: Option<Timestamp>,
    /// Why it was closed; empty where the file has no reason.
    pub close_reason: String,
    /// Not ready before this time.
    pub defer_until: Option<Timestamp>,
    /// The labels, in the order of the file.
    pub labels: Vec<String>,
    /// The outgoing edges.
    pub dependencies: Vec<Dependency>,
    /// The comments, in the order of the file.
    pub comments: Vec<Comment>,
    /// A standing item, never work.
    pub pinned: bool,
    /// A temporary item, never work.
    pub ephemeral: bool,
    /// A pattern for other issues, never work.
    pub is_template: bool,
    /// The fields whose values have a wrong type and count as absent.
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
    /// Marked as blocked by a person, whatever its dependencies.
    Blocked,
    /// On an agent's hook in Gas Town.
    Hooked,
    /// Postponed.
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
    /// The kind of edge.
    pub kind: DependencyKind,
    /// Further settings of the edge, as JSON text.
    pub metadata: Option<String>,
}

/// The kind of an edge. Only the named kinds decide what is ready.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DependencyKind {
    /// The target must be closed.
    Blocks,
    /// The target is the parent; a blocked parent blocks its children.
    ParentChild,
    /// The target must be closed; in `bd` this does not differ from `Blocks`.
    ConditionalBlocks,
    /// The children of the target must be closed (see [`Gate`]).
    WaitsFor,
    /// A link for people, or an unknown kind.
    Other(String),
}

/// The children that a `waits-for` edge waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Gate {
    /// All children must be closed.
    #[default]
    AllChildren,
    /// One child must be closed.
    AnyChildren,
}

/// A comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// The id: a number in classic and `br` files, a UUID in exports.
    pub id: String,
    /// Who wrote it.
    pub author: String,
    /// The text, in Markdown.
    pub text: String,
    /// When it was written.
    pub created_at: Option<Timestamp>,
}

impl Issue {
    /// Whether it blocks nothing any more: it is closed or pinned.
    pub fn is_done(&self) -> bool {
        matches!(self.status, Status::Closed | Status::Pinned)
    }

    /// The ids of its direct parents.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        self.dependencies
            .iter()
            .filter(|edge| edge.kind == DependencyKind::ParentChild)
            .map(|edge| edge.depends_on_id.as_str())
    }
}

impl Status {
    /// The value in the file.
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
    /// The value in the file.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Blocks => "blocks",
            Self::ParentChild => "parent-child",
            Self::ConditionalBlocks => "conditional-blocks",
            Self::WaitsFor => "waits-for",
            Self::Other(word) => word,
        }
    }

    /// Whether edges of this kind decide what is ready.
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

    /// The gate of a `waits-for` edge: all children, unless its metadata has `any-children`.
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

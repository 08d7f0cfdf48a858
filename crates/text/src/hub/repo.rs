//! Names of repositories: `org/name` or `org/name@revision`.

use std::fmt;

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A model or an adapter.
    Model,
    /// A data set.
    Dataset,
}

/// A repository of the hub at a revision.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RepoId {
    kind: Kind,
    id: String,
    revision: Option<String>,
}

impl RepoId {
    /// Read `org/name[@revision]`; `None` where the text cannot be the name of a repository.
    pub fn parse(kind: Kind, text: &str) -> Option<Self> {
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (text, None),
        };
        let (org, name) = id.split_once('/')?;
        let fine = |part: &str| {
            let first = part.chars().next();
            first.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
                && !part.contains("..")
                && !part.contains("--")
        };
        let fine_revision = |part: &str| {
            !part.is_empty()
                && !part.contains("..")
                && !part.starts_with('/')
                && part.chars().all(|c| c.is_ascii_graphic())
        };
        let good = fine(org) && fine(name) && revision.is_none_or(fine_revision);
        good.then(|| RepoId { kind, id: id.to_owned(), revision: revision.map(str::to_owned) })
    }

    /// Model or data set.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// `org/name`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The branch, tag or commit; `main` where none was given.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// The repository's folder in the cache.
    pub(super) fn folder_name(&self) -> String {
        let kind = match self.kind {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        };
        format!("{kind}--{}", self.id.replace('/', "--"))
    }

    /// `datasets/` in the address of a data set's files and page.
    pub(super) fn url_prefix(&self) -> &'static str {
        match self.kind {
            Kind::Model => "",
            Kind::Dataset => "datasets/",
        }
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.revision {
            Some(revision) => write!(f, "{}@{revision}", self.id),
            None => f.write_str(&self.id),
        }
    }
}

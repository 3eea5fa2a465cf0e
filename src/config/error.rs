//! What can be wrong with the settings, said so that a person can fix it.
//!
//! Invariant: every [`Problem`] names the key, the value where there is one, the origin and what to write instead.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// The settings file, with the line of the key (1-based; 0: the whole file).
    File {
        /// The file as it was named.
        path: PathBuf,
        /// 1-based line.
        line: usize,
    },
    /// An environment variable, by name.
    Env(String),
    /// A command-line flag, by name.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("{origin}: {}{what}{}", Key(key), Fix(fix))]
pub struct Problem {
    /// The key as a dotted path, `webhooks.0.url`; empty when the whole layer is unreadable.
    pub key: String,
    /// Where the value came from.
    pub origin: Origin,
    /// What is wrong, naming the value.
    pub what: String,
    /// What to write instead; empty when that is obvious from `what`.
    pub fix: String,
}

impl Problem {
    pub(crate) fn new(key: impl Into<String>, origin: Origin, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { key: key.into(), origin, what: what.into(), fix: fix.into() }
    }
}

/// Prints "key: " or nothing.
struct Key<'a>(&'a str);

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}: ", self.0) }
    }
}

/// Prints "; fix" or nothing.
struct Fix<'a>(&'a str);

impl fmt::Display for Fix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; {}", self.0) }
    }
}

/// Everything that is wrong, found in one pass, in the order of the keys.
#[derive(Clone, Debug, PartialEq, Error)]
pub struct Problems(
    /// Never empty.
    pub Vec<Problem>,
);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

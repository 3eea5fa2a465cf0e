//! Conditions and updates: the small language of conditional writes the engine needs.
//!
//! One tree, two readers: [`Condition::holds`] evaluates it in memory, `aws.rs` renders it as an expression. What is
//! not in here (functions, arithmetic, counters) the engine must not use.

use super::{Item, Value};

/// A condition on the item that stands under a key. An absent item has no attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Always holds.
    None,
    /// Every part holds.
    All(Vec<Condition>),
    /// At least one part holds.
    Any(Vec<Condition>),
    /// The attribute is there and equal.
    Equals(&'static str, Value),
    /// The attribute is there and not equal.
    Differs(&'static str, Value),
    /// The attribute is there, a number, and smaller than this.
    Below(&'static str, i64),
    /// The attribute is there, a number, and not larger than this.
    AtMost(&'static str, i64),
    /// The attribute is there.
    Exists(&'static str),
    /// The attribute is not there (for a key attribute: there is no item).
    Absent(&'static str),
}

impl Condition {
    /// Whether the condition holds of `item` (`None`: no item under the key).
    pub fn holds(&self, item: Option<&Item>) -> bool {
        let attribute = |name: &str| item.and_then(|i| i.get(name));
        let number = |name: &str| item.and_then(|i| i.number(name));
        match self {
            Self::None => true,
            Self::All(parts) => parts.iter().all(|p| p.holds(item)),
            Self::Any(parts) => parts.iter().any(|p| p.holds(item)),
            Self::Equals(name, value) => attribute(name) == Some(value),
            Self::Differs(name, value) => attribute(name).is_some_and(|there| there != value),
            Self::Below(name, bound) => number(name).is_some_and(|n| n < *bound),
            Self::AtMost(name, bound) => number(name).is_some_and(|n| n <= *bound),
            Self::Exists(name) => attribute(name).is_some(),
            Self::Absent(name) => attribute(name).is_none(),
        }
    }
}

/// Attributes to set and to remove in one UpdateItem.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Update {
    /// Attributes to set, each named once.
    pub set: Vec<(&'static str, Value)>,
    /// Attributes to remove; absent ones are ignored.
    pub remove: Vec<&'static str>,
}

impl Update {
    /// An update that changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also sets this attribute.
    #[must_use]
    pub fn set(mut self, name: &'static str, value: Value) -> Self {
        self.set.push((name, value));
        self
    }

    /// Also removes this attribute.
    #[must_use]
    pub fn remove(mut self, name: &'static str) -> Self {
        self.remove.push(name);
        self
    }

    /// Does to `item` what DynamoDB would.
    pub fn apply(&self, item: &mut Item) {
        for (name, value) in &self.set {
            item.set(name, value.clone());
        }
        for name in &self.remove {
            item.remove(name);
        }
    }
}

//! Attribute values and items, as much of DynamoDB's types as leases and state need.
//!
//! Anything else in a row is kept out of sight as [`Value::Other`]: rows are changed by updates of named attributes,
//! never written back whole, so what we do not understand is not lost.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

/// A DynamoDB attribute value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// String.
    S(String),
    /// Number, in DynamoDB's decimal text form.
    N(String),
    /// Binary.
    B(Bytes),
    /// Set of strings, never empty.
    Ss(BTreeSet<String>),
    /// A type the engine does not use; kept only so that foreign rows can be read.
    Other,
}

impl Value {
    /// A number value.
    pub fn number(n: impl Into<i128>) -> Self {
        Self::N(n.into().to_string())
    }

    /// A string value.
    pub fn string(s: impl Into<String>) -> Self {
        Self::S(s.into())
    }

    /// Bytes DynamoDB counts for the value, without its name: UTF-8 length of text, length of binary, one byte per two
    /// significant digits of a number and one more (another when it is negative). Foreign types count as one byte.
    pub fn size(&self) -> usize {
        match self {
            Self::S(s) => s.len(),
            Self::N(n) => number_size(n),
            Self::B(b) => b.len(),
            Self::Ss(set) => set.iter().map(String::len).sum(),
            Self::Other => 1,
        }
    }
}

/// The engine's own numbers are integers; zeros at either end are not significant.
fn number_size(text: &str) -> usize {
    let significant = text.trim_start_matches(['-', '+']).trim_start_matches('0').trim_end_matches('0');
    significant.len().div_ceil(2) + 1 + usize::from(text.starts_with('-') && !significant.is_empty())
}

/// A row: attribute name to value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Item(BTreeMap<String, Value>);

impl Item {
    /// An item without attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The item with one more attribute.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.set(name, value);
        self
    }

    /// Sets or replaces an attribute.
    pub fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    /// Takes an attribute away.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// The attribute, if present.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The attribute as text, when it is a string.
    pub fn string(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Value::S(s)) => Some(s),
            _ => None,
        }
    }

    /// The attribute as an integer, when it is a number without a fraction that fits.
    pub fn number(&self, name: &str) -> Option<i64> {
        match self.get(name) {
            Some(Value::N(n)) => n.parse().ok(),
            _ => None,
        }
    }

    /// The attribute as bytes, when it is binary.
    pub fn bytes(&self, name: &str) -> Option<&Bytes> {
        match self.get(name) {
            Some(Value::B(b)) => Some(b),
            _ => None,
        }
    }

    /// The attribute as a set of strings; empty when absent.
    pub fn strings(&self, name: &str) -> BTreeSet<String> {
        match self.get(name) {
            Some(Value::Ss(set)) => set.clone(),
            _ => BTreeSet::new(),
        }
    }

    /// Bytes DynamoDB counts for the item: names and values. Storage is billed with 100 bytes more.
    pub fn size(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.size()).sum()
    }

    /// All attributes in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

impl FromIterator<(String, Value)> for Item {
    fn from_iter<T: IntoIterator<Item = (String, Value)>>(iter: T) -> Self {
        Self(iter.into_iter().collect())
    }
}

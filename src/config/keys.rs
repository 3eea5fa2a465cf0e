//! The keys there are, read off the JSON Schema of [`Settings`], so that no second list can go stale.
//!
//! Also the paths of keys (`webhooks.0.url`) and the nearest known key to a mistyped one.
//! Invariant: a path accepted by [`KnownKeys::contains`] is a field of `Settings`.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::Settings;

/// The JSON Schema (draft 2020-12) of the settings file; printed by `config schema`.
pub fn schema() -> Value {
    schemars::schema_for!(Settings).to_value()
}

/// One step of a [`KeyPath`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Segment {
    /// Element of a list, from 0.
    Index(usize),
    /// Key of a table.
    Name(String),
}

/// Path of one key from the root of the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyPath(pub(super) Vec<Segment>);

impl KeyPath {
    /// Reads `webhooks.0.url` (or, with another separator, `webhooks__0__url`).
    pub(super) fn parse(text: &str, separator: &str) -> Self {
        let segment = |part: &str| match part.parse::<u8>() {
            Ok(index) => Segment::Index(usize::from(index)),
            Err(_) => Segment::Name(part.to_owned()),
        };
        Self(text.split(separator).map(segment).collect())
    }

    /// The path of a key below this one.
    pub(super) fn child(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(".")?;
            }
            match segment {
                Segment::Index(index) => write!(f, "{index}")?,
                Segment::Name(name) => f.write_str(name)?,
            }
        }
        Ok(())
    }
}

/// Every key with its manual; list elements stand as `0`.
#[derive(Debug)]
pub(super) struct KnownKeys(BTreeMap<KeyPath, String>);

impl KnownKeys {
    /// Reads them off the schema.
    pub(super) fn read() -> Self {
        let schema = schema();
        let mut keys = BTreeMap::new();
        collect(&schema, &schema, &KeyPath::default(), &mut keys);
        Self(keys)
    }

    /// Whether `path` is a key (not a section).
    pub(super) fn contains(&self, path: &KeyPath) -> bool {
        self.0.contains_key(&generic(path))
    }

    /// Whether `path` is a section or a list element: the start of a longer key.
    pub(super) fn is_section(&self, path: &KeyPath) -> bool {
        let path = generic(path);
        self.0.keys().any(|key| key.0.len() > path.0.len() && key.0.starts_with(&path.0))
    }

    /// The manual of a key, empty if unknown.
    pub(super) fn manual(&self, path: &KeyPath) -> &str {
        self.0.get(&generic(path)).map_or("", String::as_str)
    }

    /// All keys with their manuals, sorted.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&KeyPath, &str)> {
        self.0.iter().map(|(path, manual)| (path, manual.as_str()))
    }

    /// A sentence that helps after an unknown key: the nearest key, or the keys of the section it was meant for.
    pub(super) fn suggestion(&self, path: &KeyPath) -> String {
        let wrong = generic(path).to_string();
        let nearest = self.0.keys().map(ToString::to_string).min_by_key(|key| distance(&wrong, key));
        if let Some(key) = nearest
            && distance(&wrong, &key) <= 2 + wrong.len() / 4
        {
            return format!("did you mean `{key}`?");
        }
        let section = path.0.first();
        let siblings: Vec<String> =
            self.0.keys().filter(|key| key.0.first() == section).map(|key| format!("`{key}`")).collect();
        if siblings.is_empty() {
            let mut sections: Vec<String> = Vec::new();
            for key in self.0.keys() {
                if let Some(Segment::Name(name)) = key.0.first()
                    && sections.last() != Some(name)
                {
                    sections.push(name.clone());
                }
            }
            return format!("the sections are {}", sections.join(", "));
        }
        format!("the keys there are {}", siblings.join(", "))
    }
}

/// Edit distance; a right last part under a wrong section counts as near.
fn distance(wrong: &str, key: &str) -> usize {
    let last = |text: &str| text.rsplit('.').next().unwrap_or_default().to_owned();
    let plain = strsim::damerau_levenshtein(wrong, key);
    if last(wrong) == last(key) { plain.min(1) } else { plain }
}

/// The path with every list index replaced by 0.
fn generic(path: &KeyPath) -> KeyPath {
    let zero = |segment: &Segment| match segment {
        Segment::Index(_) => Segment::Index(0),
        name => name.clone(),
    };
    KeyPath(path.0.iter().map(zero).collect())
}

fn collect(root: &Value, node: &Value, path: &KeyPath, keys: &mut BTreeMap<KeyPath, String>) {
    let target = resolve(root, node);
    if let Some(properties) = target.get("properties").and_then(Value::as_object) {
        for (name, property) in properties {
            collect(root, property, &path.child(Segment::Name(name.clone())), keys);
        }
        return;
    }
    if let Some(items) = target.get("items")
        && resolve(root, items).get("properties").is_some()
    {
        collect(root, items, &path.child(Segment::Index(0)), keys);
        return;
    }
    let described = node.get("description").or_else(|| target.get("description"));
    keys.insert(path.clone(), described.and_then(Value::as_str).unwrap_or_default().to_owned());
}

/// Follows a `$ref` into `$defs`.
fn resolve<'a>(root: &'a Value, node: &'a Value) -> &'a Value {
    let pointer = node.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix('#'));
    pointer.and_then(|pointer| root.pointer(pointer)).unwrap_or(node)
}

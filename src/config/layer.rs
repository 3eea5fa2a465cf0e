//! Layering: file, environment and flags, cut into single keys that remember their origin, laid over the defaults.
//!
//! Every key is first tried alone over the defaults, so an error is known to be that key's and all errors are found
//! in one pass. Not here: checks that need two keys ([`super::checked`]).
//! Invariant: of two layers that set a key the later wins, and only its origin is kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::keys::{KeyPath, KnownKeys, Segment};
use super::{Config, Origin, Problem, Problems, Settings};

/// What every environment variable of ours starts with.
const ENV_PREFIX: &str = "FLOWSHIFT__";

/// The most elements a list in the settings may have.
const MAX_LIST: usize = 64;

/// One flag that sets a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The flag as typed, `--step`.
    pub flag: String,
    /// The key it sets, `detector.step`.
    pub key: String,
    /// The value as typed.
    pub value: String,
}

impl Override {
    /// `Override::new("--step", "detector.step", "10s")`
    pub fn new(flag: impl Into<String>, key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { flag: flag.into(), key: key.into(), value: value.into() }
    }
}

/// The layers above the defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The settings file: its name for messages, and its text.
    pub file: Option<(PathBuf, String)>,
    /// Environment variables; those not of ours are passed over.
    pub env: Vec<(String, String)>,
    /// Flags, in order; of two for one key the later wins.
    pub flags: Vec<Override>,
}

impl Sources {
    /// Reads the settings file, if one is named, and this process's environment.
    ///
    /// # Errors
    /// A file that cannot be read, or a variable of ours that is not UTF-8.
    pub fn gather(file: Option<&Path>, flags: Vec<Override>) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let mut sources = Self { flags, ..Self::default() };
        if let Some(path) = file {
            match std::fs::read_to_string(path) {
                Ok(text) => sources.file = Some((path.to_owned(), text)),
                Err(error) => {
                    let origin = Origin::File { path: path.to_owned(), line: 0 };
                    problems.push(Problem::new("", origin, error.to_string(), "name a readable TOML file"));
                }
            }
        }
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with(ENV_PREFIX)) else { continue };
            match value.into_string() {
                Ok(value) => sources.env.push((name.to_owned(), value)),
                Err(_) => problems.push(Problem::new("", Origin::Env(name.to_owned()), "not UTF-8", "")),
            }
        }
        // The order of the environment is the system's; errors come out in ours.
        sources.env.sort();
        if problems.is_empty() { Ok(sources) } else { Err(Problems(problems)) }
    }
}

/// The outcome of loading: what runs, and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The checked configuration.
    pub config: Config,
    /// The merged settings it was made from, as `config show` prints them.
    pub settings: Settings,
    pub(super) origins: Origins,
}

impl Loaded {
    /// A problem with a key (`webhooks.0.secret_file`) that shows only when what it names is opened: with its file and line.
    pub fn problem(&self, key: &str, what: impl Into<String>, fix: &str) -> Problem {
        Problem::new(key, self.origins.of(key), what, fix)
    }
}

/// Who set each key that is not at its default.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins(BTreeMap<KeyPath, Origin>);

impl Origins {
    /// The origin of a key by its dotted path. A key that nobody set has that of its list's element, where there is one: the
    /// first line of that in the file, else whatever set something of it.
    pub(super) fn of(&self, key: &str) -> Origin {
        let path = KeyPath::parse(key, ".");
        if let Some(origin) = self.0.get(&path) {
            return origin.clone();
        }
        let Some(end) = path.0.iter().position(|segment| matches!(segment, Segment::Index(_))) else {
            return Origin::Default;
        };
        let inside = self.0.iter().filter(|(other, _)| other.0.starts_with(&path.0[..=end])).map(|(_, origin)| origin);
        let line = |origin: &&Origin| match origin {
            Origin::File { line, .. } => *line,
            Origin::Default | Origin::Env(_) | Origin::Flag(_) => usize::MAX,
        };
        inside.min_by_key(line).cloned().unwrap_or(Origin::Default)
    }

    pub(super) fn of_path(&self, path: &KeyPath) -> Origin {
        self.0.get(path).cloned().unwrap_or(Origin::Default)
    }
}

/// A value and who wrote it. Text from the environment or a flag has no type yet.
enum Raw {
    Typed(Value),
    Text(String),
}

/// Lays `sources` over `defaults` and checks the result.
///
/// # Errors
/// Every unknown key, unreadable value and failed cross check at once, each with its origin and a fix.
pub fn load(defaults: &Settings, sources: &Sources) -> Result<Loaded, Problems> {
    let known = KnownKeys::read();
    let mut problems = Vec::new();
    let mut leaves: BTreeMap<KeyPath, (Raw, Origin)> = BTreeMap::new();
    if let Some((path, text)) = &sources.file {
        leaves.extend(file_leaves(path, text, &mut problems));
    }
    leaves.extend(env_leaves(&sources.env, &mut problems));
    for flag in &sources.flags {
        let leaf = (Raw::Text(flag.value.clone()), Origin::Flag(flag.flag.clone()));
        leaves.insert(KeyPath::parse(&flag.key, "."), leaf);
    }
    let mut merged = Table::try_from(defaults)
        .map_err(|error| Problems(vec![Problem::new("", Origin::Default, error.to_string(), "")]))?;
    let mut origins = Origins::default();
    for (path, (raw, origin)) in leaves {
        if matches!(&raw, Raw::Typed(Value::Table(_))) && known.is_section(&path) {
            if let Err(what) = place_empty(&mut merged, &path) {
                problems.push(Problem::new(path.to_string(), origin, what, ""));
            }
            continue;
        }
        if !known.contains(&path) {
            problems.push(Problem::new(path.to_string(), origin, "unknown key", known.suggestion(&path)));
            continue;
        }
        match typed(&path, raw) {
            Ok(value) => {
                if let Err(what) = place(&mut merged, &path, value) {
                    problems.push(Problem::new(path.to_string(), origin, what, "number the elements from 0"));
                    continue;
                }
                origins.0.insert(path, origin);
            }
            Err(what) => {
                problems.push(Problem::new(path.to_string(), origin, what, known.manual(&path).replace('\n', " ")))
            }
        }
    }
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    let settings: Settings = merged
        .try_into()
        .map_err(|error: toml::de::Error| Problems(vec![Problem::new("", Origin::Default, error.message(), "")]))?;
    let config = Config::check(&settings, &origins)?;
    Ok(Loaded { config, settings, origins })
}

fn file_leaves(path: &Path, text: &str, problems: &mut Vec<Problem>) -> Vec<(KeyPath, (Raw, Origin))> {
    let origin = |offset: usize| Origin::File { path: path.to_owned(), line: line_of(text, offset) };
    let spans = toml::de::DeTable::parse(text);
    let (table, spans) = match (text.parse::<Table>(), spans) {
        (Ok(table), Ok(spans)) => (table, spans),
        (Err(error), _) | (_, Err(error)) => {
            let offset = error.span().map_or(0, |span| span.start);
            problems.push(Problem::new("", origin(offset), error.message().to_lowercase(), "write it as TOML"));
            return Vec::new();
        }
    };
    let mut lines = BTreeMap::new();
    key_offsets(spans.get_ref(), &KeyPath::default(), &mut lines);
    let mut leaves = Vec::new();
    flatten(&Value::Table(table), &KeyPath::default(), &mut |key, value| {
        let offset = lines.get(&key).copied().unwrap_or_default();
        leaves.push((key, (Raw::Typed(value), origin(offset))));
    });
    leaves
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// The byte offset of every key in the file.
fn key_offsets(table: &toml::de::DeTable<'_>, path: &KeyPath, out: &mut BTreeMap<KeyPath, usize>) {
    for (key, value) in table {
        let here = path.child(Segment::Name(key.get_ref().to_string()));
        match value.get_ref() {
            toml::de::DeValue::Table(inner) => key_offsets(inner, &here, out),
            toml::de::DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let toml::de::DeValue::Table(inner) = item.get_ref() {
                        key_offsets(inner, &here.child(Segment::Index(index)), out);
                    }
                }
            }
            _ => {}
        }
        out.insert(here, key.span().start);
    }
}

/// Calls `leaf` for every value that is neither a table nor a list of tables, and for empty tables, so that an empty
/// section of a wrong name is seen, too.
fn flatten(value: &Value, path: &KeyPath, leaf: &mut impl FnMut(KeyPath, Value)) {
    match value {
        Value::Table(table) if !table.is_empty() || path.0.is_empty() => {
            for (name, inner) in table {
                flatten(inner, &path.child(Segment::Name(name.clone())), leaf);
            }
        }
        // An empty list inside a section says "none" of a key that may have a default; a list of sections is only empty.
        Value::Array(items) if items.iter().all(Value::is_table) && (!items.is_empty() || path.0.len() == 1) => {
            for (index, inner) in items.iter().enumerate() {
                flatten(inner, &path.child(Segment::Index(index)), leaf);
            }
        }
        other => leaf(path.clone(), other.clone()),
    }
}

fn env_leaves(env: &[(String, String)], problems: &mut Vec<Problem>) -> BTreeMap<KeyPath, (Raw, Origin)> {
    let mut leaves = BTreeMap::new();
    for (name, value) in env {
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
        if rest != rest.to_uppercase() {
            // Two spellings of one key would otherwise race.
            let fix = format!("write {ENV_PREFIX}{}", rest.to_uppercase());
            problems.push(Problem::new("", Origin::Env(name.clone()), "not in upper case", fix));
            continue;
        }
        let path = KeyPath::parse(&rest.to_lowercase(), "__");
        leaves.insert(path, (Raw::Text(value.clone()), Origin::Env(name.clone())));
    }
    leaves
}

/// Finds the typed value by trying it alone over the built-in defaults: text first as a string, then as a TOML value.
fn typed(path: &KeyPath, raw: Raw) -> Result<Value, String> {
    match raw {
        Raw::Typed(value) => fits(path, &value).map(|()| value),
        Raw::Text(text) => {
            let string = Value::String(text.clone());
            let Err(first) = fits(path, &string) else { return Ok(string) };
            let parsed = format!("v = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("v"));
            match parsed {
                Some(value) if !value.is_str() => fits(path, &value).map(|()| value),
                _ => Err(first),
            }
        }
    }
}

fn fits(path: &KeyPath, value: &Value) -> Result<(), String> {
    let mut alone = value.clone();
    for segment in path.0.iter().rev() {
        alone = match segment {
            Segment::Index(_) => Value::Array(vec![alone]),
            Segment::Name(name) => Value::Table(Table::from_iter([(name.clone(), alone)])),
        };
    }
    alone.try_into::<Settings>().map(drop).map_err(|error| error.message().to_owned())
}

/// Makes an empty list element, so that the checks see what it lacks; an empty section changes nothing.
fn place_empty(root: &mut Table, path: &KeyPath) -> Result<(), String> {
    match path.0.as_slice() {
        [Segment::Name(_), Segment::Index(_)] => place(root, path, Value::Table(Table::new())),
        _ => Ok(()),
    }
}

/// Puts `value` at `path`; a list grows by at most one element.
fn place(root: &mut Table, path: &KeyPath, value: Value) -> Result<(), String> {
    match path.0.as_slice() {
        [Segment::Name(name)] => {
            root.insert(name.clone(), value);
            Ok(())
        }
        [Segment::Name(name), Segment::Index(index), rest @ ..] => {
            let list = root.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(items) = list else { return Err(format!("`{name}` is not a list")) };
            if *index > items.len() || *index >= MAX_LIST {
                return Err(format!("element {index} of `{name}`, which has {} (at most {MAX_LIST})", items.len()));
            }
            if *index == items.len() {
                items.push(Value::Table(Table::new()));
            }
            match items.get_mut(*index) {
                Some(Value::Table(_)) if rest.is_empty() => Ok(()),
                Some(Value::Table(table)) => place(table, &KeyPath(rest.to_vec()), value),
                _ => Err(format!("element {index} of `{name}` is not a table")),
            }
        }
        [Segment::Name(name), rest @ ..] => {
            let section = root.entry(name.clone()).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(table) = section else { return Err(format!("`{name}` is not a section")) };
            place(table, &KeyPath(rest.to_vec()), value)
        }
        _ => Err("not a key".to_owned()),
    }
}

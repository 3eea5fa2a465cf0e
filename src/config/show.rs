//! Printing settings as TOML: the effective ones with who set them, and a commented example of all.
//!
//! Invariant: the output of both is a file [`super::load`] accepts, except that masked webhook URLs stay masked; a
//! secret is never printed, only the file or variable that holds it.

use std::fmt::Write;

use toml::{Table, Value};

use super::keys::{KeyPath, KnownKeys, Segment};
use super::layer::{Loaded, Origins};
use super::webhook::masked_url;
use super::{Origin, Settings};

/// The effective settings, each key that is not at its default followed by its origin.
pub fn show(loaded: &Loaded) -> String {
    let table = Table::try_from(with_names(loaded)).unwrap_or_default();
    let mut out = String::new();
    for (section, value) in &table {
        let path = KeyPath(vec![Segment::Name(section.clone())]);
        match value {
            Value::Table(keys) => write_section(&mut out, &format!("[{section}]"), keys, &path, &loaded.origins),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let Value::Table(keys) = item {
                        let here = path.child(Segment::Index(index));
                        write_section(&mut out, &format!("[[{section}]]"), keys, &here, &loaded.origins);
                    }
                }
            }
            _ => {}
        }
    }
    out
}

/// The effective settings as JSON, under `settings`, and the origin of each key that is not at its default, under
/// `origins`.
///
/// # Errors
/// Never with settings that were loaded: all of them have a form in JSON.
pub fn show_json(loaded: &Loaded) -> Result<serde_json::Value, serde_json::Error> {
    let mut settings = serde_json::to_value(with_names(loaded))?;
    for webhook in settings["webhooks"].as_array_mut().into_iter().flatten() {
        if let Some(url) = webhook["url"].as_str().map(masked_url) {
            webhook["url"] = url.into();
        }
    }
    let mut origins = serde_json::Map::new();
    for (path, _) in KnownKeys::read().iter() {
        let places = if path.0.get(1) == Some(&Segment::Index(0)) { loaded.settings.webhooks.len() } else { 1 };
        for place in 0..places {
            let mut path = path.clone();
            if let Some(index @ Segment::Index(_)) = path.0.get_mut(1) {
                *index = Segment::Index(place);
            }
            match loaded.origins.of_path(&path) {
                Origin::Default => {}
                origin => drop(origins.insert(path.to_string(), origin.to_string().into())),
            }
        }
    }
    Ok(serde_json::json!({"settings": settings, "origins": origins}))
}

/// The settings with the names that follow from `job.name` filled in.
fn with_names(loaded: &Loaded) -> Settings {
    let mut settings = loaded.settings.clone();
    let (streams, tables) = (&loaded.config.streams, &loaded.config.tables);
    for (slot, name) in [
        (&mut settings.streams.flows, &streams.flows),
        (&mut settings.streams.exchange, &streams.exchange),
        (&mut settings.streams.evidence, &streams.evidence),
        (&mut settings.tables.flows_leases, &tables.flows_leases),
        (&mut settings.tables.exchange_leases, &tables.exchange_leases),
        (&mut settings.tables.evidence_leases, &tables.evidence_leases),
        (&mut settings.tables.state, &tables.state),
    ] {
        slot.get_or_insert_with(|| name.clone());
    }
    settings
}

fn write_section(out: &mut String, header: &str, keys: &Table, path: &KeyPath, origins: &Origins) {
    if keys.is_empty() {
        return;
    }
    start_section(out, header);
    for (key, value) in keys {
        let here = path.child(Segment::Name(key.clone()));
        let shown = match value {
            Value::String(url) if header == "[[webhooks]]" && key == "url" => Value::String(masked_url(url)),
            other => other.clone(),
        };
        let comment = match origins.of_path(&here) {
            Origin::Default => String::new(),
            origin => format!("  # {}", origin.to_string().replace(['\n', '\r'], " ")),
        };
        push(out, format_args!("{key} = {shown}{comment}\n"));
    }
}

/// Every key with its manual and default, commented out.
pub fn example() -> String {
    let mut out = String::from(
        "# Settings of flowshift: every key with its default. Take the `#` from a line to change it; what keeps it\n\
         # follows the defaults of the version that runs.\n",
    );
    let mut defaults = Settings::default();
    defaults.webhooks.push(super::WebhookSettings::default());
    let defaults = Value::Table(Table::try_from(&defaults).unwrap_or_default());
    let mut section = KeyPath::default();
    for (path, manual) in KnownKeys::read().iter() {
        let Some((Segment::Name(key), parents)) = path.0.split_last() else { continue };
        if section.0 != parents {
            section = KeyPath(parents.to_vec());
            match parents {
                [Segment::Name(name)] => start_section(&mut out, &format!("[{name}]")),
                [Segment::Name(name), Segment::Index(_)] => start_section(&mut out, &format!("# [[{name}]]")),
                _ => {}
            }
        }
        for line in manual.lines() {
            push(&mut out, format_args!("# {line}\n"));
        }
        match lookup(&defaults, path) {
            Some(value) => push(&mut out, format_args!("# {key} = {value}\n")),
            None => push(&mut out, format_args!("# {key} =\n")),
        }
    }
    out
}

fn start_section(out: &mut String, header: &str) {
    if !out.is_empty() {
        out.push('\n');
    }
    push(out, format_args!("{header}\n"));
}

fn lookup<'a>(root: &'a Value, path: &KeyPath) -> Option<&'a Value> {
    path.0.iter().try_fold(root, |value, segment| match segment {
        Segment::Index(index) => value.get(*index),
        Segment::Name(name) => value.get(name.as_str()),
    })
}

/// Writing to a `String` cannot fail.
fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(text);
    debug_assert!(written.is_ok());
}

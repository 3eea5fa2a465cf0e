//! What the README shows is what the program has: the example of an event, and the fail points.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const README: &str = include_str!("../README.md");

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What stands in quotes after `crash_point!(` in the sources of the program and the engine.
fn fail_points() -> BTreeSet<String> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "consumer/src"] {
        sources(&top.join(folder), &mut files);
    }
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let named = text.split("crash_point!(\"").skip(1).filter_map(|rest| rest.split('"').next());
    named.map(str::to_owned).collect()
}

#[test]
fn the_example_of_an_event_is_the_one_that_the_schema_is_tested_with() {
    assert!(README.contains(include_str!("../proto/examples/anomaly.opened.json").trim()));
}

#[test]
fn every_fail_point_is_listed_and_exists() {
    let rows = README.lines().filter(|line| line.starts_with("| `") && line.contains("::"));
    let listed: BTreeSet<String> = rows.filter_map(|row| row.split('`').nth(1)).map(str::to_owned).collect();
    assert_eq!(listed, fail_points());
    assert!(!listed.is_empty());
}

//! Which crate may know which, held against the manifests: the program knows its libraries, the libraries do not know each
//! other, and the pure ones know no network, no clock and no async.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

const LIBRARIES: [&str; 3] = ["flowshift-consumer", "flowshift-detector", "flowshift-proto"];
const EMULATOR: &str = "flowshift-kinesis-emulator";
/// Beginnings of the names of crates that do I/O, run tasks or speak to AWS.
const IMPURE: [&str; 12] =
    ["aws-", "axum", "hyper", "reqwest", "tokio", "async", "futures", "rustls", "dynoxide", "mio", "tower", "tracing"];

/// Dependencies of every workspace crate by kind: `normal`, `dev`, `build`.
fn manifests() -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--no-deps", "--format-version", "1", "--offline"];
    let output = Command::new(cargo).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut crates = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let mut by_kind: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for dependency in package["dependencies"].as_array().unwrap() {
            let kind = dependency["kind"].as_str().unwrap_or("normal");
            by_kind.entry(kind.to_owned()).or_default().insert(dependency["name"].as_str().unwrap().to_owned());
        }
        crates.insert(package["name"].as_str().unwrap().to_owned(), by_kind);
    }
    crates
}

fn ours(names: &BTreeSet<String>) -> BTreeSet<&str> {
    names.iter().map(String::as_str).filter(|name| name.starts_with("flowshift")).collect()
}

#[test]
fn the_workspace_is_the_program_its_three_libraries_and_the_emulator() {
    let names: BTreeSet<String> = manifests().into_keys().collect();
    let expected = LIBRARIES.into_iter().chain(["flowshift", EMULATOR]).map(str::to_owned).collect();
    assert_eq!(names, expected);
}

#[test]
fn the_program_knows_every_library_and_takes_the_emulator_as_an_option() {
    let crates = manifests();
    let known = ours(&crates["flowshift"]["normal"]);
    assert_eq!(known, LIBRARIES.into_iter().chain([EMULATOR]).collect());
}

#[test]
fn libraries_and_emulator_know_none_of_us_but_the_emulator_in_the_example_of_the_engine() {
    for (name, by_kind) in manifests() {
        if name != "flowshift" {
            for (kind, names) in by_kind {
                let mut known = ours(&names);
                if (name.as_str(), kind.as_str()) == ("flowshift-consumer", "dev") {
                    known.remove(EMULATOR);
                }
                assert!(known.is_empty(), "{name} knows {known:?} ({kind})");
            }
        }
    }
}

#[test]
fn formats_and_statistics_know_no_network_no_tasks_and_no_aws() {
    let crates = manifests();
    for pure in ["flowshift-detector", "flowshift-proto"] {
        for name in &crates[pure]["normal"] {
            assert!(!IMPURE.iter().any(|impure| name.starts_with(impure)), "{pure} knows {name}");
        }
    }
}

#[test]
fn the_engine_knows_no_format_of_flows_and_no_web_server() {
    let crates = manifests();
    let engine = &crates["flowshift-consumer"]["normal"];
    for foreign in ["axum", "reqwest", "hdrhistogram", "ipnet", "prefix-trie", "clap", "toml", "serde_json"] {
        assert!(!engine.contains(foreign), "the engine knows {foreign}");
    }
}

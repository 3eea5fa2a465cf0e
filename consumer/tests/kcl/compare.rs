//! Lease rows of both programs, attribute by attribute, at every stage of a row's life.
//!
//! `data/kcl-rs-rows.json` holds rows as kcl-rs wrote them, so that ours are compared with them also where it cannot
//! run. To write it anew, run the test in `forth` with FLOWSHIFT_KCL_GOLDEN=write.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::engine::Job;
use super::recorded::Recorded;
use super::rows::{self, ByStage, Stage, Versions};
use super::rules;
use super::services::{Services, shard};

const LEASES: &str = "ours";

/// What differs, and why. An attribute that ends in `*` stands for all that begin so.
const KNOWN: [(&str, &str); 2] = [
    ("fs_*", "ours: state, cuts, epochs and sources; KCL's writes name their attributes and leave these alone"),
    ("throughputKBps", "both write it with a renewal that follows records, so whether it is there yet depends on time"),
];

/// What a stage's rows never show: it prepares nothing, and names the children with the end itself.
const NEVER_OURS: [Stage; 2] = [Stage::Prepared, Stage::Ending];

#[derive(Serialize, Deserialize)]
struct Golden {
    provenance: String,
    rows: ByStage,
}

fn golden_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/kcl-rs-rows.json")
}

fn golden() -> ByStage {
    let golden: Golden = serde_json::from_str(&std::fs::read_to_string(golden_file()).unwrap()).unwrap();
    golden.rows
}

/// The rows that kcl-rs wrote just now are as those that were kept.
pub(crate) fn with_golden(theirs: &ByStage) {
    if std::env::var_os("FLOWSHIFT_KCL_GOLDEN").is_some() {
        let provenance = "lease rows as kcl-rs 0.1.4 (PyPI) wrote them into the embedded DynamoDB for a stream of 4 shards, \
                          of which 0 was split and 2 and 3 were merged: the last version of each row in each stage";
        let golden = Golden { provenance: provenance.to_owned(), rows: theirs.clone() };
        std::fs::write(golden_file(), serde_json::to_string_pretty(&golden).unwrap() + "\n").unwrap();
    }
    let kept = golden();
    for (key, stages) in &kept {
        for (stage, row) in stages {
            let now = theirs.get(key).and_then(|stages| stages.get(stage));
            // A look every ten milliseconds may miss a stage that the next write ended.
            let Some(now) = now else { continue };
            assert_eq!(unexplained(row, now), [""; 0], "{stage:?} {key}: kcl-rs writes other rows than it did");
        }
    }
}

fn unexplained(theirs: &rows::Row, ours: &rows::Row) -> Vec<String> {
    let known = |name: &str| {
        KNOWN.iter().any(|(known, _)| match known.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == *known,
        })
    };
    let differences = rows::differences(theirs, ours).into_iter().filter(|(name, _, _)| !known(name));
    differences.map(|(name, theirs, ours)| format!("{name}: theirs {theirs:?}, ours {ours:?}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_rows_are_kcls_attribute_by_attribute() {
    let services = Services::start(4).await;
    let versions = Arc::new(Mutex::new(Versions::new()));
    let table = Arc::new(Recorded::new(&services, Arc::clone(&versions)));
    let job = Job { table, ..Job::new(&services, LEASES) };
    for number in 0..4 {
        services.put(&shard(number), 12, "first").await;
    }
    job.consume("one").await.unwrap();
    services.reshard().await;
    for number in [1, 4, 5, 6] {
        services.put(&shard(number), 12, "second").await;
    }
    job.consume("two").await.unwrap();

    let versions = versions.lock().unwrap().clone();
    let verdict = rules::judge(&versions);
    assert_eq!(verdict.broken, [""; 0]);
    assert!(verdict.checkpoints > 0 && verdict.switches > 0, "{verdict:?}");
    let ours = rows::by_stage(&versions);
    let mut compared = Vec::new();
    for (key, stages) in golden() {
        for (stage, theirs) in stages.iter().filter(|(stage, _)| !NEVER_OURS.contains(stage)) {
            let Some(row) = ours.get(&key).and_then(|stages| stages.get(stage)) else {
                panic!("{stage:?} {key}: no such row of ours");
            };
            let differ = unexplained(theirs, row);
            assert_eq!(differ, [""; 0], "{stage:?} {key}");
            compared.push(*stage);
        }
    }
    for stage in [Stage::Created, Stage::Owned, Stage::Checkpointed, Stage::Ended] {
        assert!(compared.contains(&stage), "{stage:?} was not compared");
    }
}

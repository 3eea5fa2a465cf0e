//! `flowshift state inspect` and `export`: what is committed, seen from outside, beside a running `local` and without it.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::site::Site;
use support::{capture, tools};

fn inspected(site: &Site, arguments: &[&str]) -> Value {
    let output = site.command(&[&["state", "inspect", "--json"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_stored_part_is_proven_and_says_what_it_holds() {
    let site = Site::two_subnets();
    let program = site.start();
    capture::send_all(&program);
    // Beside the running process.
    tools::until("committed lanes", || {
        let lanes = inspected(&site, &["--stream", "exchange"]);
        let sum: u64 = lanes["parts"].as_array()?.iter().filter_map(|part| part["holds"]["records_in"].as_u64()).sum();
        (sum > 0).then_some(())
    });
    program.finish();

    let all = inspected(&site, &[]);
    let parts = all["parts"].as_array().unwrap();
    for part in parts {
        assert_eq!(part["problem"], Value::Null, "{part}");
        assert!(part["stored_bytes"].as_u64() > Some(0), "{part}");
    }
    for shard in all["shards"].as_array().unwrap() {
        assert_eq!(shard["problem"], Value::Null, "{shard}");
        assert!(shard["state_checkpoint"].is_null() || shard["checkpoint"] == shard["state_checkpoint"], "{shard}");
    }
    // The lanes' accounts are the export's.
    let export = site.export();
    let sum: u64 = parts.iter().filter_map(|part| part["holds"]["records_in"].as_u64()).sum();
    assert_eq!(Some(sum), export["records"]["in"].as_u64());
    assert!(parts.iter().any(|part| part["holds"]["outbox"].is_u64()), "no state of the incidents");

    let lane = parts.iter().find_map(|part| part["lane"].as_u64()).unwrap();
    let one = inspected(&site, &["--lane", &lane.to_string()]);
    assert!(one["parts"].as_array().unwrap().iter().all(|part| part["lane"].as_u64() == Some(lane)));
    let nothing = site.command(&["state", "inspect", "--lane", "999"]);
    assert_eq!(nothing.status.code(), Some(64));
    let text = site.command(&["state", "inspect"]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("pairs"), "{}", String::from_utf8_lossy(&text.stdout));

    let out = site.path("export.json");
    let written = site.command(&["state", "export", "--out", out.to_str().unwrap()]);
    assert!(written.status.success() && written.stdout.is_empty());
    let file: Value = serde_json::from_str(&std::fs::read_to_string(out).unwrap()).unwrap();
    assert_eq!(file["records"], export["records"]);
}

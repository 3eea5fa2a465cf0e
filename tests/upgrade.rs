//! A job that an earlier release left goes on under this one: its data folder (lease rows, cuts, chunks of every kind,
//! records between the stages, events, webhooks that wait, an operator's words) is read, and what follows is as if
//! nothing had happened.
//!
//! `tests/data/upgrade/NAME.tar.gz` is what the release of that name (or the commit of that day) left in the middle of
//! the capture, with an incident open, its receiver down, and `export.json` as it saw itself. One is added at every
//! release, and none is changed: `FLOWSHIFT_WRITE_GOLDEN=NAME cargo test --release --test upgrade`. Not here: the layout
//! of rows and chunks byte by byte (`consumer/tests/golden.rs`).
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use support::oracle::{Records, exported};
use support::receiver::Receiver;
use support::site::Site;
use support::{capture, http, oracle, tools};

/// Reports told to the earlier release; the others are told to this one. The first fault has been found by then.
const BEFORE: usize = 60;
const TOKEN: &str = "a-token-of-the-tests";
/// No receiver listens there. What waits for it must outlive any number of releases.
const DOWN: &str = "http://127.0.0.1:9/hook";

fn goldens() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/upgrade");
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// A folder whose webhook goes to `url`.
fn site(url: &str) -> Site {
    let site = Site::two_subnets();
    std::fs::write(site.path("token"), TOKEN).unwrap();
    let (secret, token) = (site.secret_file(), site.path("token"));
    let settings = format!(
        "[engine]\ncommit_interval = \"1s\"\n[admin]\ntoken_file = {token:?}\n\
         [[webhooks]]\nname = \"on-call\"\nurl = \"{url}\"\nsecret_file = {secret:?}\nmax_age = \"36500d\"\n"
    );
    site.with_settings(&settings)
}

fn tar(arguments: &[&str], folder: &Path) {
    let status = Command::new("tar").arg("-C").arg(folder).args(arguments).status().unwrap();
    assert!(status.success(), "tar {arguments:?}: {status}");
}

fn inspected(site: &Site) -> Value {
    let output = site.command(&["state", "inspect", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Everything that `old` says, `new` says as well; it may say more.
fn says_no_less(at: &str, old: &Value, new: &Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                let now = new.get(key).unwrap_or_else(|| panic!("{at}: {key} has gone"));
                says_no_less(&format!("{at}.{key}"), value, now);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            assert_eq!(old.len(), new.len(), "{at}");
            old.iter().zip(new).enumerate().for_each(|(n, (old, new))| says_no_less(&format!("{at}[{n}]"), old, new));
        }
        _ => assert_eq!(old, new, "{at}"),
    }
}

fn write(name: &str) {
    let mut site = site(DOWN);
    site.drain = false;
    let program = site.start();
    for post in &capture::posts()[..BEFORE] {
        assert_eq!(post.send(&program).unwrap().status, 200);
    }
    let listed = || http::get(&program.admin, "/v1/incidents").ok().filter(|a| a.status == 200).map(|a| a.json());
    let incident = tools::until("an incident", || listed()?["incidents"].get(0).cloned());
    let bearer = format!("Bearer {TOKEN}");
    let path = format!("/v1/incidents/{}/acknowledge", incident["incident"].as_str().unwrap());
    let body = json!({"by": "ada", "note": "on it"}).to_string();
    let said = http::post(&program.admin, &path, &[("authorization", &bearer)], body.as_bytes()).unwrap();
    assert_eq!(said.status, 202, "{}", said.body);
    tools::until("the word counts", || (!listed()?["incidents"][0]["acknowledged"].is_null()).then_some(()));
    program.finish();
    // Streams forget after a day, which would be before the next release.
    for stream in std::fs::read_dir(site.data_dir().join("kinesis/streams")).unwrap() {
        let file = stream.unwrap().path().join("meta.json");
        let mut meta: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        meta["retention_ms"] = json!(1_000_000_000_000_000_u64);
        std::fs::write(file, meta.to_string()).unwrap();
    }
    std::fs::write(site.path("export.json"), site.export().to_string()).unwrap();
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/upgrade/{name}.tar.gz"));
    assert!(!archive.exists(), "{} is not written again", archive.display());
    tar(&["-czf", archive.to_str().unwrap(), "data", "export.json"], site.dir());
}

/// Goes on with what a release left; the receiver, if there is one, is up again.
fn goes_on(golden: &Path, receiver: Option<(&Path, &Path)>) {
    let name = golden.file_name().unwrap().to_str().unwrap();
    let start =
        |site: &Site| receiver.map(|(python, out)| Receiver::start(python, out.to_owned(), &site.secret_file()));
    let secrets = Site::two_subnets();
    let receiver = start(&secrets);
    let site = site(receiver.as_ref().map_or(DOWN, |receiver| &receiver.url));
    tar(&["-xzf", golden.to_str().unwrap()], site.dir());
    let old: Value = serde_json::from_slice(&std::fs::read(site.path("export.json")).unwrap()).unwrap();

    let all = inspected(&site);
    let of = |key: &str| all[key].as_array().unwrap().iter();
    for one in of("parts").chain(of("shards")) {
        assert_eq!(one["problem"], Value::Null, "{name}: {one}");
    }
    for kind in ["watermark_ms", "judged_until_s", "incidents_open", "outbox", "mutes"] {
        assert!(of("parts").any(|part| part["holds"].get(kind).is_some()), "{name}: nothing holds {kind}");
    }
    assert!(of("parts").any(|part| part["holds"]["outbox"].as_u64() > Some(0)), "{name}: no webhook waits");
    let read = site.export();
    for key in ["records", "pairs", "events"] {
        says_no_less(&format!("{name}: {key}"), &old[key], &read[key]);
    }

    let program = site.start();
    let open = tools::until("incidents", || {
        let answer = http::get(&program.admin, "/v1/incidents").ok().filter(|answer| answer.status == 200)?;
        answer.json()["incidents"].get(0).cloned()
    });
    assert_eq!(open["acknowledged"]["by"], "ada", "{name}: {open}");
    for post in &capture::posts()[BEFORE..] {
        assert_eq!(post.send(&program).unwrap().status, 200);
    }
    program.finish();
    let export = site.export();
    assert!(Records::of(&export).refused().is_empty(), "{name}: {:?}", Records::of(&export));
    if let Some(sums) = oracle::sums() {
        assert_eq!(exported(&export), sums.pairs, "{name}: sums of the whole capture");
    }
    let events = export["events"].as_array().unwrap();
    let before = old["events"].as_array().unwrap();
    assert!(!before.is_empty() && before.len() < events.len(), "{name}: {} and {}", before.len(), events.len());
    says_no_less(&format!("{name}: events"), &json!(before), &json!(events[..before.len()]));
    assert!(numbered(events), "{name}: {events:#?}");
    let over = |event: &&Value| event["incident"] == open["incident"] && event["type"] == "anomaly.resolved";
    assert!(events.iter().any(|event| over(&event)), "{name}: the incident of the earlier release has no end");
    if let Some(receiver) = receiver {
        let received = receiver.received();
        assert!(received.iter().all(|one| one.verified), "{name}: {:?}", received.iter().find(|one| !one.verified));
        let bodies: Vec<Value> = received.iter().map(|one| serde_json::from_str(&one.body).unwrap()).collect();
        for event in events.iter().filter(|event| event["type"] != "anomaly.updated") {
            let of =
                |body: &&Value| ["incident", "sequence", "summary"].iter().all(|key| body["data"][key] == event[key]);
            let told = bodies.iter().filter(of).filter(|body| body["type"] == event["type"]).count();
            assert_eq!(told, 1, "{name}: {event} by webhook");
        }
    }
}

/// Whether the events of each incident are numbered from 1 on, each number once.
fn numbered(events: &[Value]) -> bool {
    let mut last = std::collections::BTreeMap::new();
    events.iter().all(|event| {
        let sequence = last.entry(event["incident"].as_str().unwrap()).or_insert(0);
        *sequence += 1;
        event["sequence"] == *sequence
    })
}

#[test]
fn what_every_earlier_release_left_is_read_and_gone_on_with() {
    if let Some(name) = std::env::var_os("FLOWSHIFT_WRITE_GOLDEN") {
        write(name.to_str().unwrap());
    }
    let python = tools::python_with_webhooks();
    if python.is_none() {
        tools::skip("upgrade", "webhooks that waited: no python3 with the package standardwebhooks");
    }
    let goldens = goldens();
    assert!(!goldens.is_empty());
    let folder = tempfile::tempdir().unwrap();
    for golden in goldens {
        let out = folder.path().join(golden.file_name().unwrap());
        goes_on(&golden, python.as_deref().map(|python| (python, out.as_path())));
    }
}

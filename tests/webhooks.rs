//! Incidents of the real capture through the whole program to receivers of every format, which fail in every way first; a
//! secret in rotation, an endpoint that said 410 and is enabled again, and what the command line says of a received request.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde::Deserialize;
use serde_json::Value;
use support::program::flowshift;
use support::site::{Site, script};
use support::{capture, tools};

const ROUTING_KEY: &str = "0123456789abcdef0123456789abcdef";
const OTHER_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const TOKEN: &str = "a-token-of-the-tests";
const FORMATS: [&str; 5] = ["standard", "cloudevents", "alertmanager", "pagerduty", "slack"];

/// One request that `receivers.py` got.
#[derive(Debug, Clone, Deserialize)]
struct Got {
    path: String,
    /// None: it tells again what is open.
    id: Option<String>,
    problem: Option<String>,
    answer: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

/// The running `receivers.py`; ends when dropped.
struct Receivers {
    child: Child,
    out: PathBuf,
    base: String,
}

impl Receivers {
    fn start(python: &Path, site: &Site, tls: &[PathBuf]) -> Self {
        let out = site.path("received.jsonl");
        let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/webhooks");
        let mut command = script(python, "receivers.py");
        command.arg(&out).arg(site.secret_file()).arg(ROUTING_KEY).arg(schemas).args(tls);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("receivers: {line:?}"));
        let scheme = if tls.is_empty() { "http" } else { "https" };
        Self { child, out, base: format!("{scheme}://127.0.0.1:{}", ready["port"]) }
    }

    fn got(&self) -> Vec<Got> {
        std::fs::read_to_string(&self.out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Receivers {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().ok();
    }
}

/// Every format with a receiver in a bad mood, one that says 410 first, and one that is told of little.
fn settings(site: &Site, base: &str) -> String {
    let file = |name: &str, text: &str| {
        std::fs::write(site.path(name), text).unwrap();
        site.path(name).display().to_string()
    };
    let (token, routing) = (file("token", TOKEN), file("routing", ROUTING_KEY));
    let slack = file("slack", &format!("{base}/slack/bad\n"));
    let secret = site.secret_file().display().to_string();
    let mut toml = format!("[admin]\ntoken_file = {token:?}\n");
    for (name, format, path, key) in [
        ("standard", "standard", "standard/bad", Some(&secret)),
        ("cloudevents", "cloudevents", "cloudevents/bad", Some(&secret)),
        ("alertmanager", "alertmanager", "alertmanager/bad", None),
        ("pagerduty", "pagerduty", "pagerduty/bad", Some(&routing)),
        ("slack", "slack", "", Some(&slack)),
        ("gone", "standard", "standard/gone", Some(&secret)),
        ("latency", "standard", "standard/latency", Some(&secret)),
    ] {
        toml += &format!("[[webhooks]]\nname = {name:?}\nformat = {format:?}\ntimeout = \"1s\"\nretry = [\"100ms\"]\n");
        toml += "min_interval = \"10ms\"\n";
        if !path.is_empty() {
            toml += &format!("url = \"{base}/{path}\"\n");
        }
        if let Some(key) = key {
            toml += &format!("secret_file = {key:?}\n");
        }
        if name == "latency" {
            toml += "signals = [\"latency\"]\nsubnets = [\"10.77.0.0/16\"]\nazs = [\"use1-az2\"]\n";
        }
    }
    toml
}

/// `(incident, sequence)` of every id, from the bodies that say it.
fn told(got: &[Got]) -> BTreeMap<String, (String, u64)> {
    let signed = got.iter().filter(|got| got.path.starts_with("/standard") || got.path.starts_with("/cloudevents"));
    let of = |got: &Got| {
        let data = &serde_json::from_str::<Value>(&got.body).unwrap()["data"];
        (got.id.clone().unwrap(), (data["incident"].as_str().unwrap().to_owned(), data["sequence"].as_u64().unwrap()))
    };
    signed.map(of).collect()
}

/// Everything that is no update came, in order, each time under its id.
fn check_format(format: &str, got: &[Got], events: &[Value]) {
    let ids = told(got);
    let path = format!("/{format}/bad");
    let here: Vec<&Got> = got.iter().filter(|got| got.path == path && got.id.is_some()).collect();
    assert!(here.iter().all(|got| got.problem.is_none()), "{format}: {:?}", here.iter().find(|g| g.problem.is_some()));
    let answers: Vec<u16> = here.iter().map(|got| got.answer).take(6).collect();
    assert_eq!(answers, [500, 429, 302, 0, 0, 503], "{format}");
    let mut taken: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for got in here.iter().filter(|got| got.answer == 204) {
        if let Some((incident, sequence)) = ids.get(got.id.as_ref().unwrap()) {
            taken.entry(incident).or_default().push(*sequence);
        }
    }
    for sequences in taken.values() {
        assert!(sequences.is_sorted(), "{format}: {taken:?}");
    }
    for event in events.iter().filter(|event| event["type"] != "anomaly.updated") {
        let sequences = taken.get(event["incident"].as_str().unwrap());
        let there = sequences.is_some_and(|all| all.contains(&event["sequence"].as_u64().unwrap()));
        assert!(there, "{format}: not told: {event}\n{taken:?}");
    }
}

/// The flow of PagerDuty's alerts: a trigger first, for what is over a resolve last.
fn check_pages(got: &[Got], events: &[Value]) {
    let mut actions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for got in got.iter().filter(|got| got.path.starts_with("/pagerduty") && got.answer == 204) {
        let body: Value = serde_json::from_str(&got.body).unwrap();
        let text = |key: &str| body[key].as_str().unwrap().to_owned();
        actions.entry(text("dedup_key")).or_default().push(text("event_action"));
    }
    let incidents: BTreeSet<&str> = events.iter().map(|event| event["incident"].as_str().unwrap()).collect();
    assert_eq!(actions.keys().map(String::as_str).collect::<BTreeSet<_>>(), incidents);
    for (incident, actions) in actions {
        let last = events.iter().rfind(|event| event["incident"] == *incident).unwrap();
        assert_eq!(actions[0], "trigger", "{incident}");
        assert_eq!(actions.last().unwrap() == "resolve", last["type"] == "anomaly.resolved", "{incident}: {actions:?}");
    }
}

/// `flowshift webhook verify` of a received request, by one of the two secrets: exit code and what it said.
fn verify(site: &Site, got: &Got, secret: &str) -> (Option<i32>, String) {
    let lines: String = got.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    std::fs::write(site.path("headers"), lines).unwrap();
    std::fs::write(site.path("body"), &got.body).unwrap();
    std::fs::write(site.path("one-secret"), secret).unwrap();
    let mut command = flowshift();
    command.args(["webhook", "verify", "--json"]);
    for (flag, file) in [("--secret-file", "one-secret"), ("--headers", "headers"), ("--body", "body")] {
        command.arg(flag).arg(site.path(file));
    }
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn every_format_reaches_its_receiver_through_all_that_can_go_wrong_and_says_what_its_library_or_schema_wants() {
    let Some(python) = tools::python_with("standardwebhooks, cloudevents, jsonschema") else {
        return tools::skip("webhooks", "no Python with the packages standardwebhooks, cloudevents and jsonschema");
    };
    let site = Site::two_subnets();
    let first = std::fs::read_to_string(site.secret_file()).unwrap();
    // Both secrets of a rotation sign.
    std::fs::write(site.secret_file(), format!("{first}\n{OTHER_SECRET}\n")).unwrap();
    let receivers = Receivers::start(&python, &site, &[]);
    let toml = settings(&site, &receivers.base);
    let site = site.with_settings(&toml);
    let program = site.start();

    let client = |arguments: &[&str]| {
        let mut command = flowshift();
        command.arg("webhook").args(arguments).args(["--json", "--admin", &program.admin]);
        if arguments[0] == "enable" {
            command.arg("--token-file").arg(site.path("token"));
        }
        let output = command.output().unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), said, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let posts = capture::posts();
    let (before, after) = posts.split_at(posts.partition_point(|post| post.received_at < capture::LOSS_20.0 - 10.0));
    for post in before {
        assert_eq!(post.send(&program).unwrap().status, 200);
    }
    tools::until("the endpoint that says 410 is disabled", || {
        let (_, all, _) = client(&["list"]);
        all["webhooks"].as_array()?.iter().any(|w| w["webhook"] == "gone" && w["disabled"] == true).then_some(())
    });
    let (code, said, _) = client(&["enable", "gone"]);
    assert_eq!((code, &said["was_disabled"]), (Some(0), &Value::from(true)), "{said}");
    let (code, _, why) = client(&["enable", "nobody"]);
    assert!(code == Some(64) && why.contains("no webhook has this id") && why.contains("use one of"), "{code:?} {why}");
    for post in after {
        assert_eq!(post.send(&program).unwrap().status, 200);
    }
    let lines = program.finish();
    let events: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let got = receivers.got();
    for format in FORMATS {
        check_format(format, &got, &events);
    }
    check_pages(&got, &events);
    assert!(got.iter().all(|got| !got.path.contains("strayed")), "a redirect was followed");

    let gone: Vec<u16> = got.iter().filter(|got| got.path == "/standard/gone").map(|got| got.answer).collect();
    assert!(gone.len() > 1 && gone[0] == 410 && gone[1..].iter().all(|answer| *answer == 204), "{gone:?}");
    let filtered: Vec<&Got> = got.iter().filter(|got| got.path == "/standard/latency").collect();
    assert!(!filtered.is_empty() && filtered.iter().all(|got| got.body.contains("\"signal\":\"latency\"")));

    let mut one = got.iter().find(|got| got.path == "/standard/bad" && got.answer == 204).unwrap().clone();
    for secret in [&first, OTHER_SECRET] {
        assert_eq!(verify(&site, &one, secret).0, Some(0));
    }
    let (code, said) = verify(&site, &one, "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
    assert!(code == Some(1) && said.contains("no signature fits"), "{code:?} {said}");
    one.body.push('\n');
    assert!(verify(&site, &one, &first).1.contains("line end"));
    let log = std::fs::read_to_string(site.path("stderr.log")).unwrap();
    for secret in [ROUTING_KEY, "slack/bad", first.trim(), TOKEN] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

/// A root that no system knows, and a certificate for 127.0.0.1 by it with its key; none without openssl.
fn certificate(site: &Site) -> Option<(PathBuf, [PathBuf; 2])> {
    let file = |name: &str| site.path(name);
    let make = |name: &str, more: &[&str]| {
        let mut command = std::process::Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        command.args(["-days", "2", "-subj", &format!("/CN={name}")]).args(more);
        command.arg("-out").arg(file(&format!("{name}.pem"))).arg("-keyout").arg(file(&format!("{name}.key")));
        command.output().is_ok_and(|output| output.status.success())
    };
    let (root, key) = (file("root.pem"), file("root.key"));
    let by_root = ["-CA", root.to_str()?, "-CAkey", key.to_str()?, "-addext", "subjectAltName=IP:127.0.0.1"];
    let leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
    let made = make("root", &[]) && make("receiver", &[&by_root[..], &leaf].concat());
    made.then(|| (file("root.pem"), [file("receiver.pem"), file("receiver.key")]))
}

#[test]
fn a_receiver_whose_certificate_the_system_does_not_know_is_reached_by_its_own_file_alone() {
    let site = Site::two_subnets();
    let Some(python) = tools::python_with("standardwebhooks, cloudevents, jsonschema") else {
        return tools::skip("webhooks", "certificates: no Python with the packages of the receivers");
    };
    let Some((root, tls)) = certificate(&site) else {
        return tools::skip("webhooks", "certificates: no openssl to make one with");
    };
    let receivers = Receivers::start(&python, &site, &tls);
    let test = |ca: &str| {
        let (url, secret) = (format!("{}/standard", receivers.base), site.secret_file());
        let toml = format!("[[webhooks]]\nname = \"ops\"\nurl = {url:?}\nsecret_file = {secret:?}\n{ca}");
        std::fs::write(site.path("hooks.toml"), toml).unwrap();
        let mut command = flowshift();
        let output = command.args(["webhook", "test", "--config"]).arg(site.path("hooks.toml")).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = test(&format!("ca_file = {root:?}\n"));
    assert_eq!((code, said.as_str()), (Some(0), "ok     ops: answered 204\n"));
    let (code, said) = test("");
    assert!(code == Some(1) && said.contains("certificate"), "{code:?} {said}");
}

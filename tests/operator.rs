//! An operator's words through the admin server and the command line of the real binary: acknowledged, muted and
//! dismissed incidents, words that are said twice or die with the process, and requests nobody should make.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use support::flows::{flow, lines, now_ms};
use support::hook::Hook;
use support::http::{self, Answer};
use support::program::{Program, flowshift};
use support::site::Site;
use support::{kinesis, tools};

const TOKEN: &str = "a-token-of-the-tests";
const SETTINGS: &str = "[input]
lateness_reports = \"10s\"
[engine]
idle_after = \"2s\"
commit_interval = \"1s\"
";

/// Event time that the test moves along, from twenty minutes ago on; of one pair, whose segments are lost from 240 s
/// on.
struct Traffic {
    start_ms: i64,
    told_s: i64,
}

impl Traffic {
    fn new() -> Self {
        Self { start_ms: now_ms() / 60_000 * 60_000 - 1_200_000, told_s: 0 }
    }

    /// Tells of the traffic up to that second.
    fn until(&mut self, program: &Program, until_s: i64) {
        let endpoint = program.kinesis.clone().unwrap();
        for from_s in (self.told_s..until_s).step_by(20) {
            let seconds = from_s..(from_s + 20).min(until_s);
            let flows = seconds.flat_map(|s| {
                let start_ms = self.start_ms;
                (1_000..1_005).map(move |port| {
                    let mut record = flow(start_ms + s * 1_000, port);
                    (record["packets"], record["retransmits"]) = (json!(1_000), json!(if s >= 240 { 30 } else { 0 }));
                    record
                })
            });
            kinesis::put_at(&endpoint, "flowshift-flows", "0", &lines(&flows.collect::<Vec<_>>()));
        }
        self.told_s = until_s;
    }
}

fn site() -> Site {
    let site = Site::two_subnets().with_settings(SETTINGS);
    std::fs::write(site.path("token"), format!("{TOKEN}\n")).unwrap();
    let file = site.path("token").display().to_string();
    site.with_settings(&format!("[admin]\ntoken_file = \"{file}\"\n"))
}

fn say(program: &Program, path: &str, token: Option<&str>, body: &[u8]) -> Answer {
    let bearer = format!("Bearer {}", token.unwrap_or_default());
    let headers = [("authorization", bearer.as_str())];
    http::post(&program.admin, path, if token.is_some() { &headers } else { &[] }, body).unwrap()
}

/// Before the job has made its tables there is nothing to be read.
fn get(program: &Program, path: &str) -> Value {
    let answer = tools::until(path, || http::get(&program.admin, path).ok().filter(|answer| answer.status != 503));
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

/// The outcome of `flowshift incidents …`: code, answer, what stood on standard error.
fn cli(site: &Site, program: &Program, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = flowshift();
    command.arg("incidents").args(arguments).args(["--json", "--admin", &program.admin]);
    if arguments[0] != "list" {
        command.args(["--by", "ada"]).arg("--token-file").arg(site.path("token"));
    }
    let output = command.output().unwrap();
    let said = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), said, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Waits until the committed state shows an open incident.
fn open(program: &Program) -> Value {
    tools::until("an open incident", || get(program, "/v1/incidents")["incidents"].get(0).cloned())
}

fn id(incident: &Value) -> String {
    incident["incident"].as_str().unwrap().to_owned()
}

fn outcome(program: &Program, word: &str, wanted: &str) {
    tools::until(&format!("{word} is {wanted}"), || {
        (get(program, &format!("/v1/words/{word}"))["outcome"] == wanted).then_some(())
    });
}

fn events(lines: &[String]) -> Vec<Value> {
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_acknowledgement_answered_outlives_a_kill_and_counts_once_and_what_is_no_issue_stays_quiet() {
    let mut site = site();
    site.drain = false;
    let program = site.start();
    let mut traffic = Traffic::new();
    traffic.until(&program, 330);
    let incident = id(&open(&program));
    let path = format!("/v1/incidents/{incident}/acknowledge");
    let body = json!({"by": "ada", "note": "on it"}).to_string();
    let taken = say(&program, &path, Some(TOKEN), body.as_bytes());
    assert_eq!(taken.status, 202, "{}", taken.body);
    // Nothing had time to commit it.
    let mut printed = program.kill().lines;

    let program = site.start();
    let word = taken.json()["id"].as_str().unwrap().to_owned();
    outcome(&program, &word, "applied");
    assert_eq!(open(&program)["acknowledged"]["by"], "ada");
    let again = say(&program, &path, Some(TOKEN), body.as_bytes());
    assert_eq!((again.status, &again.json()["id"]), (202, &json!(word)), "{}", again.body);
    outcome(&program, &word, "repeated");
    let words = program.metric("flowshift_operator_words_total", &["verb=\"acknowledge\""]);
    assert_eq!(words, program.metric("flowshift_operator_words_total", &["outcome=\"applied\""]) + 1.0);

    let (code, said, why) = cli(&site, &program, &["not-an-issue", &incident, "--note", "load test", "--wait"]);
    assert_eq!((code, &said["outcome"]), (Some(0), &json!("applied")), "{why}");
    let (code, _, why) = cli(&site, &program, &["ack", &incident]);
    assert!(code == Some(64) && why.contains("the incident is resolved; only open incidents"), "{why}");
    let (code, listed, why) = cli(&site, &program, &["list"]);
    assert_eq!((code, &listed["incidents"]), (Some(0), &json!([])), "{why}");
    assert_eq!(listed["dismissed"][0]["pairs"], json!(["subnet-a>subnet-b"]));
    // Four more minutes of the same loss, judged by a next owner of the state.
    printed.extend(program.finish());
    let program = site.start();
    traffic.until(&program, 570);
    let judged = traffic.start_ms / 1_000 + 530;
    tools::until("all is judged", || {
        (get(&program, "/v1/incidents")["judged_until"].as_i64() >= Some(judged)).then_some(())
    });
    assert_eq!(get(&program, "/v1/incidents")["incidents"], json!([]));
    printed.extend(program.finish());

    let mut told = events(&printed);
    // Printed again after a kill, an event is the same.
    told.sort_by_key(|event| event["sequence"].as_u64());
    told.dedup();
    let sequences: Vec<u64> = told.iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=told.len() as u64).collect::<Vec<_>>(), "{printed:#?}");
    let by = |event: &&Value| event["summary"].as_str().unwrap().ends_with("; acknowledged by ada");
    assert_eq!(told.iter().filter(by).count(), 1, "{told:#?}");
    let last = told.last().unwrap();
    assert_eq!((&last["type"], &last["reason"]), (&json!("anomaly.resolved"), &json!("not_an_issue")));
    assert_eq!((&last["acknowledged"]["note"], &last["dismissed"]["note"]), (&json!("on it"), &json!("load test")));
    assert_eq!(told.iter().filter(|event| event["type"] == "anomaly.opened").count(), 1);
}

#[test]
fn a_muted_incident_reaches_the_endpoint_that_asks_for_it_and_the_others_when_the_mute_ends() {
    let (asks, rests) = (Hook::start(), Hook::start());
    let site = site();
    let secret = site.secret_file().display().to_string();
    let hook = |name: &str, hook: &Hook, more: &str| {
        format!("[[webhooks]]\nname = \"{name}\"\nurl = \"{}\"\nsecret_file = \"{secret}\"\n{more}", hook.url)
    };
    let site = site.with_settings(&(hook("asks", &asks, "muted = true\n") + &hook("rests", &rests, "")));
    let program = site.start();
    let (code, muted, why) = cli(&site, &program, &["mute", "--az", "use1-az2", "--for", "2h", "--wait"]);
    assert_eq!((code, &muted["outcome"]), (Some(0), &json!("applied")), "{why}");
    let mut traffic = Traffic::new();
    traffic.until(&program, 330);
    let incident = open(&program);
    assert_eq!(incident["muted"]["mutes"], json!([muted["mute"]]));
    assert_eq!(incident["muted"]["until"], muted["until"]);
    tools::until("the opening came where it is asked for", || (!asks.told().is_empty()).then_some(()));
    assert_eq!(asks.told()[0], ("anomaly.opened".to_owned(), true));
    let deliveries = |endpoint: &str, outcome: &str| {
        let labels = [format!("endpoint=\"{endpoint}\""), format!("outcome=\"{outcome}\"")];
        program.metric("flowshift_webhook_deliveries_total", &[&labels[0], &labels[1]])
    };
    tools::until("it was left out elsewhere", || (deliveries("rests", "muted") >= 1.0).then_some(()));
    assert_eq!((rests.told(), deliveries("asks", "muted")), (Vec::new(), 0.0));

    let mute = muted["mute"].as_str().unwrap();
    let (code, _, why) = cli(&site, &program, &["unmute", mute, "--wait"]);
    assert_eq!(code, Some(0), "{why}");
    assert_eq!(get(&program, "/v1/mutes")["mutes"], json!([]));
    let (code, _, why) = cli(&site, &program, &["unmute", mute]);
    assert!(code == Some(64) && why.contains("no mute or dismissal has this id"), "{why}");
    traffic.until(&program, 400);
    tools::until("the incident is told of everywhere", || (!rests.told().is_empty()).then_some(()));
    assert_eq!(rests.told()[0], ("anomaly.updated".to_owned(), false));
    program.finish();
    let ended = |hook: &Hook| hook.told().last().cloned();
    assert_eq!((ended(&asks), asks.told().len()), (ended(&rests), asks.told().len()));
}

#[test]
fn requests_that_nobody_should_make_are_refused_in_words_and_change_nothing() {
    let site = site();
    let program = site.start();
    assert_eq!(get(&program, "/v1/mutes")["mutes"], json!([]));
    let mute = json!({"by": "ada", "az": "use1-az1", "for": "2h"}).to_string();
    let refused = |path: &str, token: Option<&str>, body: &[u8], status: u16, error: &str| {
        let answer = say(&program, path, token, body);
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        let told = answer.json();
        assert_eq!(told["error"], error, "{path}: {told}");
        assert!(told["fix"].as_str() > Some("") && !answer.body.contains(TOKEN), "{told}");
    };
    for token in [None, Some(""), Some("a-token-of-the-test"), Some("a-token-of-the-tests2")] {
        refused("/v1/mutes", token, mute.as_bytes(), 401, "unauthorized");
    }
    let token = Some(TOKEN);
    refused("/v1/mutes", token, &vec![b' '; 20_000], 413, "too_large");
    refused("/v1/mutes", token, b"{\"by\":", 400, "malformed");
    refused("/v1/mutes", token, &b"[".repeat(15_000), 400, "malformed");
    refused("/v1/mutes", token, b"\xff\xfe", 400, "malformed");
    refused("/v1/mutes", token, b"", 400, "invalid");
    refused("/v1/mutes", token, br#"{"by":"ada","az":"a","for":"1000000000000h"}"#, 400, "invalid");
    refused("/v1/mutes", token, br#"{"by":"ada","az":"a","until":"1970-01-01T00:00:00Z"}"#, 400, "invalid");
    // They were taken, and muted nothing.
    let unknown = |place: &str| json!({"by": "ada", "for": "2h", place: "nowhere>subnet-b"}).to_string();
    for place in ["az", "subnet", "pair"] {
        refused("/v1/mutes", token, unknown(place).as_bytes(), 400, "unknown");
    }
    let by = br#"{"by":"ada"}"#;
    refused("/v1/incidents/inc-0000000000000000/acknowledge", token, by, 404, "not_found");
    refused("/v1/incidents/..%2f..%2fmetrics/acknowledge", token, by, 404, "not_found");
    refused(&format!("/v1/incidents/{}/acknowledge", "x".repeat(4_000)), token, by, 404, "not_found");
    refused("/v1/mutes/mute-0/unmute", token, by, 404, "not_found");
    assert_eq!(http::get(&program.admin, "/v1/words/..%2f").unwrap().status, 404);
    assert_eq!(get(&program, "/v1/words/word-0")["outcome"], "pending");
    assert_eq!(get(&program, "/v1/mutes")["mutes"], json!([]));
    let requests =
        |outcome: &str| program.metric("flowshift_operator_requests_total", &[&format!("outcome=\"{outcome}\"")]);
    assert_eq!((requests("unauthorized"), requests("refused"), requests("accepted")), (4.0, 14.0, 0.0));
    let (code, _, why) = cli(&site, &program, &["mute", "--signal", "latency", "--for", "soon"]);
    assert!(code == Some(64) && why.contains("for \"soon\": is no length of time; use 1 minute to 30 days"), "{why}");
    let (code, _, why) = cli(&site, &program, &["mute", "--az", "use1-az9", "--for", "2h"]);
    let known =
        "az \"use1-az9\": no subnet of the topology is in this zone; the topology's zones are use1-az1, use1-az2;";
    assert!(code == Some(64) && why.contains(known) && why.contains("(--force)"), "{why}");
    let (code, muted, why) = cli(&site, &program, &["mute", "--az", "use1-az9", "--for", "2h", "--force", "--wait"]);
    assert_eq!((code, &muted["outcome"]), (Some(0), &json!("applied")), "{why}");
    assert_eq!(get(&program, "/v1/mutes")["mutes"][0]["id"], muted["mute"]);
    let log = program.log_tail();
    assert!(!log.contains("panicked"), "{log}");
    program.finish();

    // Without a configured token there are no commands.
    let site = Site::two_subnets();
    let program = site.start();
    let answer = say(&program, "/v1/mutes", token, mute.as_bytes());
    assert_eq!((answer.status, &answer.json()["error"]), (403, &json!("off")));
    program.finish();
}

//! An endpoint that answers 410, over the real binary killed with `kill -9`: a next process asks it nothing until an operator
//! enables it, and what the operator was answered outlives a kill.
//!
//! Not here: another URL, owners that do not deliver (`src/stage/correlate/tests/webhooks.rs`), and every format
//! (`webhooks.rs`).
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use support::capture::Post;
use support::hook::Hook;
use support::program::{Program, flowshift};
use support::site::Site;
use support::{capture, http, tools};

const TOKEN: &str = "a-token-of-the-tests";

fn site(hooks: &[(&str, &Hook)]) -> Site {
    let mut site = Site::two_subnets();
    std::fs::write(site.path("token"), TOKEN).unwrap();
    let (token, secret) = (site.path("token"), site.secret_file());
    let mut toml = format!("[engine]\ncommit_interval = \"1s\"\n[admin]\ntoken_file = {token:?}\n");
    for (name, hook) in hooks {
        toml += &format!("[[webhooks]]\nname = {name:?}\nurl = {:?}\nsecret_file = {secret:?}\n", hook.url);
    }
    site = site.with_settings(&toml);
    site.drain = false;
    site
}

fn send(program: &Program, posts: &[Post]) {
    for post in posts {
        assert_eq!(post.send(program).unwrap().status, 200);
    }
}

/// The row of an endpoint, once the process delivers.
fn row(program: &Program, name: &str) -> Value {
    tools::until("the webhooks of this process", || {
        let all = http::get(&program.admin, "/v1/webhooks").ok()?.json();
        all["webhooks"].as_array()?.iter().find(|row| row["webhook"] == name).cloned()
    })
}

/// The answer comes after a commit that holds all that this process knows of its endpoints.
fn enable(program: &Program, name: &str) -> Value {
    let (path, bearer) = (format!("/v1/webhooks/{name}/enable"), format!("Bearer {TOKEN}"));
    let answer = http::post(&program.admin, &path, &[("authorization", &bearer)], b"{}").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

/// How many disabled endpoints the stored part holds, of a process that has ended.
fn inspected(site: &Site) -> Value {
    let output = site.command(&["state", "inspect", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |part: &&Value| part["part"].as_str().is_some_and(|key| key.ends_with("/webhooks"));
    all["parts"].as_array().unwrap().iter().find(of).unwrap()["holds"]["webhooks_disabled"].clone()
}

fn disabled(program: &Program) -> f64 {
    program.metric("flowshift_webhook_endpoint_disabled", &["endpoint=\"gone\""])
}

#[test]
fn what_an_endpoint_said_and_an_operator_was_answered_outlives_kills() {
    let (gone, other) = (Hook::start(), Hook::start());
    gone.answers(410);
    let mut site = site(&[("gone", &gone), ("other", &other)]);
    let posts = capture::posts();
    let (first, rest) = posts.split_at(60);

    let program = site.start();
    send(&program, first);
    let before = tools::until("it is disabled", || Some(row(&program, "gone")).filter(|row| row["disabled"] == true));
    assert!(before["disabled_since"].is_i64() && before["event"].is_string(), "{before}");
    let said = enable(&program, "other");
    assert_eq!((&said["was_disabled"], &said["disabled"]), (&json!(false), &json!(false)));
    program.kill();
    let asked = gone.told().len();
    assert_eq!(inspected(&site), 1);

    let program = site.start();
    assert_eq!((row(&program, "gone"), disabled(&program)), (before, 1.0));
    let listed = flowshift().args(["webhook", "list", "--admin", &program.admin]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let row_of_gone = listed.lines().find(|line| line.starts_with("gone")).unwrap_or_default();
    assert!(row_of_gone.contains("disabled") && row_of_gone.contains("Z  evt_"), "{listed}");
    let (second, third) = rest.split_at(rest.partition_point(|post| post.received_at < capture::FAILED_CONNECTS.0));
    let told = other.told().len();
    send(&program, second);
    tools::until("the other endpoint is told more", || (other.told().len() > told).then_some(()));
    assert_eq!(gone.told().len(), asked, "a next owner asked an endpoint that had said 410");

    gone.answers(200);
    assert_eq!(enable(&program, "gone"), json!({"webhook": "gone", "disabled": false, "was_disabled": true}));
    // Nothing but the answer says that it is committed.
    program.kill();
    site.drain = true;
    let program = site.start();
    assert_eq!((&row(&program, "gone")["disabled"], disabled(&program)), (&json!(false), 0.0));
    send(&program, third);
    program.finish();
    assert!(gone.told().len() > asked, "it is told of what comes after");
    assert_eq!(inspected(&site), 0);
}

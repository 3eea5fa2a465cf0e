//! Real agents' reports of two subnets with known faults, through the whole program: the faults open incidents, the clean
//! phases do not, and every webhook's signature holds in another language.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use serde_json::Value;
use support::capture::{self, DELAY_20, FAILED_CONNECTS, LOSS_5, LOSS_20, SLACK};
use support::receiver::Receiver;
use support::site::Site;
use support::tools;

fn opened<'e>(events: &'e [Value], signal: &str) -> Vec<&'e Value> {
    let a_to_b = |event: &&Value| {
        let pairs = event["pairs"].as_array().unwrap();
        pairs.iter().any(|pair| pair["src"] == "subnet-a" && pair["dst"] == "subnet-b")
    };
    events.iter().filter(|e| e["type"] == "anomaly.opened" && e["signal"] == signal).filter(a_to_b).collect()
}

fn within(events: &[&Value], (start, end): (f64, f64)) -> bool {
    events.iter().any(|e| e["at"].as_f64().is_some_and(|at| at > start && at <= end + SLACK))
}

fn check_incidents(events: &[Value]) {
    let log = events.iter().map(|e| format!("{} {} {}\n", e["at"], e["type"], e["summary"])).collect::<String>();
    assert!(within(&opened(events, "retransmit"), LOSS_5), "5 % loss from A to B is missing in\n{log}");
    assert!(within(&opened(events, "latency"), DELAY_20), "20 ms from A to B are missing in\n{log}");
    assert!(within(&opened(events, "retransmit"), LOSS_20), "20 % loss from A to B is missing in\n{log}");
    assert!(within(&opened(events, "connect"), FAILED_CONNECTS), "failed connects from A to B are missing in\n{log}");
    for event in events {
        assert!(event["at"].as_f64().unwrap() > LOSS_5.0, "opened while all was clean: {event}");
        if let Some(started_at) = event["started_at"].as_f64() {
            // The step that holds the first loss may begin before it.
            assert!(started_at + 10.0 > LOSS_5.0, "started while all was clean: {event}");
        }
        for pair in event["pairs"].as_array().unwrap() {
            assert!(pair["src"] != pair["dst"], "the pair inside subnet A is in {event}");
        }
    }
}

/// Every event reached the receiver, signed, once or more with the same body under the same id.
fn check_deliveries(receiver: &Receiver, events: &[Value]) {
    let mut delivered = BTreeMap::new();
    for request in receiver.received() {
        assert!(request.verified, "{:?} of {}", request.problem, request.body);
        if let Some(before) = delivered.insert(request.id.clone(), request.body.clone()) {
            assert_eq!(before, request.body, "two bodies under the id {}", request.id);
        }
    }
    let bodies: Vec<Value> = delivered.values().map(|body| serde_json::from_str(body).unwrap()).collect();
    for event in events.iter().filter(|event| event["type"] == "anomaly.opened") {
        let same = |body: &&Value| body["data"] == *event && body["type"] == event["type"];
        assert_eq!(bodies.iter().filter(same).count(), 1, "not delivered under one id: {event}");
    }
    for incident in events.iter().map(|event| &event["incident"]) {
        // Updates that wait behind each other may collapse, the last word on an incident may not.
        let last = events.iter().rfind(|event| event["incident"] == *incident).unwrap();
        assert!(bodies.iter().any(|body| body["data"] == *last), "the last event was not delivered: {last}");
    }
}

#[test]
fn the_faults_of_the_capture_open_incidents_and_its_clean_phases_do_not() {
    let mut site = Site::two_subnets();
    let receiver = tools::python_with_webhooks()
        .map(|python| Receiver::start(&python, site.path("received.jsonl"), &site.secret_file()));
    match &receiver {
        Some(receiver) => site = site.with_webhook(&receiver.url),
        None => tools::skip("real_input", "signatures not verified: no Python with the package standardwebhooks"),
    }
    let program = site.start();
    capture::send_all(&program);
    let lines = program.finish();
    let events: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    check_incidents(&events);
    if let Some(receiver) = &receiver {
        check_deliveries(receiver, &events);
    }
}

#[test]
fn the_committed_posts_and_logs_are_the_raw_capture() {
    let Some(raw) = capture::raw() else {
        return tools::skip("real_input", "the raw capture is not beside the repository, the copy was not compared");
    };
    let mut numbers = BTreeMap::new();
    for post in capture::posts() {
        let number = numbers.entry(post.agent.clone()).and_modify(|n| *n += 1).or_insert(1);
        let file = |end: &str| raw.join(format!("agent-{}/post-{number:04}.{end}", post.agent));
        assert_eq!(post.body, std::fs::read(file("otlp.pb.gz")).unwrap(), "{post:?}");
        let head: Value = serde_json::from_slice(&std::fs::read(file("headers.json")).unwrap()).unwrap();
        let headers: Value = post.headers().into_iter().map(|(k, v)| (k.to_owned(), Value::from(v))).collect();
        assert_eq!((&head["headers"], &head["path"]), (&headers, &Value::from(post.path.as_str())));
        assert_eq!(head["received_at"], post.received_at);
    }
    for (agent, log) in ["a", "b"].into_iter().zip(capture::report_logs()) {
        let packed = std::fs::File::open(log).unwrap();
        let unpacked = std::io::read_to_string(flate2::read::GzDecoder::new(packed)).unwrap();
        assert_eq!(unpacked, std::fs::read_to_string(raw.join(format!("agent-{agent}/reports.jsonl"))).unwrap());
    }
}

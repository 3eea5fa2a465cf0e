//! `run` and the commands that look at a job, on the set-ups that a fresh user has: each says once what is missing and what to
//! do, and exits by it.

use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};

use flowshift_consumer::commit::{Manifest, Part};
use serde_json::{Value, json};

use super::aws::{Aws, Order};
use super::support::program::Program;
use super::{Job, clean, flowshift};

/// What it said, which is one line.
fn line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let said: Vec<&str> = text.lines().filter(|line| line.starts_with("flowshift: ")).collect();
    assert_eq!(said.len(), 1, "{text}");
    said[0].to_owned()
}

const ONES: [&[&str]; 4] = [&["run"], &["collect"], &["leases", "list"], &["state", "inspect"]];

/// The SDK's chain of providers was printed, twice, in twelve lines without a fix.
#[test]
fn without_credentials_or_region_one_line_names_what_to_set() {
    let aws = Aws::complete();
    let mut job = Job::on(&aws);
    job.env.clear();
    for command in ONES {
        let output = job.command(command, &[]);
        let said = line(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for text in ["no AWS credentials", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "IRSA", "flowshift doctor"] {
            assert!(said.contains(text), "{command:?}: {said}");
        }
    }
    job.change("region = \"us-east-1\"\n", "");
    for command in ONES {
        let said = line(&job.command(command, &[]));
        assert!(said.contains("no region: set AWS_REGION, aws.region"), "{command:?}: {said}");
    }
}

/// One stream was named at a time, and tables had been made by then.
#[test]
fn missing_streams_are_all_named_once_before_anything_is_made() {
    let aws = Aws::start(false);
    aws.stream("flowshift-flows");
    let job = Job::on(&aws);
    let output = job.command(&["run"], &[]);
    let said = line(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no such stream in us-east-1: flowshift-exchange, flowshift-evidence;"), "{said}");
    assert!(said.contains("deploy/cloudformation/streams.yaml"), "{said}");
    let tables = aws.dynamodb("ListTables", &json!({})).json();
    assert_eq!(tables["TableNames"], json!([]));
}

/// A collector started, was ready, and refused every body without a name of what was missing.
#[test]
fn a_collector_does_not_start_without_its_stream_and_names_it() {
    let aws = Aws::start(false);
    aws.stream("flowshift-exchange");
    let job = Job::on(&aws);
    let output = job.command(&["collect"], &[]);
    let said = line(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no such stream in us-east-1: flowshift-flows; make what is missing with"), "{said}");
    assert!(said.contains("deploy/cloudformation/streams.yaml") && said.contains("streams.*"), "{said}");
    assert!(output.stdout.is_empty(), "it was not ready");
}

/// Roles of before may not ask for it.
#[test]
fn a_collector_that_may_not_ask_for_its_stream_starts() {
    let aws = Aws::complete();
    aws.order(Order { denied: vec!["DescribeStreamSummary"], ..Order::default() });
    let job = Job::on(&aws);
    std::fs::write(job.path("flowshift.toml"), &job.settings).unwrap();
    let mut command = flowshift();
    command.current_dir(job.folder.path()).args(["collect", "--json", "--config", "flowshift.toml"]);
    clean(&mut command, &job.path("none"));
    command.envs(job.env.iter().map(|(name, value)| (*name, value)));
    let program = Program::start(command, &job.path("stderr")).unwrap();
    assert_eq!(program.post("/v1/flows", &[], b"").unwrap().status / 100, 4, "it answers");
    program.terminate();
    assert!(program.ended().status.success());
}

#[test]
fn a_table_that_may_not_be_made_is_told_once_with_what_was_denied() {
    let aws = Aws::start(false);
    for stream in ["flowshift-flows", "flowshift-exchange", "flowshift-evidence"] {
        aws.stream(stream);
    }
    aws.order(Order { denied: vec!["CreateTable"], ..Order::default() });
    let said = line(&Job::on(&aws).command(&["run"], &[]));
    assert!(
        said.contains("no such table: flowshift-flows-leases, ") && said.contains("allow dynamodb:CreateTable"),
        "{said}"
    );
    assert!(said.contains("deploy/cloudformation/streams.yaml"), "{said}");
}

/// Only the leader's log had a line by which an operator knew the process.
#[test]
fn a_worker_says_at_its_start_who_it_is() {
    let aws = Aws::complete();
    let job = Job::on(&aws);
    std::fs::write(job.path("flowshift.toml"), &job.settings).unwrap();
    let mut command = flowshift();
    command.current_dir(job.folder.path()).args(["run", "--config", "flowshift.toml", "--role", "detect"]);
    clean(&mut command, &job.path("none"));
    command.envs(job.env.iter().map(|(name, value)| (*name, value)));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let lines = lines.map(|line| serde_json::from_str::<Value>(&line).unwrap()["fields"].clone());
    let said = lines.into_iter().find(|fields| fields["message"] == "worker starts");
    child.kill().unwrap();
    child.wait().unwrap();
    let said = said.unwrap();
    assert_eq!((&said["role"], &said["job"]), (&json!("detect"), &json!("flowshift")), "{said}");
    assert_eq!((&said["version"], &said["flows"]), (&json!(env!("CARGO_PKG_VERSION")), &json!("flowshift-flows")));
    assert!(said["commit"].as_str().unwrap().len() >= 7, "{said}");
    let admin: std::net::SocketAddr = said["admin"].as_str().unwrap().parse().unwrap();
    assert!(admin.port() > 0 && said["worker"].as_str().unwrap().len() > 8, "{said}");
}

/// It was shown, and the exit code was 0.
#[test]
fn state_that_is_missing_is_no_success() {
    let aws = Aws::complete();
    let part = Part { key: "shardId-000000000000".into(), generation: 1, chunks: 1, length: 9, ..Part::default() };
    let manifest = Manifest { version: 1, checkpoint: "TRIM_HORIZON".into(), parts: vec![part], directory: None };
    let item = json!({
        "leaseKey": { "S": "shardId-000000000000" }, "leaseCounter": { "N": "4" }, "fs_epoch": { "N": "1" },
        "checkpoint": { "S": "TRIM_HORIZON" }, "fs_manifest": { "B": base64(&manifest.encode_bytes()) },
    });
    let stored = aws.dynamodb("PutItem", &json!({ "TableName": "flowshift-flows-leases", "Item": item }));
    assert_eq!(stored.status, 200, "{}", stored.body);
    let job = Job::on(&aws);
    for arguments in [&[][..], &["--json"]] {
        let output = job.command(&["state", "inspect"], arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(line(&output).contains("1 of 1 parts cannot be read"), "{}", line(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains("shardId-000000000000"));
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

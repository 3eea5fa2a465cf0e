//! One thing broken at a time.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Job;
use super::aws::{Aws, Order};

#[test]
fn no_credentials() {
    let aws = Aws::complete();
    let mut job = Job::on(&aws);
    job.env.clear();
    let report = job.report(&[]);
    report.names(&["identity"], "credentials: there are none", "service account with IRSA or Pod Identity");
    // What cannot be looked at is said to be open, once for each check.
    assert!(report.of_level("skipped").len() >= 5, "{:#}", report.json);
}

#[test]
fn no_region() {
    let aws = Aws::complete();
    let mut job = Job::on(&aws);
    job.change("region = \"us-east-1\"\n", "");
    job.report(&[]).names(&["identity"], "no region", "set aws.region");
}

#[test]
fn a_wrong_region() {
    let aws = Aws::complete();
    let mut job = Job::on(&aws);
    job.change("us-east-1", "eu-west-1");
    job.report(&[]).names(
        &["streams"],
        "in region us-east-1, and we sign for eu-west-1",
        "set aws.region = \"us-east-1\"",
    );
}

#[test]
fn nobody_answers_at_the_endpoint() {
    let aws = Aws::complete();
    let mut job = Job::on(&aws);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    job.change(&aws.kinesis.clone(), &closed);
    job.report(&[]).names(&["clock", "streams", "permissions"], "no answer", "aws.endpoint_url_*");
}

#[test]
fn a_missing_stream() {
    let aws = Aws::complete();
    let mut job = Job::on(&aws);
    job.settings.push_str("[streams]\nexchange = \"elsewhere\"\n");
    job.report(&[]).names(&["streams"], "elsewhere: no such stream in us-east-1", "streams.exchange");
}

#[test]
fn a_stream_that_is_not_active() {
    let aws = Aws::start(true);
    aws.stream("flowshift-flows");
    let job = Job::on(&aws);
    job.report(&["--role", "collect"]).names(
        &["streams"],
        "flowshift-flows: it is CREATING",
        "wait until it is ACTIVE",
    );
}

#[test]
fn a_missing_table() {
    let aws = Aws::complete();
    aws.dynamodb("DeleteTable", &json!({ "TableName": "flowshift-state" }));
    Job::on(&aws).report(&[]).names(&["tables"], "flowshift-state: no such table", "dynamodb:CreateTable");
}

#[test]
fn a_table_with_another_key() {
    let aws = Aws::complete();
    aws.table("other", "id");
    let mut job = Job::on(&aws);
    job.settings.push_str("[tables]\nflows_leases = \"other\"\n");
    job.report(&[]).names(
        &["tables"],
        "its key is id (S, hash), and must be leaseKey (S, hash) alone",
        "name another table",
    );
}

#[test]
fn a_missing_permission_on_each_service_whatever_the_call() {
    let aws = Aws::complete();
    let job = Job::on(&aws);
    for (call, service) in [
        ("GetRecords", "kinesis"),
        ("PutRecords", "kinesis"),
        ("GetShardIterator", "kinesis"),
        ("Scan", "dynamodb"),
        ("PutItem", "dynamodb"),
        ("UpdateItem", "dynamodb"),
        ("DeleteItem", "dynamodb"),
    ] {
        aws.order(Order { denied: vec![call], ..Order::default() });
        let (what, fix) = (format!("{service}:{call} is denied: User: arn:aws:sts"), format!("allow {service}:{call}"));
        job.report(&[]).names(&["permissions"], &what, &fix);
    }
    // The role of `collect` may do little, and needs no more.
    let denied = vec!["ListShards", "GetRecords", "DescribeTable", "Scan", "GetItem", "PutItem"];
    aws.order(Order { denied, ..Order::default() });
    assert_eq!(job.report(&["--role", "collect"]).code, Some(0));
    aws.order(Order { denied: vec!["PutRecords"], ..Order::default() });
    job.report(&["--role", "collect"]).names(&["permissions"], "kinesis:PutRecords", "roles.yaml");
}

#[test]
fn a_skewed_clock() {
    let aws = Aws::complete();
    aws.order(Order { date: Some("Wed, 21 Oct 2015 07:28:00 GMT"), ..Order::default() });
    Job::on(&aws).report(&[]).names(&["clock"], "ahead of that of AWS", "set the clock");
}

#[test]
fn a_closed_webhook_and_one_at_a_link_local_address() {
    let aws = Aws::complete();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut job = Job::on(&aws);
    job.webhook(&format!("http://{closed}/"));
    job.report(&[]).names(&["webhooks"], "pager: no connection to 127.0.0.1", "start the receiver");
    let mut job = Job::on(&aws);
    job.webhook("http://169.254.169.254/latest");
    job.report(&[]).names(&["webhooks"], "link-local", "a receiver of your own");
    // A role that delivers nothing needs none of it.
    assert_eq!(job.report(&["--role", "aggregate"]).code, Some(0));
}

#[test]
fn a_webhook_whose_name_nobody_knows_and_one_without_its_secret() {
    let aws = Aws::complete();
    let mut job = Job::on(&aws);
    job.webhook("https://nobody.invalid/hook");
    job.report(&[]).names(&["webhooks"], "pager: nobody.invalid", "name resolution");
    let mut job = Job::on(&aws);
    job.webhook("http://127.0.0.1:9/");
    std::fs::remove_file(job.path("secret")).unwrap();
    job.report(&[]).names(&["webhooks"], "secret cannot be read", "whsec_");
}

#[test]
fn a_topology_that_is_missing_broken_or_not_set() {
    let aws = Aws::complete();
    let job = Job::on(&aws);
    std::fs::write(job.path("topology.yaml"), "subnets:\n  - { id: a, cidr: 10.0.0.1/24 }\n").unwrap();
    job.report(&[]).names(&["topology"], "`10.0.0.1/24` is not a CIDR", "describe-subnets");
    std::fs::remove_file(job.path("topology.yaml")).unwrap();
    job.report(&[]).names(&["topology"], "topology.yaml: it cannot be read", "topology.file");
    let mut job = Job::on(&aws);
    job.change("file = \"topology.yaml\"\n", "");
    job.report(&[]).names(&["topology"], "topology.file: not set", "describe-subnets");
}

#[test]
fn records_of_a_wrong_format_and_of_addresses_nobody_knows() {
    let aws = Aws::complete();
    let put = |text: &str| {
        let record = json!({ "StreamName": "flowshift-flows", "PartitionKey": "k", "Data": STANDARD.encode(text) });
        assert_eq!(aws.kinesis("PutRecord", &record).status, 200);
    };
    put("version account-id interface-id srcaddr dstaddr action\n2 1 eni-1 10.77.1.1 10.77.2.1 ACCEPT\n");
    let mut job = Job::on(&aws);
    let fix = "its format string lacks protocol, packets, bytes, start, end";
    job.report(&[]).names(&["records"], "1 cannot be read", fix);
    put(&json!({
        "ts_ms": 1_795_310_600_000_u64, "interval_ms": 1000, "src": "10.9.9.1", "dst": "10.9.9.2", "src_port": 1,
        "dst_port": 2, "protocol": "tcp", "bytes": 1, "packets": 1,
    })
    .to_string());
    job.report(&[]).names(&["records"], "coverage: 0 of 1 flows", "to the topology");
    job.settings.push_str("[input]\nformat = \"flow-batch\"\n");
    job.report(&[]).names(&["records"], "2 cannot be read", "VPC Flow Logs");
}

#[test]
fn a_worker_of_another_program_that_is_at_work() {
    let aws = Arc::new(Aws::complete());
    let row = |counter: u32| {
        let item = json!({
            "leaseKey": { "S": "shardId-000000000000" }, "leaseOwner": { "S": "kcl-worker-7" },
            "leaseCounter": { "N": counter.to_string() }, "checkpoint": { "S": "TRIM_HORIZON" },
            "checkpointSubSequenceNumber": { "N": "0" }, "ownerSwitchesSinceCheckpoint": { "N": "0" },
        });
        json!({ "TableName": "flowshift-flows-leases", "Item": item })
    };
    assert_eq!(aws.dynamodb("PutItem", &row(1)).status, 200);
    let job = Job::on(&aws);
    let still = job.report(&[]);
    assert_eq!(still.code, Some(0), "{:#}", still.json);
    let warning = &still.of_level("warning")[0];
    assert!(warning["check"] == "workers" && warning["what"].as_str().unwrap().contains("kcl-worker-7"), "{warning}");

    let done = Arc::new(AtomicBool::new(false));
    let renewing = {
        let (aws, done) = (Arc::clone(&aws), Arc::clone(&done));
        std::thread::spawn(move || {
            for counter in 2.. {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                aws.dynamodb("PutItem", &row(counter));
                std::thread::sleep(Duration::from_millis(300));
            }
        })
    };
    let report = job.report(&[]);
    done.store(true, Ordering::Relaxed);
    renewing.join().unwrap();
    report.names(&["workers"], "kcl-worker-7 of another program is at work", "stop that application");
}

/// Their rows and beats stand for ever, and were counted as a job in order.
#[test]
fn a_job_whose_workers_are_all_dead() {
    let aws = Aws::complete();
    let item = json!({
        "leaseKey": { "S": "shardId-000000000000" }, "leaseOwner": { "S": "pod-1" }, "fs_owner": { "S": "pod-1" },
        "leaseCounter": { "N": "41" }, "checkpoint": { "S": "TRIM_HORIZON" }, "fs_epoch": { "N": "1" },
    });
    assert_eq!(aws.dynamodb("PutItem", &json!({ "TableName": "flowshift-flows-leases", "Item": item })).status, 200);
    let mut job = Job::on(&aws);
    job.settings.push_str("[engine]\nrenewal = \"500ms\"\n");
    let report = job.report(&[]);
    assert_eq!(report.code, Some(0), "a worker that starts mends it: {:#}", report.json);
    let warning = report.of_level("warning").into_iter().find(|warning| warning["check"] == "workers").unwrap();
    assert!(
        warning["what"].as_str().unwrap().contains("no worker renews its 1 held leases (owner pod-1)"),
        "{warning}"
    );

    let listed = job.command(&["leases", "list"], &[]);
    let text = String::from_utf8(listed.stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with("flowshift-flows")).unwrap();
    assert!(line.contains("not renewed") && !line.contains("live"), "{text}");
    assert!(text.lines().last().unwrap().starts_with("no worker renews these leases: 1 are held"), "{text}");
    let listed = job.command(&["leases", "list"], &["--json"]);
    let json: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert!(json["problem"].as_str().unwrap().starts_with("no worker renews"), "{json}");
    assert_eq!((&json["leases"][0]["live"], &json["leases"][0]["shard_state"]), (&json!(false), &json!("not renewed")));
}

#[test]
fn a_port_that_is_held_and_settings_that_cannot_be_read() {
    let aws = Aws::complete();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut job = Job::on(&aws);
    job.change("[admin]\nlisten = \"127.0.0.1:0\"", &format!("[admin]\nlisten = \"{}\"", held.local_addr().unwrap()));
    job.report(&[]).names(&["listen"], "in use by another program", "admin.listen");
    let mut job = Job::on(&aws);
    job.settings.push_str("[detector]\nstep = \"7s\"\nwindwo = \"60s\"\n");
    let report = job.report(&[]);
    report.names(&["settings"], "detector.windwo", "did you mean `detector.window`");
}

#[test]
fn a_missing_permission_on_the_consumer_of_enhanced_fan_out() {
    let aws = Aws::complete();
    let mut job = Job::on(&aws);
    job.settings.push_str("[input]\nfetch = \"efo\"\n");
    let consumer = |level: &str| {
        let report = job.report(&["--role", "aggregate"]);
        let about = |finding: &&Value| finding["about"] == "consumer flowshift";
        report.of_level(level).into_iter().find(about).unwrap_or_else(|| panic!("{:#}", report.json)).clone()
    };
    let missing = consumer("skipped");
    assert!(missing["what"].as_str().unwrap().contains("no such consumer"), "{missing}");
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/flowshift-flows";
    let made = aws.kinesis("RegisterStreamConsumer", &json!({ "StreamARN": arn, "ConsumerName": "flowshift" }));
    assert_eq!(made.status, 200, "{}", made.body);
    assert_eq!(consumer("ok")["what"], "may DescribeStreamConsumer, SubscribeToShard");
    aws.order(Order { denied: vec!["SubscribeToShard"], ..Order::default() });
    let report = job.report(&["--role", "aggregate"]);
    report.names(&["permissions"], "kinesis:SubscribeToShard is denied", "allow kinesis:SubscribeToShard");
}

//! `flowshift doctor` against a set-up that is in order, and against more than a dozen that are broken: each fault is
//! named with what to do about it, and nothing else is called a fault.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod aws;
mod broken;
mod start;
mod sts;

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use aws::Aws;
use support::program::flowshift;
use support::site::Site;

const TOPOLOGY: &str = "subnets:
  - { id: subnet-a, cidr: 10.77.1.0/24, az: use1-az1, vpc: vpc-1 }
  - { id: subnet-b, cidr: 10.77.2.0/24, az: use1-az2, vpc: vpc-1 }
";
const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A folder with settings, topology and a secret for a job on some endpoints.
struct Job {
    folder: TempDir,
    settings: String,
    env: Vec<(&'static str, String)>,
}

impl Job {
    /// In order on these services: nothing is wrong with it.
    fn on(aws: &Aws) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("topology.yaml"), TOPOLOGY).unwrap();
        std::fs::write(folder.path().join("secret"), SECRET).unwrap();
        let settings = format!(
            "[aws]\nregion = \"us-east-1\"\nendpoint_url_kinesis = \"http://{}\"\n\
             endpoint_url_dynamodb = \"http://{}\"\n\
             [topology]\nfile = \"topology.yaml\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [collect]\nlisten = \"127.0.0.1:0\"\n",
            aws.kinesis, aws.dynamodb
        );
        let env = vec![("AWS_ACCESS_KEY_ID", "AKIATEST".to_owned()), ("AWS_SECRET_ACCESS_KEY", "s".to_owned())];
        Self { folder, settings, env }
    }

    /// With one text of the settings replaced, which must be there.
    fn change(&mut self, from: &str, to: &str) {
        assert!(self.settings.contains(from), "{}", self.settings);
        self.settings = self.settings.replace(from, to);
    }

    /// With a receiver at this URL.
    fn webhook(&mut self, url: &str) {
        self.settings.push_str(&format!(
            "[[webhooks]]\nname = \"pager\"\nurl = \"{url}\"\nsecret_file = \"secret\"\ntimeout = \"2s\"\n"
        ));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(&["doctor"], arguments)
    }

    /// Another command of the same job.
    fn command(&self, name: &[&str], arguments: &[&str]) -> Output {
        std::fs::write(self.path("flowshift.toml"), &self.settings).unwrap();
        let mut command = flowshift();
        command.current_dir(self.folder.path()).args(name).args(["--config", "flowshift.toml"]).args(arguments);
        clean(&mut command, &self.path("none"));
        command.envs(self.env.iter().map(|(name, value)| (*name, value))).output().unwrap()
    }

    /// Its report.
    fn report(&self, arguments: &[&str]) -> Report {
        let output = self.run(&[&["--json"], arguments].concat());
        Report::of(&output)
    }
}

/// Nothing of this machine: no credentials, profiles, metadata service, settings.
fn clean(command: &mut Command, nowhere: &std::path::Path) {
    for name in
        ["AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "FLOWSHIFT_CONFIG", "FAILPOINTS", "AWS_ENDPOINT_URL"]
    {
        command.env_remove(name);
    }
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_STS"] {
        command.env_remove(name);
    }
    for name in
        ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_WEB_IDENTITY_TOKEN_FILE"]
    {
        command.env_remove(name);
    }
    command.env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_CONFIG_FILE", nowhere);
    command.env("AWS_SHARED_CREDENTIALS_FILE", nowhere).env("HOME", nowhere);
}

/// A report, and how the program left.
struct Report {
    code: Option<i32>,
    json: Value,
}

impl Report {
    fn of(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout);
        let problem = String::from_utf8_lossy(&output.stderr);
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{problem}"));
        Self { code: output.status.code(), json }
    }

    fn of_level(&self, level: &str) -> Vec<&Value> {
        self.json["findings"].as_array().unwrap().iter().filter(|finding| finding["level"] == level).collect()
    }

    /// There is no fault and no warning.
    fn is_green(&self) {
        assert_eq!(self.code, Some(0), "{:#}", self.json);
        assert_eq!((self.of_level("fault").len(), self.of_level("warning").len()), (0, 0), "{:#}", self.json);
    }

    /// Faults there are only of these checks; in one of the first check stands this text, and this in its fix.
    fn names(&self, checks: &[&str], what: &str, fix: &str) {
        let faults = self.of_level("fault");
        assert_eq!(self.code, Some(1), "{:#}", self.json);
        let of_others = faults.iter().find(|fault| !checks.contains(&fault["check"].as_str().unwrap()));
        assert!(of_others.is_none(), "wanted only {checks:?}: {faults:#?}");
        let has = |fault: &Value, field: &str, text: &str| fault[field].as_str().unwrap().contains(text);
        let told = |fault: &&&Value| {
            let whole = format!("{}: {}", fault["about"].as_str().unwrap(), fault["what"].as_str().unwrap());
            fault["check"] == checks[0] && whole.contains(what) && has(fault, "fix", fix)
        };
        assert!(faults.iter().any(|fault| told(&fault)), "no {what:?} with fix {fix:?}: {:#}", self.json);
    }
}

#[test]
fn a_local_job_is_green_stopped_and_running_and_the_look_changes_nothing() {
    let mut site = Site::two_subnets();
    site.drain = false;
    let topology = site.path("topology.yaml").display().to_string();
    let secret = site.secret_file().display().to_string();
    let receiver = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", receiver.local_addr().unwrap());
    let program = site.start();
    support::capture::send_all(&program);
    let arguments = [
        "doctor",
        "--json",
        "--admin",
        "127.0.0.1:0",
        "--topology",
        &topology,
        "--webhook",
        &url,
        "--webhook-secret-file",
        &secret,
    ];
    let running = Report::of(&doctor(&site, &arguments));
    running.is_green();
    let records = running.json["findings"].as_array().unwrap().iter().find(|f| f["about"] == "coverage").unwrap();
    assert!(records["what"].as_str().unwrap().contains("100 %"), "{records}");
    program.finish();
    let before = site.export();
    let stopped = Report::of(&doctor(&site, &arguments));
    stopped.is_green();
    assert_eq!(site.export(), before);
    receiver.set_nonblocking(true).unwrap();
    let mut posted = Vec::new();
    for mut connection in std::iter::from_fn(|| receiver.accept().ok().map(|(connection, _)| connection)) {
        std::io::Read::read_to_end(&mut connection, &mut posted).unwrap();
    }
    assert!(posted.is_empty(), "posted {posted:?}");

    // Of a stopped job no row was told of.
    let why = "stage: a page is lost";
    trouble(&site, why);
    let told = Report::of(&doctor(&site, &arguments));
    assert_eq!(told.code, Some(0), "{:#}", told.json);
    let warnings = told.of_level("warning");
    assert_eq!((warnings.len(), &warnings[0]["check"]), (1, &Value::from("workers")), "{:#}", told.json);
    assert_eq!(warnings[0]["what"], format!("it stood there at the end: {why}"));
    assert_eq!(warnings[0]["about"], "flowshift-exchange-leases: shardId-000000000000");
    assert!(warnings[0]["fix"].as_str().unwrap().contains("leases resolve"), "{}", warnings[0]);
}

/// Has the row of the stopped job's exchange shard say why it stopped.
fn trouble(site: &Site, why: &str) {
    let file = site.data_dir().join("dynamodb.sqlite");
    let database = dynoxide::Database::new(file.to_str().unwrap()).unwrap();
    let update = serde_json::json!({
        "TableName": "flowshift-exchange-leases",
        "Key": { "leaseKey": { "S": "shardId-000000000000" } },
        "UpdateExpression": "SET fs_trouble = :why",
        "ExpressionAttributeValues": { ":why": { "S": why } },
    });
    database.update_item(serde_json::from_value(update).unwrap()).unwrap();
}

/// The collector's port of the defaults may be held on this machine by another test.
fn doctor(site: &Site, arguments: &[&str]) -> Output {
    let mut command = flowshift();
    command.args(arguments).arg("--data-dir").arg(site.data_dir()).env("FLOWSHIFT__COLLECT__LISTEN", "127.0.0.1:0");
    command.env_remove("FAILPOINTS").env_remove("FLOWSHIFT_CONFIG").output().unwrap()
}

#[test]
fn a_job_in_order_is_green_for_every_role_and_says_what_was_looked_at() {
    let aws = Aws::complete();
    let mut job = Job::on(&aws);
    let receiver = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    job.webhook(&format!("http://{}/", receiver.local_addr().unwrap()));
    for role in ["all", "aggregate", "detect", "collect"] {
        job.report(&["--role", role]).is_green();
    }
    let text = String::from_utf8(job.run(&[]).stdout).unwrap();
    for check in [
        "settings",
        "identity",
        "clock",
        "streams",
        "tables",
        "permissions",
        "workers",
        "topology",
        "webhooks",
        "listen",
    ] {
        assert!(text.lines().any(|line| line.starts_with("ok") && line[9..].starts_with(check)), "{check}: {text}");
    }
    assert!(text.contains("environment variables (AWS_ACCESS_KEY_ID), key AKIATEST"), "{text}");
    assert!(text.contains("skipped  identity     caller: the endpoint of Kinesis is a local stand-in"), "{text}");
    assert!(text.contains("may DescribeTable, Scan, GetItem, PutItem, UpdateItem, DeleteItem"), "{text}");
    assert!(!text.contains('\x1b'), "colours without a terminal");
    assert!(!text.contains("s3cret") && !text.contains(SECRET), "a secret is shown");
    // Nothing was written by the calls that write.
    for table in ["flowshift-flows-leases", "flowshift-state"] {
        let scanned = aws.dynamodb("Scan", &serde_json::json!({ "TableName": table })).json();
        assert_eq!(scanned["Count"], 0, "{scanned}");
    }
    let all = |stream: &str| {
        let (shard, start) = ("shardId-000000000000", "TRIM_HORIZON");
        let shard = serde_json::json!({ "StreamName": stream, "ShardId": shard, "ShardIteratorType": start });
        let iterator = aws.kinesis("GetShardIterator", &shard).json()["ShardIterator"].clone();
        aws.kinesis("GetRecords", &serde_json::json!({ "ShardIterator": iterator })).json()["Records"].clone()
    };
    for stream in ["flowshift-flows", "flowshift-exchange", "flowshift-evidence"] {
        assert_eq!(all(stream), serde_json::json!([]), "{stream}");
    }
}

//! What a process says of itself while it leaves: SIGTERM makes it not ready at once, and it answers what is inside before
//! it goes. The leaving is held open by a request whose body is not whole yet, so nothing here races with its end.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;
use support::flows::{flow, lines, now_ms, send};
use support::http;
use support::program::{Program, flowshift};
use support::site::Site;
use support::tools::{PATIENCE, until};

/// A request inside the collector that lacks its last bytes.
struct Held {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl Held {
    /// Is inside when this returns.
    fn inside(program: &Program) -> Self {
        let mut body = lines(&[flow(now_ms(), 1_000)]);
        let rest = body.split_off(body.len() / 2);
        let mut stream = TcpStream::connect(&program.collect).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len() + rest.len();
        let kind = "content-type: application/x-ndjson\r\nconnection: close";
        write!(stream, "POST /v1/flows HTTP/1.1\r\nhost: test\r\n{kind}\r\ncontent-length: {length}\r\n\r\n").unwrap();
        stream.write_all(&body).unwrap();
        until("the request is inside", || {
            (program.metric("flowshift_collect_in_flight_requests", &[]) >= 1.0).then_some(())
        });
        Self { stream, rest }
    }

    /// Sends the last bytes; the first line of the answer.
    fn finish(mut self) -> String {
        self.stream.write_all(&self.rest).unwrap();
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    }
}

fn leaves_well(program: Program) {
    let probe = |path: &str| http::get(&program.admin, path).unwrap();
    assert_eq!(probe("/readyz").status, 200);
    let held = Held::inside(&program);
    assert_eq!(probe("/readyz").status, 200, "a request inside is no reason");
    program.terminate();
    let not_ready = until("it is not ready", || Some(probe("/readyz")).filter(|answer| answer.status != 200));
    assert_eq!(not_ready.status, 503);
    assert_eq!(not_ready.json(), json!({ "status": "failing", "reasons": { "leaving": "asked to stop" } }));
    // Neither is to be started again for it, nor taken out of a rollout as one that never started.
    assert_eq!((probe("/livez").status, probe("/startupz").status), (200, 200));
    until("the door is shut for others", || (send(&program, &[flow(now_ms(), 1_001)]).status == 503).then_some(()));
    assert_eq!(probe("/readyz").status, 503, "and stays so");
    assert_eq!(held.finish(), "HTTP/1.1 200 OK");
    assert!(program.ended().status.success());
}

#[test]
fn a_local_job_that_was_asked_to_stop_is_not_ready_while_it_answers_what_is_inside() {
    let site = Site::two_subnets();
    leaves_well(site.start());
}

#[test]
fn a_collector_that_was_asked_to_stop_is_not_ready_while_it_answers_what_is_inside() {
    let site = Site::two_subnets();
    let streams = site.start();
    let mut command = flowshift();
    command.args(["collect", "--json", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.env_remove("FLOWSHIFT_CONFIG").env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_REGION", "us-east-1");
    command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", "s");
    let kinesis = format!("http://{}", streams.kinesis.clone().unwrap());
    command.env("FLOWSHIFT__AWS__ENDPOINT_URL_KINESIS", kinesis);
    leaves_well(Program::start(command, &site.path("collect.log")).unwrap());
    streams.finish();
}

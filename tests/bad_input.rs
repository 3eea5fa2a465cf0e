//! Bad input at the collector and in the stream: each piece is answered or counted by its reason, its neighbours count, and the
//! process goes on.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;

use serde_json::json;
use support::flows::{flow, lines, now_ms, send};
use support::oracle::{Records, exported};
use support::program::Program;
use support::site::Site;
use support::{capture, http, kinesis, tools};

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");
const GZIP: (&str, &str) = ("content-encoding", "gzip");

/// What it is, headers, body, and the status and reason that must come back.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [u8], u16, &'a str);

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// Bytes without meaning, always the same: a xorshift.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A minute ago: in no pane that has closed, and not ahead.
fn recently() -> i64 {
    now_ms() - 60_000
}

fn counted(program: &Program, route: &str, outcome: &str) -> f64 {
    let labels = [format!("route=\"{route}\""), format!("outcome=\"{outcome}\"")];
    program.metric("flowshift_collect_requests_total", &[&labels[0], &labels[1]])
}

#[test]
fn every_bad_body_is_refused_by_its_reason_and_counted_and_the_next_good_one_is_taken() {
    let site = Site::two_subnets();
    let program = site.start();
    let post = &capture::posts()[0];
    let overflow = br#"{"ts_ms":1,"interval_ms":1,"src":"10.77.1.10","dst":"10.77.2.10","bytes":18446744073709551616}"#;
    let negative = br#"{"ts_ms":9223372036854775807,"interval_ms":1,"src":"10.77.1.10","dst":"10.77.2.10"}"#;
    let bomb = gzip(&vec![0; 256 << 20]);
    let half = &post.body[..post.body.len() / 2];
    let good = lines(&[flow(recently(), 1)]);
    let agent_reports: [Case<'_>; 8] = [
        ("empty body", &[PROTOBUF, GZIP], b"", 400, "empty"),
        ("half a gzip", &[PROTOBUF, GZIP], half, 400, "malformed"),
        ("random bytes", &[PROTOBUF], &noise(5_000), 400, "malformed"),
        ("random bytes called gzip", &[PROTOBUF, GZIP], &noise(5_000), 400, "malformed"),
        ("10 MB", &[PROTOBUF], &noise(10 << 20), 413, "body_too_large"),
        ("wrong content type", &[("content-type", "text/html")], &post.body, 415, "unsupported_type"),
        ("unknown encoding", &[PROTOBUF, ("content-encoding", "br")], &post.body, 415, "unsupported_encoding"),
        ("gzip bomb", &[PROTOBUF, GZIP], &bomb, 413, "decoded_too_large"),
    ];
    let flows: [Case<'_>; 8] = [
        ("empty body", &[NDJSON], b"", 400, "empty"),
        ("blank lines", &[NDJSON], b"\n \n", 400, "empty"),
        ("random bytes", &[NDJSON], &noise(5_000), 400, "malformed"),
        ("a count above 64 bits", &[NDJSON], overflow, 400, "malformed"),
        ("an interval past the end of time", &[NDJSON], negative, 400, "malformed"),
        ("no content type", &[], &good, 415, "unsupported_type"),
        ("10 MB", &[NDJSON], &noise(10 << 20), 413, "body_too_large"),
        ("gzip bomb", &[NDJSON, GZIP], &bomb, 413, "decoded_too_large"),
    ];
    let routes = [("/v1/agent-reports", "agent_reports", agent_reports), ("/v1/flows", "flows", flows)];
    for (path, route, cases) in routes {
        for (what, headers, body, status, reason) in cases {
            let before = counted(&program, route, reason);
            let answer = program.post(path, headers, body).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!((answer.status, &answer.json()["error"]), (status, &json!(reason)), "{what}: {answer:?}");
            assert_eq!(counted(&program, route, reason), before + 1.0, "{what} is not counted");
        }
    }
    assert_eq!(program.post("/nowhere", &[NDJSON], b"x").unwrap().status, 404);
    assert_eq!(http::get(&program.collect, "/v1/flows").unwrap().status, 405);
    assert_eq!(http::get(&program.admin, "/livez").unwrap().status, 200);
    assert_eq!(send(&program, &[flow(recently(), 1)]).status, 200);
    program.finish();
    let records = Records::of(&site.export());
    assert_eq!((records.incoming, records.accounted), (1, 1), "a refused body left something: {records:?}");
}

#[test]
fn good_lines_count_beside_bad_ones_and_unknown_fields_are_ignored() {
    let site = Site::two_subnets();
    let program = site.start();
    let at = recently();
    let mut unknown = flow(at, 2);
    unknown["colour"] = json!({ "deep": [1, 2, { "er": null }] });
    let mut huge = flow(at, 3);
    huge["bytes"] = json!(1e30);
    let mut body = lines(&[flow(at, 1), unknown, huge]);
    body.extend(b"{\"ts_ms\": not json\n");
    body.extend(lines(&[flow(at, 4)]));
    let answer = program.post("/v1/flows", &[NDJSON], &body).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json(), json!({ "accepted": 3, "malformed": 2 }));
    program.finish();
    let export = site.export();
    let records = Records::of(&export);
    assert_eq!((records.incoming, records.accounted), (5, 3));
    assert_eq!(records.refused().into_iter().collect::<Vec<_>>(), [("malformed", 2)]);
    assert_eq!(exported(&export)["subnet-a>subnet-b"]["bytes"], 3_000);
}

#[test]
fn poison_in_the_stream_is_counted_and_stops_and_skips_none_of_its_neighbours() {
    let site = Site::two_subnets().with_settings("[streams]\nflows = \"poisoned\"\n");
    let program = site.start();
    let Some(endpoint) = program.kinesis.clone() else {
        program.finish();
        return tools::skip("bad_input", "poison in the stream: the ready line does not tell the Kinesis endpoint");
    };
    let at = recently();
    let good: Vec<Vec<u8>> = (1..=6).map(|port| lines(&[flow(at, port)])).collect();
    let report = &capture::posts()[0].body;
    let bomb = gzip(&vec![b'{'; 64 << 20]);
    let poison: [&[u8]; 6] = [
        &noise(300),
        &report[..report.len() / 2],
        &bomb,
        b"{\"ts_ms\":",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b" ",
    ];
    let mut payloads: Vec<&[u8]> = Vec::new();
    for (good, poison) in good.iter().zip(poison) {
        payloads.extend([poison, good.as_slice()]);
    }
    kinesis::put(&endpoint, "poisoned", "one-shard", &payloads);
    program.finish();
    let export = site.export();
    let records = Records::of(&export);
    assert_eq!((records.incoming, records.accounted), (12, 6), "{records:?}");
    assert_eq!(records.refused().into_iter().collect::<Vec<_>>(), [("malformed", 6)]);
    assert_eq!(exported(&export)["subnet-a>subnet-b"]["flows"], 6);
}

#[test]
fn counts_whose_sum_overflows_are_held_at_the_edge_and_their_neighbours_stay_exact() {
    let site = Site::two_subnets();
    let program = site.start();
    let at = recently();
    let mut most = [flow(at, 1), flow(at, 2), flow(at + 1_000, 3)];
    for record in &mut most {
        record["bytes"] = json!(u64::MAX);
        record["rtt"] = json!({ "count": u64::MAX, "min_us": 1, "max_us": u64::MAX, "sum_us": u64::MAX });
    }
    let mut back = flow(at, 4);
    (back["src"], back["dst"]) = (json!("10.77.2.10"), json!("10.77.1.10"));
    let answer = send(&program, &[&most[..], &[back]].concat());
    assert!(answer.status == 200 || answer.json()["error"] == "malformed", "{answer:?}");
    assert_eq!(http::get(&program.admin, "/livez").unwrap().status, 200);
    program.finish();
    let export = site.export();
    let records = Records::of(&export);
    assert_eq!(records.incoming, 4, "{records:?}");
    assert_eq!(exported(&export)["subnet-b>subnet-a"]["bytes"], 1_000);
}

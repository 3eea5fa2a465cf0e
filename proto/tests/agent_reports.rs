//! Agent reports, against real bodies and the agent's own JSON log beside them.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::net::IpAddr;

use flowshift_proto::agent_report::{self, AgentFlow, AgentReport, Distribution, FlowStats, SamplingHints};
use flowshift_proto::decode::{self, DecodeError, Format, ValueError};
use flowshift_proto::flow::{FlowRecord, MAX_COUNT, Rtt, StateCounts};
use flowshift_proto::reason::Reason;

use common::{SAMPLES, captures, data, only_report, sample};

fn subnet(ip: IpAddr) -> char {
    let text = ip.to_string();
    match () {
        () if text.starts_with("10.77.1.") || text.starts_with("fd77:1:") => 'A',
        () if text.starts_with("10.77.2.") || text.starts_with("fd77:2:") => 'B',
        () => panic!("{ip} is in neither subnet"),
    }
}

fn flow() -> AgentFlow {
    AgentFlow {
        local: "10.0.0.1".parse().unwrap(),
        remote: "10.0.0.2".parse().unwrap(),
        local_port: 0,
        remote_port: 443,
        protocol: 6,
        stats: FlowStats::zero(),
    }
}

fn report(flows: Vec<AgentFlow>) -> AgentReport {
    AgentReport {
        instance_id: "i-1".into(),
        machine_id: "m".into(),
        instance_type: "m5.large".into(),
        agent_version: "0.2.0".into(),
        time_unix_nano: 1_795_310_543_123_456_789,
        restarts: 1,
        failed_reports: 2,
        sampling: SamplingHints { map_insertion_errors: 3, socket_agg_above_limit: 4, socket_deltas_above_limit: 5 },
        flows,
        ..AgentReport::default()
    }
}

#[test]
fn the_json_log_and_the_posted_body_of_real_reports_agree_in_every_field() {
    let lines = String::from_utf8(data("agent-a.jsonl")).unwrap();
    for (number, line) in SAMPLES.iter().zip(lines.lines()) {
        let otlp = only_report(&sample(*number), None);
        let mut json = only_report(line.as_bytes(), Some(1));
        assert_eq!(json.time_unix_nano, 1_000_000);
        json.time_unix_nano = otlp.time_unix_nano;
        assert_eq!(otlp, json);
        assert_eq!(otlp.agent_id(), Some("i-0aaaaaaaaaaaaaaa1"));
        assert_eq!(otlp.restarts, u64::from(*number == 1));
        assert!(!otlp.truncated() && !otlp.sampling.any());
    }
}

#[test]
fn an_encoded_real_report_has_the_bytes_of_the_agent_for_every_flow() {
    for number in SAMPLES {
        let original = decode::gunzip_limited(&sample(number), 1 << 20).unwrap();
        let report = decode::agent_report(&original).unwrap();
        let encoded = agent_report::encode(&report);
        // The flow scopes come first; text of un-mapped addresses and health counters differ.
        let mut same = 0;
        for scope in scopes(&original) {
            let is_flow = contains(&scope, b"network_stats") && !contains(&scope, b"::ffff:");
            if is_flow {
                assert!(contains(&encoded, &scope));
                same += 1;
            }
        }
        assert!(same >= 5, "{same} flows compared");
    }
}

fn scopes(body: &[u8]) -> Vec<Vec<u8>> {
    use flowshift_proto::wire::opentelemetry::proto::collector::metrics::v1::ExportMetricsServiceRequest;
    use prost::Message;
    let request = ExportMetricsServiceRequest::decode(body).unwrap();
    request.resource_metrics[0].scope_metrics.iter().map(Message::encode_to_vec).collect()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn the_whole_capture_gives_the_known_sums_for_each_directed_subnet_pair() {
    let Some(folder) = captures() else { return };
    let mut sums: BTreeMap<(char, char), [u64; 7]> = BTreeMap::new();
    let mut compared = 0;
    for (agent, reports) in [("agent-a", 46), ("agent-b", 43)] {
        let lines = std::fs::read_to_string(folder.join(agent).join("reports.jsonl")).unwrap();
        assert_eq!(lines.lines().count(), reports);
        for (number, line) in (1..).zip(lines.lines()) {
            let body = std::fs::read(folder.join(agent).join(format!("post-{number:04}.otlp.pb.gz"))).unwrap();
            let report = only_report(&body, None);
            let mut json = only_report(line.as_bytes(), Some(1));
            json.time_unix_nano = report.time_unix_nano;
            assert_eq!(report, json, "{agent} {number}");
            compared += report.flows.len();
            let start_ms = report.end_ms() - 5000;
            report.for_each_record(start_ms, &mut |record| {
                assert_eq!((record.start_ms, record.end_ms), (start_ms, start_ms + 5000));
                assert_eq!(record.check(), Ok(()));
                let counters = &record.counters;
                let (syn, established, close) = counters.retransmits.split();
                let row = [
                    counters.bytes.unwrap(),
                    counters.segments.unwrap(),
                    syn,
                    established,
                    close,
                    counters.connects.unwrap(),
                    counters.connect_failures.unwrap(),
                ];
                let sum = sums.entry((subnet(record.src), subnet(record.dst))).or_default();
                sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            });
        }
    }
    let expected = BTreeMap::from([
        (('A', 'A'), [27_656_444, 19_210, 0, 1, 0, 2, 0]),
        (('A', 'B'), [146_041_455, 106_604, 12, 2_604, 13, 14, 7]),
        (('B', 'A'), [396_093, 3_959, 12, 2, 9, 789, 0]),
    ]);
    assert_eq!(sums, expected);
    assert!(compared > 400, "{compared} flows compared");
}

#[test]
fn an_encoded_report_decodes_to_itself_plain_and_compressed() {
    let mut one = flow();
    one.stats.connect_attempts = Some(9);
    one.stats.retrans_syn = Some(2);
    one.stats.severed_connect = Some(3);
    one.stats.rtt_us = Some(Distribution { count: 2, min: 10, max: 20, sum: 30 });
    let mut two = flow();
    two.local = "fd77:1::11".parse().unwrap();
    two.stats = FlowStats { bytes_delivered: Some(MAX_COUNT), ..FlowStats::default() };
    let report = report(vec![one, two]);
    assert_eq!(decode::agent_report(&agent_report::encode(&report)), Ok(report.clone()));
    let packed = agent_report::encode_gzip(&report);
    assert_eq!(decode::sniff(&packed), Format::Otlp);
    assert_eq!(only_report(&packed, None), report);
}

#[test]
fn counters_are_mapped_local_to_remote_and_connects_never_fall_below_zero() {
    let mut known = flow();
    known.stats.bytes_delivered = Some(100);
    known.stats.bytes_received = Some(9_999);
    known.stats.segments_delivered = Some(7);
    known.stats.connect_attempts = Some(14);
    known.stats.retrans_syn = Some(12);
    known.stats.severed_connect = Some(7);
    known.stats.severed_establish = Some(1);
    let counters = known.stats.counters();
    assert_eq!((counters.bytes, counters.segments), (Some(100), Some(7)));
    assert_eq!((counters.connects, counters.connect_attempts_total), (Some(2), Some(14)));
    assert_eq!((counters.connect_failures, counters.attempts(), counters.resets), (Some(7), Some(7), Some(1)));
    assert_eq!(counters.retransmits, StateCounts::ByState { syn: 12, established: 0, close: 0 });
    assert_eq!(counters.rejects, None);
    known.stats.retrans_syn = Some(15);
    assert_eq!(known.stats.counters().connects, Some(0));
    assert_eq!(FlowStats::default().counters().attempts(), None);
    assert_eq!(FlowStats::default().counters().retransmits, StateCounts::Unknown);
    assert_eq!(known.record(0, 1).rtt, Rtt::Unknown);
}

#[test]
fn the_start_given_is_kept_within_the_hour_before_the_end() {
    let report = report(vec![flow()]);
    let starts = |start_ms| {
        let mut found: Vec<FlowRecord> = Vec::new();
        report.for_each_record(start_ms, &mut |record| found.push(record.clone()));
        found[0].start_ms
    };
    let end_ms = 1_795_310_543_123;
    assert_eq!(report.end_ms(), end_ms);
    assert_eq!(starts(end_ms - 30_000), end_ms - 30_000);
    assert_eq!(starts(i64::MAX), end_ms);
    assert_eq!(starts(i64::MIN), end_ms - 3_600_000);
}

#[test]
fn five_hundred_flows_mean_that_the_report_was_cut() {
    assert!(!report(vec![flow(); 499]).truncated());
    assert!(report(vec![flow(); 500]).truncated());
}

#[test]
fn a_bad_flow_is_counted_and_its_neighbours_stay() {
    let mut bad = flow();
    bad.stats.rtt_us = Some(Distribution { count: 2, min: 50, max: 20, sum: 30 });
    let mut huge = flow();
    huge.stats.bytes_delivered = Some(MAX_COUNT + 2);
    let decoded = decode::agent_report(&agent_report::encode(&report(vec![flow(), bad, huge, flow()]))).unwrap();
    assert_eq!(decoded.flows, [flow(), flow()]);
    assert_eq!((decoded.rejected.get(Reason::Malformed), decoded.rejected.total()), (2, 2));
    assert_eq!(decoded.flow_count(), 4);
    assert!(matches!(decoded.first_problem, Some(DecodeError::Value(ValueError::InconsistentRtt { .. }))));
}

#[test]
fn a_report_without_agent_or_time_is_refused_and_so_are_other_otlp_metrics() {
    let nameless = AgentReport { instance_id: String::new(), machine_id: String::new(), ..report(vec![flow()]) };
    let refused = |report: &AgentReport| decode::agent_report(&agent_report::encode(report)).unwrap_err();
    assert_eq!(refused(&nameless), ValueError::Missing("instance-id").into());
    let timeless = AgentReport { time_unix_nano: 0, ..report(vec![flow()]) };
    assert_eq!(refused(&timeless), ValueError::Missing("time_unix_nano").into());
    let mut foreign = agent_report::encode(&report(vec![]));
    let at = foreign.windows(20).position(|window| window == b"network-flow-monitor").unwrap();
    foreign[at] = b'N';
    assert_eq!(decode::agent_report(&foreign).unwrap_err().reason(), Reason::Unsupported);
    assert_eq!(decode::agent_report(&[]), Err(DecodeError::Empty));
    let machine = AgentReport { instance_id: String::new(), ..report(vec![]) };
    assert_eq!(decode::agent_report(&agent_report::encode(&machine)).unwrap().agent_id(), Some("m"));
}

#[test]
fn a_body_with_two_agents_gives_both_reports_but_is_no_single_report() {
    let mut body = agent_report::encode(&report(vec![flow()]));
    body.extend(agent_report::encode(&AgentReport { instance_id: "i-2".into(), ..report(vec![]) }));
    let mut ids = Vec::new();
    let decoded = decode::agent_reports(&body, &mut |report| ids.push(report.instance_id)).unwrap();
    assert_eq!((ids.as_slice(), decoded.records), (["i-1".to_owned(), "i-2".to_owned()].as_slice(), 1));
    assert_eq!(decode::agent_report(&body).unwrap_err().reason(), Reason::Unsupported);
}

#[test]
fn the_log_line_carries_its_own_time_and_underscored_keys_are_known() {
    let stats = r#"{"bytes_delivered":5,"rtt_us":{"count":0,"min":0,"max":0,"sum":0}}"#;
    let flow = format!(
        r#"{{"flow":{{"protocol":"TCP","local_address":"1.2.3.4","remote_address":"::ffff:5.6.7.8","local_port":443,"remote_port":0}},"stats":{stats}}}"#
    );
    let bare = format!(
        r#"{{"network_stats":[{flow},{{"flow":7}},{flow}],"env_metadata":[["instance_id",{{"String":"i-3"}}],["x",7]],"failed_reports":4,"k8s_metadata":null}}"#
    );
    let line = format!(r#"{{"level":"INFO","message":"Publishing report","report":{bare},"timestamp":1795310543123}}"#);
    let mut reports = Vec::new();
    let text = format!("{line}\n{bare}\n");
    let options = decode::Options { arrival_ms: Some(77), ..Default::default() };
    let decoded = decode::payload(text.as_bytes(), &options, &mut |item| match item {
        decode::Item::Report(report) => reports.push(report),
        decode::Item::Flow(_) => panic!("a flow"),
    });
    let decoded = decoded.unwrap();
    assert_eq!((decoded.records, decoded.rejected.get(Reason::Malformed)), (4, 2));
    assert_eq!(decoded.first_problem.unwrap().position, 1);
    assert_eq!(reports[0].end_ms(), 1_795_310_543_123);
    assert_eq!(reports[1].end_ms(), 77);
    assert_eq!((reports[0].agent_id(), reports[0].failed_reports), (Some("i-3"), 4));
    assert_eq!(reports[0].flows[1].remote.to_string(), "5.6.7.8");
    let no_time = decode::payload(bare.as_bytes(), &decode::Options::default(), &mut |_| panic!("an item"));
    assert_eq!(no_time.unwrap().rejected.get(Reason::Malformed), 1);
}

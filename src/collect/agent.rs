//! An agent's report as one record: the body as it came, under the agent's id.

use bytes::Bytes;
use flowshift_proto::decode::{agent_report, gzip, is_gzip};

use super::request::Accepted;
use super::{MAX_RECORD_BYTES, PartitionKey, Record, Refusal};

/// Checks an agent's body (`body` as sent, `plain` uncompressed) and makes its record.
///
/// # Errors
/// [`Refusal::Malformed`] when it is no single report with an agent's id and a time, or none of its flows can be read;
/// [`Refusal::RecordTooLarge`] when even compressed it does not fit into a record.
pub(super) fn records(body: &Bytes, plain: &Bytes) -> Result<Accepted, Refusal> {
    let report = agent_report(plain)?;
    let (accepted, malformed) = (report.flows.len() as u64, report.rejected.total());
    if let (0, Some(problem)) = (accepted, &report.first_problem) {
        return Err(Refusal::Malformed(format!("none of {malformed} flows can be read, the first: {problem}")));
    }
    let partition_key = PartitionKey::of_agent(report.agent_id().unwrap_or_default());
    let mut record = Record { partition_key, data: body.clone() };
    if record.size() > MAX_RECORD_BYTES && !is_gzip(body) {
        record.data = Bytes::from(gzip(plain));
    }
    if record.size() > MAX_RECORD_BYTES {
        return Err(Refusal::RecordTooLarge { what: "report", bytes: record.size(), limit: MAX_RECORD_BYTES });
    }
    Ok(Accepted { records: vec![record], accepted, malformed })
}

#[cfg(test)]
mod tests {
    use flowshift_proto::agent_report::{AgentFlow, AgentReport, FlowStats, encode, encode_gzip};

    use super::*;

    fn report(flows: u16) -> AgentReport {
        let flow = |port| AgentFlow {
            local: "10.0.0.1".parse().unwrap(),
            remote: "10.0.1.1".parse().unwrap(),
            local_port: 0,
            remote_port: port,
            protocol: 6,
            stats: FlowStats::default(),
        };
        AgentReport {
            instance_id: "i-0abc".to_owned(),
            time_unix_nano: 1_795_310_538_000_000_000,
            flows: (0..flows).map(flow).collect(),
            ..AgentReport::default()
        }
    }

    #[test]
    fn the_body_goes_through_unchanged_under_the_instance_id() {
        let report = report(3);
        let (body, plain) = (Bytes::from(encode_gzip(&report)), Bytes::from(encode(&report)));
        let accepted = records(&body, &plain).unwrap();
        assert_eq!((accepted.accepted, accepted.malformed), (3, 0));
        assert_eq!(accepted.records.len(), 1);
        assert_eq!(accepted.records[0].data, body);
        assert_eq!(accepted.records[0].partition_key.as_str(), "i-0abc");
    }

    #[test]
    fn a_plain_body_above_a_record_is_compressed_into_one() {
        let plain = Bytes::from(encode(&report(8_000)));
        assert!(plain.len() > MAX_RECORD_BYTES, "{}", plain.len());
        let accepted = records(&plain, &plain).unwrap();
        let record = &accepted.records[0];
        assert!(record.size() <= MAX_RECORD_BYTES);
        assert_eq!(flowshift_proto::decode::gunzip_limited(&record.data, 32 << 20).unwrap(), plain);
    }

    #[test]
    fn a_report_of_nobody_is_malformed() {
        let nobody = AgentReport { instance_id: String::new(), ..report(1) };
        let plain = Bytes::from(encode(&nobody));
        let refusal = records(&plain, &plain).unwrap_err();
        assert_eq!(refusal, Refusal::Malformed("instance-id is missing".to_owned()));
    }
}

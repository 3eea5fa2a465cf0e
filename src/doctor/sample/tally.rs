//! Counts what became of sampled records, and judges it.

use flowshift_proto::decode::{self, DecodeError, Item, Options};
use flowshift_proto::flow::FlowRecord;
use flowshift_proto::reason::ReasonCounts;

use super::guess::guess;
use crate::doctor::Finding;
use crate::topology::{Place, Topology};

/// Share of flows in per cent that must find their subnets.
const MAPPED: u64 = 90;

/// What became of the records seen.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Payloads looked at, those inside aggregates one by one.
    payloads: u64,
    /// Flows that could be read.
    flows: u64,
    /// Of these, with a place for both ends and a subnet for one.
    mapped: u64,
    /// Addresses of the first one that has none.
    stranger: Option<String>,
    /// Payloads nothing of which could be read.
    unreadable: u64,
    /// Records inside payloads that could not be read.
    rejected: ReasonCounts,
    /// What was wrong first.
    first: Option<String>,
    /// What to do about it, if that can be told.
    advice: Option<String>,
}

impl Tally {
    /// Reads one payload.
    pub(super) fn take(&mut self, payload: &[u8], options: &Options, topology: Option<&Topology>) {
        self.payloads += 1;
        let decoded = decode::payload(payload, options, &mut |item| match item {
            Item::Flow(flow) => self.flow(flow, topology),
            Item::Report(report) => {
                let end_ms = report.end_ms();
                report.for_each_record(end_ms, &mut |flow| self.flow(flow, topology));
            }
        });
        match decoded {
            Ok(decoded) => {
                self.rejected.merge(&decoded.rejected);
                if let Some(problem) = decoded.first_problem {
                    self.problem(&problem.error, payload);
                }
            }
            Err(error) => {
                self.unreadable += 1;
                self.problem(&error, payload);
            }
        }
    }

    fn problem(&mut self, error: &DecodeError, payload: &[u8]) {
        self.first.get_or_insert_with(|| error.to_string());
        if self.advice.is_none() {
            self.advice = match error {
                DecodeError::WrongFormat { found, .. } => {
                    let known = ["flow-batch", "json-lines"].contains(found);
                    let word = if known {
                        found
                    } else if *found == "otlp" {
                        "agent"
                    } else {
                        "auto"
                    };
                    Some(format!("set input.format = \"{word}\", or \"auto\""))
                }
                _ => guess(payload),
            };
        }
    }

    fn flow(&mut self, flow: &FlowRecord, topology: Option<&Topology>) {
        self.flows += 1;
        let Some(topology) = topology else { return };
        let vpc = flow.vpc.as_deref();
        let places = [flow.src, flow.dst].map(|address| topology.lookup(address, vpc));
        // As AGGREGATE decides.
        let known = places.iter().all(|place| *place != Place::Unmapped);
        if known && places.iter().any(|place| matches!(place, Place::Subnet(_))) {
            self.mapped += 1;
        } else {
            self.stranger.get_or_insert_with(|| format!("{} to {}", flow.src, flow.dst));
        }
    }

    /// What it means; `judged`: whether there was a topology to look addresses up in.
    pub(super) fn verdict(&self, stream: &str, judged: bool) -> Vec<Finding> {
        if self.payloads == 0 {
            let what = "no record arrived in the last 10 minutes: format and coverage are open";
            return vec![Finding::skipped(
                stream,
                what,
                "send some (agents to `collect`, or own producers) and ask again",
            )];
        }
        let mut findings = vec![self.read(stream)];
        if self.flows > 0 && judged {
            findings.push(self.coverage());
        }
        findings
    }

    fn read(&self, stream: &str) -> Finding {
        let refused = self.unreadable.saturating_add(self.rejected.total());
        let looked = format!("{} recent records, {} flows in them", self.payloads, self.flows);
        if refused == 0 {
            return Finding::ok(stream, format!("{looked}, all readable"));
        }
        let why = self.first.as_deref().unwrap_or("no reason told");
        let what = format!("{looked}; {refused} cannot be read, the first: {why}");
        let usual =
            "send one of the formats of `input.format`; README, `Five minutes with your own traffic`, shows a record";
        let fix = self.advice.as_deref().unwrap_or(usual);
        if self.flows == 0 { Finding::fault(stream, what, fix) } else { Finding::warning(stream, what, fix) }
    }

    fn coverage(&self) -> Finding {
        let share = self.mapped.saturating_mul(100) / self.flows.max(1);
        let what = format!("{} of {} flows ({share} %) find their subnets", self.mapped, self.flows);
        let Some(stranger) = &self.stranger else { return Finding::ok("coverage", what) };
        let what = format!("{what}; the first that does not: {stranger}");
        let fix = "add the subnets (or edges) of those addresses to the topology; flows without them are `unmapped`";
        match share {
            0 => Finding::fault("coverage", what, fix),
            share if share < MAPPED => Finding::warning("coverage", what, fix),
            _ => Finding::ok("coverage", what),
        }
    }
}

#[cfg(test)]
mod tests {
    use flowshift_proto::decode::InputFormat;

    use super::*;
    use crate::doctor::Level;

    const TOPOLOGY: &str = "subnets:\n  - {id: a, cidr: 10.0.1.0/24, az: z}\n  - {id: b, cidr: 10.0.2.0/24, az: z}\n";

    fn line(src: &str, dst: &str) -> String {
        let ends = format!(r#""src":"{src}","dst":"{dst}","src_port":1,"dst_port":443"#);
        format!(r#"{{"ts_ms":1795310600000,"interval_ms":1000,{ends},"protocol":"tcp","bytes":1,"packets":1}}"#)
    }

    fn judged(payloads: &[String], format: InputFormat) -> Vec<Finding> {
        let topology = Topology::parse(TOPOLOGY).unwrap();
        let options = Options { format, arrival_ms: Some(1_795_310_600_000), ..Options::default() };
        let mut tally = Tally::default();
        for payload in payloads {
            tally.take(payload.as_bytes(), &options, Some(&topology));
        }
        tally.verdict("flows", true)
    }

    fn levels(findings: &[Finding]) -> Vec<Level> {
        findings.iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn an_empty_stream_is_open_and_not_in_order() {
        assert_eq!(levels(&judged(&[], InputFormat::Auto)), [Level::Skipped]);
    }

    #[test]
    fn coverage_is_the_share_of_flows_that_aggregate_would_map() {
        let good = line("10.0.1.1", "10.0.2.1");
        assert_eq!(levels(&judged(&[good.clone(), line("10.0.1.1", "8.8.8.8")], InputFormat::Auto)), [Level::Ok; 2]);
        let strange = line("10.0.1.1", "10.9.9.9");
        let some = judged(&[good, strange.clone()], InputFormat::Auto);
        assert_eq!(levels(&some), [Level::Ok, Level::Warning]);
        assert!(some[1].what.contains("1 of 2 flows (50 %)") && some[1].what.contains("10.9.9.9"), "{some:?}");
        let none = judged(&[strange, line("8.8.8.8", "9.9.9.9")], InputFormat::Auto);
        assert_eq!(levels(&none), [Level::Ok, Level::Fault]);
    }

    #[test]
    fn records_of_another_format_than_the_configured_name_the_setting() {
        let found = judged(&[line("10.0.1.1", "10.0.2.1")], InputFormat::FlowBatch);
        assert_eq!(levels(&found), [Level::Fault]);
        assert_eq!(found[0].fix, "set input.format = \"json-lines\", or \"auto\"");
    }

    #[test]
    fn a_field_that_lacks_is_named() {
        let found = judged(&[line("10.0.1.1", "10.0.2.1").replace("\"src\":", "\"from\":")], InputFormat::Auto);
        assert!(found[0].level == Level::Fault && found[0].what.contains("src"), "{found:?}");
    }

    #[test]
    fn lines_of_a_flow_log_say_what_their_format_string_lacks() {
        let log = "version account-id interface-id srcaddr dstaddr packets bytes\n2 1234 eni-1 10.0.1.1 10.0.2.1 1 40";
        let found = judged(&[log.to_owned()], InputFormat::Auto);
        assert_eq!(levels(&found), [Level::Fault]);
        assert!(found[0].fix.contains("start, end"), "{found:?}");
    }
}

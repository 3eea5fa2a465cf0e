//! The three streams: there, ACTIVE, in our region, and wide enough for each other.

use aws_sdk_kinesis::types::{EncryptionType, StreamDescriptionSummary, StreamMode, StreamStatus};
use flowshift_consumer::exchange::ShardCounts;

use super::answer::Trouble;
use super::{Finding, Patient};
use crate::config;

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Flows,
    Exchange,
    Evidence,
}

impl Use {
    fn key(self) -> &'static str {
        match self {
            Self::Flows => "streams.flows",
            Self::Exchange => "streams.exchange",
            Self::Evidence => "streams.evidence",
        }
    }
}

/// What was seen of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    name: String,
    arn: String,
    status: StreamStatus,
    on_demand: bool,
    open_shards: i32,
    retention_hours: i32,
    encrypted: bool,
}

impl Seen {
    fn of(summary: &StreamDescriptionSummary) -> Self {
        let mode = summary.stream_mode_details().map(|details| details.stream_mode());
        Self {
            name: summary.stream_name().to_owned(),
            arn: summary.stream_arn().to_owned(),
            status: summary.stream_status().clone(),
            on_demand: mode == Some(&StreamMode::OnDemand),
            open_shards: summary.open_shard_count(),
            retention_hours: summary.retention_period_hours(),
            encrypted: summary.encryption_type() == Some(&EncryptionType::Kms),
        }
    }
}

pub(super) async fn check(patient: &Patient) -> Vec<Finding> {
    if let Some(blocked) = patient.blocked().await {
        return vec![blocked];
    }
    let streams = &patient.config.streams;
    let mut wanted = vec![(Use::Flows, &streams.flows)];
    if patient.part.works() {
        wanted.extend([(Use::Exchange, &streams.exchange), (Use::Evidence, &streams.evidence)]);
    }
    let asked = wanted.iter().map(|(_, name)| describe(patient, name));
    let answers = futures::future::join_all(asked).await;
    let mut findings = Vec::new();
    let mut open = Vec::new();
    for ((what_for, name), answer) in wanted.into_iter().zip(answers) {
        match answer {
            Ok(seen) => {
                open.push(u64::try_from(seen.open_shards).unwrap_or(0));
                findings.extend(verdict(what_for, &seen, patient.region(), is_local(patient)));
            }
            Err(trouble) => findings.push(absent(what_for, name, &trouble, patient)),
        }
    }
    if let [input, exchange, _] = open[..] {
        findings.extend(width(&patient.config, ShardCounts { input, exchange }));
    }
    findings
}

async fn describe(patient: &Patient, name: &str) -> Result<Seen, Trouble> {
    let answer = patient.clients.kinesis.describe_stream_summary().stream_name(name).send().await;
    let answer = answer.map_err(|error| Trouble::of(&error))?;
    let summary = answer.stream_description_summary();
    summary.map(Seen::of).ok_or_else(|| Trouble::Unreachable("the answer describes no stream".into()))
}

/// Whether what we speak to is a stand-in for AWS.
fn is_local(patient: &Patient) -> bool {
    let endpoint = &patient.config.aws.endpoint_url_kinesis;
    patient.embedded || endpoint.as_ref().is_some_and(|url| url.starts_with("http://"))
}

fn absent(what_for: Use, name: &str, trouble: &Trouble, patient: &Patient) -> Finding {
    let region = patient.region().unwrap_or("no region");
    match trouble {
        Trouble::Missing(_) => Finding::fault(
            name,
            format!("no such stream in {region}"),
            format!(
                "make it (deploy/cloudformation/streams.yaml, or aws kinesis create-stream --stream-name {name}), or \
                 set {} \
                 or aws.region to where it is",
                what_for.key()
            ),
        ),
        // Whether it must be allowed is what the check of permissions knows.
        Trouble::Denied(_) => Finding::skipped(name, "it may not be described", "see `permissions`"),
        other => Finding::fault(name, other.text(), other.fix()),
    }
}

fn verdict(what_for: Use, seen: &Seen, region: Option<&str>, local: bool) -> Vec<Finding> {
    let name = &seen.name;
    let theirs = seen.arn.split(':').nth(3).unwrap_or_default();
    if let Some(ours) = region.filter(|ours| !theirs.is_empty() && *ours != theirs) {
        let what = format!("it is in region {theirs}, and we sign for {ours}");
        return vec![Finding::fault(name, what, format!("set aws.region = \"{theirs}\""))];
    }
    let status = match &seen.status {
        StreamStatus::Active | StreamStatus::Updating => None,
        StreamStatus::Creating => Some("wait until it is ACTIVE (seconds, for many shards minutes)"),
        StreamStatus::Deleting => Some("it is going away with its records: make it again once it is gone"),
        _ => Some("wait until it is ACTIVE"),
    };
    if let Some(fix) = status {
        return vec![Finding::fault(name, format!("it is {}, not ACTIVE", seen.status), fix)];
    }
    let mode = if seen.on_demand { "on-demand" } else { "provisioned" };
    let (shards, hours) = (seen.open_shards, seen.retention_hours);
    let mut findings =
        vec![Finding::ok(name, format!("{}, {shards} open shards, {mode}, kept {hours} h", seen.status))];
    if what_for == Use::Evidence && shards > 1 {
        findings.push(Finding::warning(
            name,
            format!("{shards} open shards: incidents are made by one owner, of one shard"),
            "merge them, and make the stream provisioned with 1 shard",
        ));
    }
    if !seen.encrypted && !local {
        findings.push(Finding::warning(
            name,
            "not encrypted at rest",
            "aws kinesis start-stream-encryption with a KMS key",
        ));
    }
    findings
}

/// Whether the exchange stream takes the batches of the input as often as is set.
fn width(config: &config::Config, shards: ShardCounts) -> Option<Finding> {
    let facts = config::facts(config, shards);
    let wanted = config.engine.batch_interval.get();
    (facts.batch_interval > wanted).then(|| {
        Finding::warning(
            &config.streams.exchange,
            format!("too narrow: batches every {:?}, not every {wanted:?}", facts.batch_interval),
            format!("give it {} shards, or raise engine.batch_interval", facts.exchange_shards_needed),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn seen(status: StreamStatus) -> Seen {
        Seen {
            name: "flows".into(),
            arn: "arn:aws:kinesis:eu-west-1:1:stream/flows".into(),
            status,
            on_demand: false,
            open_shards: 1,
            retention_hours: 24,
            encrypted: true,
        }
    }

    fn levels(what_for: Use, seen: &Seen, region: &str, local: bool) -> Vec<Level> {
        verdict(what_for, seen, Some(region), local).iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn only_a_stream_that_can_be_used_is_in_order() {
        for status in [StreamStatus::Active, StreamStatus::Updating] {
            assert_eq!(levels(Use::Flows, &seen(status), "eu-west-1", false), [Level::Ok]);
        }
        for status in [StreamStatus::Creating, StreamStatus::Deleting] {
            let found = verdict(Use::Flows, &seen(status.clone()), Some("eu-west-1"), false);
            assert_eq!(found[0].level, Level::Fault);
            assert!(found[0].what.contains(status.as_str()) && !found[0].fix.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn a_stream_of_another_region_names_the_region_to_set() {
        let found = verdict(Use::Flows, &seen(StreamStatus::Active), Some("us-east-1"), false);
        assert_eq!((found[0].level, found[0].fix.as_str()), (Level::Fault, "set aws.region = \"eu-west-1\""));
    }

    #[test]
    fn evidence_on_several_shards_and_an_open_stream_on_aws_are_warnings() {
        let mut stream = seen(StreamStatus::Active);
        (stream.open_shards, stream.encrypted) = (4, false);
        assert_eq!(levels(Use::Flows, &stream, "eu-west-1", true), [Level::Ok]);
        assert_eq!(levels(Use::Evidence, &stream, "eu-west-1", true), [Level::Ok, Level::Warning]);
        assert_eq!(levels(Use::Exchange, &stream, "eu-west-1", false), [Level::Ok, Level::Warning]);
    }

    #[test]
    fn an_exchange_that_is_too_narrow_says_how_many_shards_it_needs() {
        let mut config = config::Config::local_defaults().unwrap();
        config.engine.batch_interval = config::Span::secs(1);
        assert_eq!(width(&config, ShardCounts { input: 1, exchange: 1 }), None);
        let found = width(&config, ShardCounts { input: 100, exchange: 1 }).unwrap();
        assert!(found.level == Level::Warning && found.fix.contains("give it 4 shards"), "{found:?}");
    }
}

//! Which process is examined, and the calls it makes on each stream and table.
//!
//! Pure. The lists are those of `tests/operations/calls.yaml`, which `deploy/cloudformation/roles.yaml` grants; a
//! test holds them together. Invariant: a part asks for nothing that its process does not call.

use crate::config::{Config, FetchMode};

/// A process of a job, by what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Part {
    /// `run --role all`
    #[default]
    All,
    /// `run --role aggregate`
    Aggregate,
    /// `run --role detect`
    Detect,
    /// `collect`
    Collect,
}

/// A call to AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Call {
    DescribeTable,
    Scan,
    GetItem,
    PutItem,
    UpdateItem,
    DeleteItem,
    DescribeStreamSummary,
    ListShards,
    GetShardIterator,
    GetRecords,
    PutRecords,
    DescribeStreamConsumer,
    SubscribeToShard,
}

impl Call {
    /// Its name at AWS.
    pub(super) fn name(self) -> String {
        format!("{self:?}")
    }
}

/// What a call is made on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resource {
    /// A table, by name and its key attribute.
    Table(String, &'static str),
    /// A stream, by name.
    Stream(String),
    /// A registered consumer, by stream and name.
    Consumer(String, String),
}

use Call::{
    DeleteItem, DescribeStreamConsumer, DescribeStreamSummary, DescribeTable, GetItem, GetRecords, GetShardIterator,
    ListShards, PutItem, PutRecords, Scan, SubscribeToShard, UpdateItem,
};

const LEASES: &[Call] = &[DescribeTable, Scan, GetItem, PutItem, UpdateItem, DeleteItem];
const STATE: &[Call] = &[DescribeTable, GetItem, PutItem, UpdateItem, DeleteItem];
const LOOK: &[Call] = &[DescribeStreamSummary, ListShards];
const READ: &[Call] = &[DescribeStreamSummary, ListShards, GetShardIterator, GetRecords];
const LEAD: &[Call] = &[DescribeStreamSummary, ListShards, PutRecords];
const READ_AND_LEAD: &[Call] = &[DescribeStreamSummary, ListShards, GetShardIterator, GetRecords, PutRecords];
const PUT: &[Call] = &[DescribeStreamSummary, PutRecords];
const FAN_OUT: &[Call] = &[DescribeStreamConsumer, SubscribeToShard];

impl Part {
    /// Whether it takes part in the job: leases, state, leading.
    pub(super) fn works(self) -> bool {
        self != Self::Collect
    }

    /// Whether it reads the flows stream.
    pub(super) fn aggregates(self) -> bool {
        matches!(self, Self::All | Self::Aggregate)
    }

    /// Whether it judges and delivers.
    pub(super) fn detects(self) -> bool {
        matches!(self, Self::All | Self::Detect)
    }

    /// The calls on each stream, in the order flows, exchange, evidence.
    fn on_streams(self) -> [&'static [Call]; 3] {
        let flows = match self {
            Self::Collect => PUT,
            Self::Detect => LOOK,
            Self::All | Self::Aggregate => READ,
        };
        let between = match self {
            Self::Collect => &[],
            Self::Aggregate => LEAD,
            Self::All | Self::Detect => READ_AND_LEAD,
        };
        [flows, between, between]
    }

    /// The calls it makes, by resource.
    pub(super) fn calls(self, config: &Config) -> Vec<(Resource, &'static [Call])> {
        let (streams, tables) = (&config.streams, crate::app::tables(config));
        let names = [&streams.flows, &streams.exchange, &streams.evidence];
        let mut all = Vec::new();
        for (name, calls) in names.into_iter().zip(self.on_streams()) {
            if !calls.is_empty() {
                all.push((Resource::Stream(name.clone()), calls));
            }
        }
        if self.aggregates() && config.input.fetch == FetchMode::Efo {
            let consumer = config.input.consumer.clone().unwrap_or_else(|| config.job.to_string());
            all.push((Resource::Consumer(streams.flows.clone(), consumer), FAN_OUT));
        }
        if self.works() {
            for name in names {
                let table = tables.leases(name);
                all.push((Resource::Table(table.name, table.key), LEASES));
            }
            let state = tables.state();
            all.push((Resource::Table(state.name, state.key), STATE));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What calls.yaml lists under a name, by resource.
    fn listed(role: &str) -> BTreeMap<String, Vec<String>> {
        let text = std::fs::read_to_string("tests/operations/calls.yaml").unwrap();
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut inside = false;
        for line in text.lines() {
            if !line.starts_with([' ', '#']) {
                inside = line.starts_with(&format!("{role}:"));
            }
            let Some((name, calls)) = line.trim().split_once(": [") else { continue };
            if inside && line.starts_with("  ") {
                let calls = calls.trim_end_matches(']').split(", ").map(str::to_owned);
                found.insert(name.to_owned(), calls.collect());
            }
        }
        found
    }

    #[test]
    fn each_part_asks_for_exactly_the_calls_that_its_role_is_granted() {
        let config = Config::local_defaults().unwrap();
        for (part, role, base) in [(Part::Aggregate, "aggregate", "run"), (Part::Detect, "detect", "run")] {
            let mut wanted = listed(base);
            wanted.extend(listed(role));
            assert_eq!(wanted.len(), 7, "{wanted:?}");
            assert_eq!(asked(part, &config), wanted);
        }
        assert_eq!(asked(Part::Collect, &config), listed("collect"));
    }

    fn asked(part: Part, config: &Config) -> BTreeMap<String, Vec<String>> {
        let all = part.calls(config).into_iter().map(|(resource, calls)| {
            let name = match resource {
                Resource::Table(name, _) | Resource::Stream(name) => name,
                Resource::Consumer(_, name) => format!("consumer {name}"),
            };
            let name = name.strip_prefix("flowshift-").unwrap().to_owned();
            (name, calls.iter().map(|call| call.name()).collect())
        });
        all.collect()
    }

    #[test]
    fn fan_out_needs_its_consumer_and_only_where_the_flows_stream_is_read() {
        let mut config = Config::local_defaults().unwrap();
        config.input.fetch = FetchMode::Efo;
        let consumer = |part: Part| {
            part.calls(&config)
                .into_iter()
                .any(|(resource, _)| matches!(resource, Resource::Consumer(_, name) if name == "flowshift"))
        };
        assert!(consumer(Part::All) && consumer(Part::Aggregate));
        assert!(!consumer(Part::Detect) && !consumer(Part::Collect));
    }
}

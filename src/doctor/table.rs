//! The job's tables: there, ACTIVE, and keyed as the program keys them.

use aws_sdk_dynamodb::types::{KeyType, ScalarAttributeType, TableDescription, TableStatus};
use flowshift_consumer::table::TableName;

use super::answer::Trouble;
use super::{Finding, Patient};
use crate::app;

/// What was seen of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    status: String,
    /// Key attributes: name, whether it is the hash key, type.
    keys: Vec<(String, bool, String)>,
}

impl Seen {
    fn of(table: &TableDescription) -> Self {
        let kind = |name: &str| {
            let of_name = table.attribute_definitions().iter().find(|definition| definition.attribute_name() == name);
            of_name.map_or("?", |definition| definition.attribute_type().as_str()).to_owned()
        };
        let keys = table
            .key_schema()
            .iter()
            .map(|key| (key.attribute_name().to_owned(), key.key_type() == &KeyType::Hash, kind(key.attribute_name())));
        Self { status: table.table_status().map_or("?", |status| status.as_str()).to_owned(), keys: keys.collect() }
    }
}

pub(super) async fn check(patient: &Patient) -> Vec<Finding> {
    if !patient.part.works() {
        return vec![Finding::ok("", "collect uses none")];
    }
    if let Some(blocked) = patient.blocked().await {
        return vec![blocked];
    }
    let streams = &patient.config.streams;
    let tables = app::tables(&patient.config);
    let mut wanted: Vec<TableName> =
        [&streams.flows, &streams.exchange, &streams.evidence].map(|stream| tables.leases(stream)).to_vec();
    wanted.push(tables.state());
    let asked = wanted.iter().map(|table| async move {
        let answer = patient.clients.dynamodb.describe_table().table_name(&table.name).send().await;
        let answer = answer.map_err(|error| Trouble::of(&error));
        verdict(table, answer.map(|answer| answer.table().map(Seen::of)))
    });
    futures::future::join_all(asked).await
}

fn verdict(table: &TableName, answer: Result<Option<Seen>, Trouble>) -> Finding {
    let (name, key) = (&table.name, table.key);
    let seen = match answer {
        Ok(Some(seen)) => seen,
        Ok(None) => return Finding::fault(name, "the answer describes no table", "try again"),
        Err(Trouble::Missing(_)) => {
            return Finding::fault(
                name,
                "no such table",
                "make it with deploy/cloudformation/streams.yaml; or start the first `run` with a role that may \
                 dynamodb:CreateTable, which makes it; or set tables.* to the names there are",
            );
        }
        Err(Trouble::Denied(_)) => return Finding::skipped(name, "it may not be described", "see `permissions`"),
        Err(other) => return Finding::fault(name, other.text(), other.fix()),
    };
    let string = ScalarAttributeType::S.as_str();
    let fits = matches!(&seen.keys[..], [(found, true, kind)] if found == key && kind == string);
    if !fits {
        let found: Vec<String> = seen
            .keys
            .iter()
            .map(|(name, hash, kind)| format!("{name} ({kind}, {})", if *hash { "hash" } else { "range" }))
            .collect();
        return Finding::fault(
            name,
            format!("its key is {}, and must be {key} (S, hash) alone", found.join(" and ")),
            "a key cannot be changed: name another table in tables.*, or delete this one and make it with \
             deploy/cloudformation/streams.yaml",
        );
    }
    let usable = [TableStatus::Active.as_str(), TableStatus::Updating.as_str()].contains(&seen.status.as_str());
    if !usable {
        return Finding::fault(name, format!("it is {}, not ACTIVE", seen.status), "wait until it is ACTIVE");
    }
    Finding::ok(name, format!("{}, keyed by {key}", seen.status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn judged(status: &str, keys: &[(&str, bool, &str)]) -> Finding {
        let table = TableName { name: "leases".into(), key: "leaseKey" };
        let keys = keys.iter().map(|(name, hash, kind)| ((*name).to_owned(), *hash, (*kind).to_owned())).collect();
        verdict(&table, Ok(Some(Seen { status: status.into(), keys })))
    }

    #[test]
    fn a_table_fits_by_the_name_the_type_and_the_number_of_its_keys() {
        assert_eq!(judged("ACTIVE", &[("leaseKey", true, "S")]).level, Level::Ok);
        for keys in [
            &[("id", true, "S")][..],
            &[("leaseKey", true, "N")],
            &[("leaseKey", true, "S"), ("range", false, "S")],
            &[],
        ] {
            let found = judged("ACTIVE", keys);
            assert!(found.level == Level::Fault && found.what.contains("must be leaseKey"), "{found:?}");
        }
    }

    #[test]
    fn a_table_that_is_going_or_coming_is_a_fault() {
        for status in ["CREATING", "DELETING", "ARCHIVED"] {
            let found = judged(status, &[("leaseKey", true, "S")]);
            assert!(found.level == Level::Fault && found.what.contains(status), "{found:?}");
        }
    }
}

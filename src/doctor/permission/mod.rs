//! Whether the role may make the calls its process makes, by making them with arguments that change nothing.
//!
//! IAM answers before the service looks at the arguments, so what the service says of them is a yes: a conditional
//! write whose condition contradicts itself, a put under a hash key beyond the key space, a shard that does not
//! exist. Reading is really done, one record at most. `dry` makes the calls; here they are judged.
//! Invariant: no call of this module can write, whatever stands in the table or stream.

mod dry;

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt};

use super::answer::Trouble;
use super::part::{Call, Resource};
use super::{Finding, Patient};

/// Calls at once: shards take five reads a second.
const AT_ONCE: usize = 8;

/// What a dry call tells.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    /// It is allowed.
    Allowed,
    /// It is not; with what AWS says.
    Denied(String),
    /// It could not be found out.
    Open(String),
}

impl Told {
    /// A call whose arguments cannot succeed, or that succeeded.
    fn of<T>(answer: Result<T, Trouble>) -> Self {
        match answer {
            Ok(_) => Self::Allowed,
            Err(Trouble::Denied(text)) => Self::Denied(text),
            // Missing streams and tables are told by their own checks.
            Err(Trouble::Missing(_)) => Self::Open("it is not there".into()),
            Err(Trouble::Refused { code, text }) if is_about_arguments(&code) => {
                drop(text);
                Self::Allowed
            }
            Err(other) => Self::Open(other.text()),
        }
    }
}

/// Whether the service looked at the arguments, and so at the call.
fn is_about_arguments(code: &str) -> bool {
    matches!(
        code,
        "ConditionalCheckFailedException"
            | "InvalidArgumentException"
            | "ValidationException"
            | "ExpiredIteratorException"
    )
}

pub(super) async fn check(patient: &Patient) -> Vec<Finding> {
    if let Some(blocked) = patient.blocked().await {
        return vec![blocked];
    }
    let asked = patient.part.calls(&patient.config);
    let calls = asked.iter().flat_map(|(resource, calls)| calls.iter().map(move |call| (resource, *call)));
    // Answers come back in order.
    let told = stream::iter(calls)
        .map(|(resource, call)| async move { (resource, call, dry::call(&patient.clients, resource, call).await) });
    let told: Vec<_> = told.buffered(AT_ONCE).collect().await;
    asked
        .iter()
        .flat_map(|(resource, _)| {
            let of_it = told.iter().filter(|(other, ..)| *other == resource);
            verdict(resource, &of_it.map(|(_, call, told)| (*call, told.clone())).collect())
        })
        .collect()
}

fn verdict(resource: &Resource, told: &BTreeMap<Call, Told>) -> Vec<Finding> {
    let (service, about) = match resource {
        Resource::Table(name, _) => ("dynamodb", name.clone()),
        Resource::Stream(name) => ("kinesis", name.clone()),
        Resource::Consumer(_, name) => ("kinesis", format!("consumer {name}")),
    };
    let mut findings = Vec::new();
    let allowed: Vec<String> =
        told.iter().filter(|(_, told)| **told == Told::Allowed).map(|(call, _)| call.name()).collect();
    if !allowed.is_empty() {
        findings.push(Finding::ok(&about, format!("may {}", allowed.join(", "))));
    }
    let mut open: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (call, told) in told {
        let call = call.name();
        match told {
            Told::Allowed => {}
            Told::Denied(text) => findings.push(Finding::fault(
                &about,
                format!("{service}:{call} is denied: {text}"),
                format!(
                    "allow {service}:{call} on it in the role's policy; deploy/cloudformation/roles.yaml has every \
                     role's calls{}",
                    hint(text)
                ),
            )),
            Told::Open(why) => open.entry(why).or_default().push(call),
        }
    }
    for (why, calls) in open {
        findings.push(Finding::skipped(
            &about,
            format!("{} not tried out: {why}", calls.join(", ")),
            "mend that first",
        ));
    }
    findings
}

/// A denial by the stream's key reads like one by the stream.
fn hint(text: &str) -> &'static str {
    if text.to_ascii_lowercase().contains("kms") {
        "; the KMS key's policy and kms:Decrypt, kms:GenerateDataKey too"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn an_answer_about_the_arguments_is_a_permission_and_a_throttle_is_no_answer() {
        let refused = |code: &str| Told::of::<()>(Err(Trouble::Refused { code: code.into(), text: "t".into() }));
        assert_eq!(refused("ConditionalCheckFailedException"), Told::Allowed);
        assert_eq!(refused("InvalidArgumentException"), Told::Allowed);
        assert!(matches!(refused("ProvisionedThroughputExceededException"), Told::Open(_)));
        assert_eq!(Told::of::<()>(Err(Trouble::Denied("no".into()))), Told::Denied("no".into()));
        assert!(matches!(Told::of::<()>(Err(Trouble::Unreachable("x".into()))), Told::Open(_)));
    }

    #[test]
    fn each_denied_call_is_a_fault_that_names_action_and_resource() {
        let told = BTreeMap::from([
            (Call::GetRecords, Told::Denied("User: arn is not authorized".into())),
            (Call::ListShards, Told::Allowed),
            (Call::PutRecords, Told::Open("it is not there".into())),
        ]);
        let found = verdict(&Resource::Stream("flows".into()), &told);
        let levels: Vec<Level> = found.iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Ok, Level::Fault, Level::Skipped]);
        assert!(found[1].what.contains("kinesis:GetRecords is denied") && found[1].fix.contains("kinesis:GetRecords"));
    }

    #[test]
    fn a_denial_that_comes_from_the_key_points_there() {
        assert!(hint("KMS key is not accessible").contains("kms:Decrypt"));
        assert_eq!(hint("User: arn is not authorized"), "");
    }
}

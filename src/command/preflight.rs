//! What a worker looks at before it starts, and what it says of itself then.
//!
//! For: faults that no waiting mends, told once with their fix, before anything is made; and a line in the log by which an
//! operator knows which process this is. Not for: a full look ([`crate::doctor`]), nor what passes by itself: an answer that
//! is late or refused for capacity is left to the job, which is patient.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::anyhow;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use flowshift_consumer::lease::WorkerId;
use flowshift_consumer::log::kinesis::KinesisLog;
use flowshift_consumer::log::{Log, LogError};
use flowshift_consumer::run::WorkerError;
use futures::future::join_all;
use tokio::time::timeout;

use super::Failure;
use crate::app::Role;
use crate::aws::Clients;
use crate::config::Config;

/// How long a collector waits for a word about its stream. Without one it starts: it answers its senders 503 while AWS
/// does not answer, and they keep what they have.
const PATIENCE: Duration = Duration::from_secs(5);

/// The streams that every role of a job needs are there.
///
/// # Errors
/// Kinesis knows one of them not.
pub(super) async fn streams(config: &Config, clients: &Clients) -> Result<(), Failure> {
    exist(&[&config.streams.flows, &config.streams.exchange, &config.streams.evidence], clients).await
}

/// The stream that a collector puts into is there, or nobody says so in [`PATIENCE`].
///
/// # Errors
/// Kinesis knows it not.
pub(super) async fn flows(config: &Config, clients: &Clients) -> Result<(), Failure> {
    let looked = timeout(PATIENCE, exist(&[&config.streams.flows], clients)).await;
    looked.unwrap_or_else(|_| {
        tracing::warn!(stream = config.streams.flows, "nobody says whether the stream is there: starting without");
        Ok(())
    })
}

async fn exist(names: &[&String], clients: &Clients) -> Result<(), Failure> {
    let log = KinesisLog::new(clients.kinesis.clone());
    let looked = join_all(names.iter().map(|name| log.identify(name))).await;
    let missing = names.iter().zip(looked).filter(|(_, found)| matches!(found, Err(LogError::NotFound(_))));
    let missing: Vec<&str> = missing.map(|(name, _)| name.as_str()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let region = clients.kinesis.config().region().map_or("its region", AsRef::as_ref);
    Err(Failure::start(anyhow!(
        "no such stream in {region}: {}; make what is missing with deploy/cloudformation/streams.yaml, or set job.name \
         or streams.* to the names there are (`flowshift doctor` looks at tables and permissions as well)",
        missing.join(", ")
    )))
}

/// The job's tables that are not there: the job makes them.
pub(super) async fn missing_tables(config: &Config, clients: &Clients) -> Vec<String> {
    let (tables, streams) = (crate::app::tables(config), &config.streams);
    let mut names: Vec<String> =
        [&streams.flows, &streams.exchange, &streams.evidence].map(|stream| tables.leases(stream).name).to_vec();
    names.push(tables.state().name);
    let looked = names.iter().map(|name| clients.dynamodb.describe_table().table_name(name).send());
    let looked = join_all(looked).await;
    let is_missing = |answer: &Result<_, SdkError<DescribeTableError, _>>| {
        let error = answer.as_ref().err().and_then(SdkError::as_service_error);
        error.is_some_and(DescribeTableError::is_resource_not_found_exception)
    };
    let missing: Vec<String> =
        names.iter().zip(&looked).filter(|(_, found)| is_missing(found)).map(|(name, _)| name.clone()).collect();
    if !missing.is_empty() {
        tracing::info!(tables = missing.join(", "), "tables are missing and are made, billed per request");
    }
    missing
}

/// Why a job ended; with the fix where tables were missing and could not be made.
pub(super) fn explained(error: anyhow::Error, missing: &[String]) -> anyhow::Error {
    let of_tables = error.chain().any(|cause| matches!(cause.downcast_ref(), Some(WorkerError::Table(_))));
    if missing.is_empty() || !of_tables {
        return error;
    }
    error.context(format!(
        "no such table: {}; make them with deploy/cloudformation/streams.yaml, or allow dynamodb:CreateTable",
        missing.join(", ")
    ))
}

/// The commit this program was built from.
pub(super) const COMMIT: &str = env!("FLOWSHIFT_COMMIT");

/// Says in the log who this worker is.
pub(super) fn introduce(config: &Config, role: Role, worker: &WorkerId, admin: SocketAddr) {
    let streams = &config.streams;
    tracing::info!(
        %worker,
        version = env!("CARGO_PKG_VERSION"),
        commit = COMMIT,
        job = config.job.as_str(),
        role = role.as_str(),
        %admin,
        flows = streams.flows,
        exchange = streams.exchange,
        evidence = streams.evidence,
        lanes = config.lanes.get(),
        webhooks = config.webhooks.len(),
        "worker starts"
    );
}

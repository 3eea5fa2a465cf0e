//! PutRecords of the AWS SDK, with errors sorted by what can help.
//!
//! [`PutRecords`] is the seam where tests put a fake. The SDK's own retries are off: it would repeat whole calls, where only
//! the refused records should come again.

use std::fmt;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, PutRecordsResultEntry};
use futures::future::BoxFuture;

use super::Record;

/// One record was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Its shard takes no more now.
    #[error("throttled")]
    Throttled,
    /// Anything else; worth another try.
    #[error("{0}")]
    Internal(String),
}

/// A whole call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The stream takes no more now.
    #[error("throttled")]
    Throttled,
    /// No answer or a server's error: worth another try. Records may be in.
    #[error("{0}")]
    Unavailable(String),
    /// No permission, no stream, bad request: trying again cannot help.
    #[error("{0}")]
    Rejected(String),
}

/// Puts up to 500 records and 5 MiB in one call; one result per record, in order.
pub trait PutRecords: Send + Sync + fmt::Debug {
    /// Makes one call without retries.
    fn put_records(&self, records: Vec<Record>) -> BoxFuture<'static, Result<Vec<Result<(), EntryError>>, CallError>>;
}

/// A Kinesis data stream.
#[derive(Debug, Clone)]
pub struct KinesisStream {
    client: Client,
    stream: String,
}

impl KinesisStream {
    /// The stream of that name behind a client.
    #[must_use]
    pub fn new(client: Client, stream: String) -> Self {
        Self { client, stream }
    }
}

impl PutRecords for KinesisStream {
    fn put_records(&self, records: Vec<Record>) -> BoxFuture<'static, Result<Vec<Result<(), EntryError>>, CallError>> {
        let call = self.client.put_records().stream_name(&self.stream);
        Box::pin(async move {
            let entries = records.into_iter().map(entry).collect::<Result<Vec<_>, _>>()?;
            let once = aws_sdk_kinesis::config::Config::builder().retry_config(RetryConfig::disabled());
            let sent = call.set_records(Some(entries)).customize().config_override(once).send().await;
            let output = sent.map_err(|error| call_error(&error))?;
            Ok(output.records.into_iter().map(|entry| entry_result(&entry)).collect())
        })
    }
}

fn entry(record: Record) -> Result<PutRecordsRequestEntry, CallError> {
    PutRecordsRequestEntry::builder()
        .partition_key(record.partition_key.as_str())
        .data(Blob::new(Vec::from(record.data)))
        .build()
        .map_err(|error| CallError::Rejected(error.to_string()))
}

fn entry_result(entry: &PutRecordsResultEntry) -> Result<(), EntryError> {
    match entry.error_code() {
        None if entry.sequence_number().is_some() => Ok(()),
        None => Err(EntryError::Internal("neither sequence number nor error code".to_owned())),
        Some(code) if is_throttling(code) => Err(EntryError::Throttled),
        Some(code) => Err(EntryError::Internal(code.to_owned())),
    }
}

fn is_throttling(code: &str) -> bool {
    matches!(
        code,
        "ProvisionedThroughputExceededException"
            | "LimitExceededException"
            | "KMSThrottlingException"
            | "ThrottlingException"
            | "Throttling"
            | "SlowDown"
    )
}

fn call_error<E, R>(error: &SdkError<E, R>) -> CallError
where
    SdkError<E, R>: ProvideErrorMetadata + std::error::Error,
    R: fmt::Debug,
{
    let code = error.code().unwrap_or_default();
    let message = error.message().unwrap_or_default();
    match error {
        SdkError::ServiceError(_) if is_throttling(code) => CallError::Throttled,
        SdkError::ServiceError(_) if is_servers_fault(code) => CallError::Unavailable(format!("{code}: {message}")),
        SdkError::ServiceError(_) => CallError::Rejected(format!("{code}: {message}")),
        SdkError::ConstructionFailure(_) => CallError::Rejected(chain(error)),
        _ => CallError::Unavailable(chain(error)),
    }
}

/// Codes that come with a 5xx; an error without a code is one of a server in between.
fn is_servers_fault(code: &str) -> bool {
    matches!(code, "" | "InternalFailure" | "InternalFailureException" | "InternalError" | "InternalServerError")
        || code.starts_with("ServiceUnavailable")
}

/// The error with its causes: the SDK's own text says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

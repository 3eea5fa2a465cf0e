//! Kinesis and DynamoDB inside this process, in memory, reached by ordinary SDK clients over loopback.
//!
//! Not here: services that keep their data ([`word_count`](../word_count.rs) has those). Invariant: a client talks the
//! real protocol, so a measurement holds the same round trips as on AWS, without its distances.

use std::net::SocketAddr;

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_types::retry::RetryConfig;
use flowshift_kinesis_emulator::{Emulator, EmulatorConfig, Limits};
use tokio::net::TcpListener;

use super::Failure;

/// Where both services listen, as URLs.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints {
    pub(crate) kinesis: String,
    pub(crate) dynamodb: String,
}

/// SDK clients of both services.
#[derive(Debug, Clone)]
pub(crate) struct Clients {
    pub(crate) kinesis: aws_sdk_kinesis::Client,
    pub(crate) dynamodb: aws_sdk_dynamodb::Client,
}

/// Starts both, with the throughput limits of AWS; they live as long as the emulator that is returned.
pub(crate) async fn start() -> Result<(Emulator, Endpoints), Failure> {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = EmulatorConfig { limits: Limits::Aws, ..EmulatorConfig::default() };
    let emulator = Emulator::start(config, loopback).await?;
    let listener = TcpListener::bind(loopback).await?;
    let dynamodb = format!("http://{}", listener.local_addr()?);
    let database = dynoxide::Database::memory()?;
    tokio::spawn(dynoxide::server::serve_with_shutdown(listener, database, std::future::pending()));
    let endpoints = Endpoints { kinesis: emulator.endpoint_url(), dynamodb };
    Ok((emulator, endpoints))
}

/// Clients with the SDK's standard retries.
pub(crate) fn connect(endpoints: &Endpoints) -> Clients {
    let http = || aws_smithy_http_client::Builder::new().build_http();
    let nobody = || Credentials::new("local", "local", None, None, "benchmark");
    let region = || Region::new("us-east-1");
    let kinesis = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .retry_config(RetryConfig::standard())
        .http_client(http())
        .credentials_provider(nobody())
        .region(region())
        .endpoint_url(&endpoints.kinesis)
        .build();
    let dynamodb = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .retry_config(RetryConfig::standard())
        .http_client(http())
        .credentials_provider(nobody())
        .region(region())
        .endpoint_url(&endpoints.dynamodb)
        .build();
    Clients {
        kinesis: aws_sdk_kinesis::Client::from_conf(kinesis),
        dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb),
    }
}

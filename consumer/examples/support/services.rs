//! Kinesis and DynamoDB: those that the environment names, or both inside this process with their data in a folder.

use std::net::SocketAddr;
use std::path::Path;

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_types::retry::RetryConfig;
use flowshift_kinesis_emulator::{Emulator, EmulatorConfig};
use tokio::net::TcpListener;

use super::Failure;

/// Clients, and the services behind them when they are ours.
pub(crate) struct Services {
    pub(crate) kinesis: aws_sdk_kinesis::Client,
    pub(crate) dynamodb: aws_sdk_dynamodb::Client,
    emulator: Option<Emulator>,
}

impl Services {
    /// KINESIS_ENDPOINT and DYNAMODB_ENDPOINT, or services inside this process with their data in `folder`.
    pub(crate) async fn start(folder: Option<String>) -> Result<Self, Failure> {
        let endpoint = |name| std::env::var(name).ok();
        if let (Some(kinesis), Some(dynamodb)) = (endpoint("KINESIS_ENDPOINT"), endpoint("DYNAMODB_ENDPOINT")) {
            return Ok(Self::connect(&kinesis, &dynamodb, None));
        }
        let folder = folder.ok_or("give a data folder, or set KINESIS_ENDPOINT and DYNAMODB_ENDPOINT")?;
        let folder = Path::new(&folder);
        std::fs::create_dir_all(folder)?;
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = EmulatorConfig { data_dir: Some(folder.join("kinesis")), ..EmulatorConfig::default() };
        let emulator = Emulator::start(config, loopback).await?;
        let file = folder.join("dynamodb.sqlite");
        let database = dynoxide::Database::new(&file.to_string_lossy())?;
        let listener = TcpListener::bind(loopback).await?;
        let dynamodb = format!("http://{}", listener.local_addr()?);
        tokio::spawn(dynoxide::server::serve_with_shutdown(listener, database, std::future::pending()));
        Ok(Self::connect(&emulator.endpoint_url(), &dynamodb, Some(emulator)))
    }

    fn connect(kinesis: &str, dynamodb: &str, emulator: Option<Emulator>) -> Self {
        let http = || aws_smithy_http_client::Builder::new().build_http();
        let nobody = || Credentials::new("local", "local", None, None, "word_count");
        let region = || Region::new("us-east-1");
        let kinesis = aws_sdk_kinesis::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .retry_config(RetryConfig::standard())
            .http_client(http())
            .credentials_provider(nobody())
            .region(region())
            .endpoint_url(kinesis)
            .build();
        let dynamodb = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .retry_config(RetryConfig::standard())
            .http_client(http())
            .credentials_provider(nobody())
            .region(region())
            .endpoint_url(dynamodb)
            .build();
        Self {
            kinesis: aws_sdk_kinesis::Client::from_conf(kinesis),
            dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb),
            emulator,
        }
    }

    /// Whether the services are ours, so that no other worker can be at work.
    pub(crate) fn embedded(&self) -> bool {
        self.emulator.is_some()
    }

    /// Makes the stream with two shards unless it exists.
    pub(crate) async fn create_stream(&self, name: &str) -> Result<(), Failure> {
        match self.kinesis.create_stream().stream_name(name).shard_count(2).send().await {
            Ok(_) => Ok(()),
            Err(e) if e.as_service_error().is_some_and(|e| e.is_resource_in_use_exception()) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

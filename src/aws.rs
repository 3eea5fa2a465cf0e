//! SDK clients: one HTTP client, one TLS stack, endpoints by configuration.
//!
//! The embedded services are reached through the same clients by an endpoint override: the code path is that of AWS.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider, timeout::TimeoutConfig};
use aws_sdk_kinesis::config::ProvideCredentials;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use flowshift_consumer::aws::CountCalls;
use flowshift_consumer::metrics::EngineMetrics;

use crate::config::AwsSettings;

/// A request that has no answer by then is tried again; longer than any healthy answer, shorter than a lease.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);

/// The clients of a job.
#[derive(Debug, Clone)]
pub struct Clients {
    /// Streams.
    pub kinesis: aws_sdk_kinesis::Client,
    /// Tables.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// Tables again, for the thread of the lease renewals: a client that shares neither connections nor credentials with
    /// the others, since both are looked after by the runtime that happened to ask first.
    pub renewals: aws_sdk_dynamodb::Client,
}

/// Where the embedded services listen.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Endpoints {
    /// URL of the Kinesis emulator.
    pub kinesis: String,
    /// URL of the embedded DynamoDB.
    pub dynamodb: String,
}

/// AWS cannot be called at all, and no waiting helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Nothing names a region.
    #[error(
        "no region: set AWS_REGION, aws.region in the settings, or a region in the AWS profile (AWS_PROFILE, aws.profile)"
    )]
    NoRegion,
    /// No provider has credentials.
    #[error(
        "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (aws.profile); in a pod give \
         its service account a role (IRSA or EKS Pod Identity, see k8s/README.md); `flowshift doctor` says what was \
         looked at"
    )]
    NoCredentials,
    /// A provider is set up wrong.
    #[error("AWS credentials cannot be used: {0}; `flowshift doctor` says what was looked at")]
    Credentials(String),
}

impl Clients {
    /// Clients for AWS, or for the endpoints the settings name.
    ///
    /// # Errors
    /// There is no region, or there are no credentials anywhere. A provider that is only out of reach now is none: its
    /// clients ask again.
    pub async fn connect(settings: &AwsSettings) -> Result<Self, Unusable> {
        let shared = load(settings).await;
        usable(&shared).await?;
        Ok(Self::of(&shared, &load(settings).await, settings))
    }

    /// Clients of a loaded SDK configuration, and of another one for the renewals' thread.
    pub(crate) fn of(shared: &SdkConfig, renewals: &SdkConfig, settings: &AwsSettings) -> Self {
        let mut kinesis = aws_sdk_kinesis::config::Builder::from(shared);
        if let Some(url) = &settings.endpoint_url_kinesis {
            kinesis = kinesis.endpoint_url(url);
        }
        let tables = |shared: &SdkConfig| {
            let mut dynamodb = aws_sdk_dynamodb::config::Builder::from(shared);
            if let Some(url) = &settings.endpoint_url_dynamodb {
                dynamodb = dynamodb.endpoint_url(url);
            }
            aws_sdk_dynamodb::Client::from_conf(dynamodb.build())
        };
        Self {
            kinesis: aws_sdk_kinesis::Client::from_conf(kinesis.build()),
            dynamodb: tables(shared),
            renewals: tables(renewals),
        }
    }

    /// Clients for services inside this process: plain HTTP, no credentials of anyone.
    pub async fn embedded(endpoints: &Endpoints) -> Self {
        let shared = load_embedded().await;
        let kinesis = aws_sdk_kinesis::config::Builder::from(&shared).endpoint_url(&endpoints.kinesis).build();
        let tables = |shared: &SdkConfig| {
            let dynamodb = aws_sdk_dynamodb::config::Builder::from(shared).endpoint_url(&endpoints.dynamodb).build();
            aws_sdk_dynamodb::Client::from_conf(dynamodb)
        };
        Self {
            kinesis: aws_sdk_kinesis::Client::from_conf(kinesis),
            dynamodb: tables(&shared),
            renewals: tables(&load_embedded().await),
        }
    }
}

async fn usable(shared: &SdkConfig) -> Result<(), Unusable> {
    if shared.region().is_none() {
        return Err(Unusable::NoRegion);
    }
    let provider = shared.credentials_provider().ok_or(Unusable::NoCredentials)?;
    match provider.provide_credentials().await {
        Ok(_) => Ok(()),
        Err(CredentialsError::CredentialsNotLoaded(_)) => Err(Unusable::NoCredentials),
        Err(error @ CredentialsError::InvalidConfiguration(_)) => Err(Unusable::Credentials(said(&error))),
        Err(error) => {
            tracing::warn!(error = said(&error), "no credentials yet, they are asked for again with each call");
            Ok(())
        }
    }
}

/// An error with its causes on one line, each said once.
pub(crate) fn said(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text.replace('\n', " ")
}

/// The SDK's configuration: region, credentials, HTTP, by the settings and the SDK's own chain.
pub(crate) async fn load(settings: &AwsSettings) -> SdkConfig {
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http).timeout_config(timeouts());
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &settings.profile {
        loader = loader.profile_name(profile);
    }
    loader.load().await
}

async fn load_embedded() -> SdkConfig {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let nobody = Credentials::new("embedded", "embedded", None, None, "embedded");
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(nobody))
        .load()
        .await
}

impl Clients {
    /// The same clients with every call counted by its outcome.
    #[must_use]
    pub fn counted(&self, metrics: &EngineMetrics) -> Self {
        let count = CountCalls::new(metrics.clone());
        let kinesis = self.kinesis.config().to_builder().interceptor(count.clone());
        let dynamodb = self.dynamodb.config().to_builder().interceptor(count.clone());
        let renewals = self.renewals.config().to_builder().interceptor(count);
        Self {
            kinesis: aws_sdk_kinesis::Client::from_conf(kinesis.build()),
            dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
            renewals: aws_sdk_dynamodb::Client::from_conf(renewals.build()),
        }
    }
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(Duration::from_secs(2)).operation_attempt_timeout(ATTEMPT_TIMEOUT).build()
}

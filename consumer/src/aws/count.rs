//! Counts every call of an SDK client by how it ended, with its time and the SDK's own retries.
//!
//! Not per attempt: a call that was throttled twice and then went through is one `ok` and two retries. A call whose
//! future is dropped before its answer is not counted. Cost: two hooks per call, nothing per record.

use aws_sdk_kinesis::config::interceptors::{BeforeSerializationInterceptorContextRef, FinalizerInterceptorContextRef};
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, Metadata};
use aws_smithy_runtime_api::client::retries::RequestAttempts;
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use tokio::time::Instant;

use super::Outcome;
use crate::metrics::EngineMetrics;

/// An interceptor for the configuration of any AWS SDK client.
///
/// ```no_run
/// # fn counted(config: &aws_sdk_kinesis::Config, metrics: flowshift_consumer::metrics::EngineMetrics) -> aws_sdk_kinesis::Client {
/// use flowshift_consumer::aws::CountCalls;
///
/// aws_sdk_kinesis::Client::from_conf(config.to_builder().interceptor(CountCalls::new(metrics)).build())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct CountCalls {
    metrics: EngineMetrics,
}

impl CountCalls {
    /// Counts into `metrics`.
    pub fn new(metrics: EngineMetrics) -> Self {
        Self { metrics }
    }
}

/// When a call began.
#[derive(Debug)]
struct Began(Instant);

impl Storable for Began {
    type Storer = StoreReplace<Self>;
}

impl Intercept for CountCalls {
    fn name(&self) -> &'static str {
        "CountCalls"
    }

    fn read_before_execution(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        config.interceptor_state().store_put(Began(Instant::now()));
        Ok(())
    }

    fn read_after_execution(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let (Some(call), Some(began)) = (config.load::<Metadata>(), config.load::<Began>()) {
            let attempts = config.load::<RequestAttempts>().map_or(1, RequestAttempts::attempts);
            let service = call.service().to_ascii_lowercase();
            self.metrics.call(&service, call.name(), outcome(context), began.0.elapsed(), attempts);
        }
        Ok(())
    }
}

fn outcome(context: &FinalizerInterceptorContextRef<'_>) -> Outcome {
    match context.output_or_error() {
        Some(Ok(_)) => Outcome::Ok,
        Some(Err(error)) if error.is_timeout_error() => Outcome::Timeout,
        Some(Err(error)) if error.as_connector_error().is_some_and(|e| e.is_timeout()) => Outcome::Timeout,
        Some(Err(error)) if error.is_operation_error() => match context.response() {
            Some(response) => {
                let body = response.body().bytes().unwrap_or_default();
                Outcome::of_error(error_code(response, body), Some(response.status().as_u16()))
            }
            None => Outcome::Unavailable,
        },
        _ => Outcome::Unavailable,
    }
}

/// The code of an error answer: in a header, or `__type` in its JSON, there behind a namespace.
fn error_code<'a>(response: &'a HttpResponse, body: &'a [u8]) -> &'a str {
    let header = response.headers().get("x-amzn-errortype");
    let text = header.or_else(|| {
        let (_, rest) = std::str::from_utf8(body).ok()?.split_once("\"__type\"")?;
        rest.split('"').nth(1)
    });
    let code = text.unwrap_or_default();
    let code = code.split(':').next().unwrap_or_default();
    code.rsplit('#').next().unwrap_or_default()
}

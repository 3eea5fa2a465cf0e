//! Why a request is not answered 200, and what the client is told.
//!
//! Each reason has one status and one label, which is also the `error` of the JSON answer: `{"error": reason, "detail": text}`.
//! 4xx except 408 and 429 means: sending the same again cannot help.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flowshift_proto::decode::DecodeError;

use super::SinkError;

/// A reason not to take a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No bytes, no line, no flow.
    #[error("body is empty")]
    Empty,
    /// The body is not what its content type says, or nothing in it can be read.
    #[error("{0}")]
    Malformed(String),
    /// The body as sent is above the limit.
    #[error("body is larger than the limit of {limit} bytes")]
    BodyTooLarge {
        /// Bytes.
        limit: usize,
    },
    /// The decompressed body is above the limit.
    #[error("decompressed body is larger than the limit of {limit} bytes")]
    DecodedTooLarge {
        /// Bytes.
        limit: usize,
    },
    /// A piece that cannot be split is above what one Kinesis record holds.
    #[error("{what} of {bytes} bytes does not fit into a record of {limit} bytes")]
    RecordTooLarge {
        /// What it is.
        what: &'static str,
        /// Its bytes.
        bytes: usize,
        /// Bytes.
        limit: usize,
    },
    /// The content type is not one of the route's.
    #[error("content type {0:?} is not supported here")]
    UnsupportedType(String),
    /// The content encoding is not gzip or identity.
    #[error("content encoding {0:?} is not supported, send gzip or identity")]
    UnsupportedEncoding(String),
    /// The body did not arrive in time.
    #[error("body did not arrive within {seconds} s")]
    BodyTimeout {
        /// The limit.
        seconds: u64,
    },
    /// The client went away while sending.
    #[error("client went away while sending the body")]
    ClientGone,
    /// No such path.
    #[error("no such path")]
    NotFound,
    /// The path exists, the method does not.
    #[error("only POST is possible here")]
    Method,
    /// Too many bodies are being worked on.
    #[error("too many bodies at once")]
    Overloaded,
    /// Kinesis takes less than comes in.
    #[error("kinesis takes no more now")]
    Throttled {
        /// When to come again.
        retry_after: Duration,
    },
    /// Kinesis cannot be reached or refuses.
    #[error("kinesis is not available")]
    Unavailable,
    /// The collector is closing.
    #[error("collector is closing")]
    Draining,
    /// A task of the collector failed.
    #[error("internal error")]
    Internal,
}

impl Refusal {
    /// The reason: metric label (one of `metrics::collect::OUTCOMES`) and `error` of the answer.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Malformed(_) => "malformed",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::DecodedTooLarge { .. } => "decoded_too_large",
            Self::RecordTooLarge { .. } => "record_too_large",
            Self::UnsupportedType(_) => "unsupported_type",
            Self::UnsupportedEncoding(_) => "unsupported_encoding",
            Self::BodyTimeout { .. } => "body_timeout",
            Self::ClientGone => "client_gone",
            Self::NotFound => "not_found",
            Self::Method => "method",
            Self::Overloaded => "overloaded",
            Self::Throttled { .. } => "throttled",
            Self::Unavailable => "unavailable",
            Self::Draining => "draining",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Empty | Self::Malformed(_) | Self::ClientGone => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge { .. } | Self::DecodedTooLarge { .. } | Self::RecordTooLarge { .. } => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::UnsupportedType(_) | Self::UnsupportedEncoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTimeout { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Overloaded | Self::Throttled { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// `Retry-After` in whole seconds, for 429 and 503.
    fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::Throttled { retry_after } => {
                let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
                Some(seconds.max(1))
            }
            Self::Overloaded => Some(1),
            Self::Unavailable | Self::Draining => Some(5),
            _ => None,
        }
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Empty => Self::Empty,
            other => Self::Malformed(other.to_string()),
        }
    }
}

impl From<SinkError> for Refusal {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Throttled { retry_after } => Self::Throttled { retry_after },
            // What AWS said goes to the log, not to clients.
            SinkError::Unavailable { .. } => Self::Unavailable,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.reason(), "detail": self.to_string() }).to_string();
        let mut response = (self.status(), [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if let Some(seconds) = self.retry_after_seconds() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self == Self::Method {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::collect::OUTCOMES;

    #[test]
    fn the_reasons_are_the_outcomes_that_metrics_show() {
        let (text, limit, bytes) = (String::new(), 0, 0);
        let refusals = [
            Refusal::BodyTimeout { seconds: 0 },
            Refusal::BodyTooLarge { limit },
            Refusal::ClientGone,
            Refusal::DecodedTooLarge { limit },
            Refusal::Draining,
            Refusal::Empty,
            Refusal::Internal,
            Refusal::Malformed(text.clone()),
            Refusal::Method,
            Refusal::NotFound,
            Refusal::Overloaded,
            Refusal::RecordTooLarge { what: "line", bytes, limit },
            Refusal::Throttled { retry_after: Duration::ZERO },
            Refusal::Unavailable,
            Refusal::UnsupportedEncoding(text.clone()),
            Refusal::UnsupportedType(text),
        ];
        let reasons = refusals.iter().map(Refusal::reason);
        assert!(std::iter::once("accepted").chain(reasons).eq(OUTCOMES));
        for refusal in refusals {
            let retry = matches!(refusal.status().as_u16(), 429 | 503);
            assert_eq!(refusal.retry_after_seconds().is_some(), retry, "{refusal:?}");
        }
    }
}

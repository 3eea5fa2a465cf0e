//! One attempt: the signed request, and what an answer means.
//!
//! 2xx is success and 410 the receiver's word that it wants nothing more; everything else, redirects included, is a failure
//! that is tried again.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP};

use super::format::{Context, Rendered, render, render_again};
use super::key::Key;
use super::{Delivery, Endpoint, Reply, Request, TransportError};

/// How one request to a receiver ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Attempt {
    /// 2xx.
    #[error("accepted with status {0}")]
    Accepted(u16),
    /// 429, 502, 503 or 504: too much or not now.
    #[error("throttled with status {status}")]
    Throttled {
        /// HTTP status.
        status: u16,
        /// The receiver's wish.
        retry_after: Option<Duration>,
    },
    /// Any other status that is no success.
    #[error("refused with status {status}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The receiver's wish.
        retry_after: Option<Duration>,
    },
    /// 410: the receiver wants nothing more, ever.
    #[error("gone (status 410)")]
    Gone,
    /// 3xx: not followed, because a redirect can lead anywhere.
    #[error("redirected with status {0}, which is not followed")]
    Redirect(u16),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// No connection, a reset, or a forbidden address.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The id or the body cannot be put into a request; trying again cannot help.
    #[error("unsendable: {0}")]
    Unsendable(String),
}

impl Attempt {
    /// Reads an answer.
    #[must_use]
    pub fn of(result: Result<Reply, TransportError>) -> Self {
        match result {
            Ok(Reply { status, retry_after }) => match status {
                200..=299 => Self::Accepted(status),
                300..=399 => Self::Redirect(status),
                410 => Self::Gone,
                429 | 502..=504 => Self::Throttled { status, retry_after },
                _ => Self::Refused { status, retry_after },
            },
            Err(TransportError::Timeout) => Self::Timeout,
            Err(error) => Self::Unreachable(error.to_string()),
        }
    }

    /// The metric label, one of `metrics::webhook::ATTEMPTS`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "ok",
            Self::Throttled { .. } => "throttled",
            Self::Refused { .. } => "refused",
            Self::Gone => "gone",
            Self::Redirect(_) => "redirect",
            Self::Timeout => "timeout",
            Self::Unreachable(_) => "unreachable",
            Self::Unsendable(_) => "unsendable",
        }
    }

    /// The receiver's wish for a pause, if it has one.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after, .. } | Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// What an endpoint knows of an entry's incident already.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// Nothing of this opening.
    pub(super) first: bool,
    /// The entry it was given last, where the format needs it.
    pub(super) before: Option<Arc<Delivery>>,
}

/// The request for an entry, or why there can be none.
pub(super) async fn request(
    endpoint: &Endpoint,
    delivery: &Delivery,
    known: &Known,
    now_ms: i64,
) -> Result<Request, Attempt> {
    let key = endpoint.keys.current(endpoint.name()).await;
    let before = known.before.as_deref().and_then(|before| before.event.as_deref());
    let context = Context { first: known.first, before, ..context(endpoint, &key, now_ms) };
    let rendered = render(endpoint.format(), delivery, &context).map_err(|why| Attempt::Unsendable(why.to_string()))?;
    let mut headers = HeaderMap::new();
    let id = HeaderValue::from_str(&delivery.id).map_err(|_| unsendable("id is not visible ASCII"))?;
    headers.insert(HEADER_WEBHOOK_ID, id);
    if let Key::Signing(secrets) = &*key {
        let timestamp = now_ms.div_euclid(1_000);
        let signature = secrets.sign(&delivery.id, timestamp, &rendered.body);
        let signature = signature.map_err(|_| unsendable("body is not UTF-8"))?;
        let signature = HeaderValue::from_str(&signature).map_err(|_| unsendable("signature is not visible ASCII"))?;
        headers.insert(HEADER_WEBHOOK_TIMESTAMP, HeaderValue::from(timestamp));
        headers.insert(HEADER_WEBHOOK_SIGNATURE, signature);
    } else if endpoint.format().is_signed() {
        return Err(unsendable("no signing secret"));
    }
    Ok(addressed(endpoint, &key, rendered, headers))
}

/// The request that tells all these open incidents again.
pub(super) async fn request_again(
    endpoint: &Endpoint,
    open: &[Arc<Delivery>],
    now_ms: i64,
) -> Result<Request, Attempt> {
    let key = endpoint.keys.current(endpoint.name()).await;
    let events: Vec<_> = open.iter().filter_map(|delivery| delivery.event.as_deref()).collect();
    let rendered = render_again(&events, &context(endpoint, &key, now_ms));
    let rendered = rendered.map_err(|why| Attempt::Unsendable(why.to_string()))?;
    Ok(addressed(endpoint, &key, rendered, HeaderMap::new()))
}

fn context<'a>(endpoint: &'a Endpoint, key: &'a Key, now_ms: i64) -> Context<'a> {
    let routing_key = match key {
        Key::Routing(key) => Some(key.as_str()),
        _ => None,
    };
    Context { now_ms, job: &endpoint.job, link: endpoint.link.as_deref(), routing_key, first: false, before: None }
}

fn addressed(endpoint: &Endpoint, key: &Key, rendered: Rendered, mut headers: HeaderMap) -> Request {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(rendered.content_type));
    if let Key::Bearer(token) = key {
        headers.insert(AUTHORIZATION, token.clone());
    }
    let url = key.address().unwrap_or(&endpoint.url);
    Request { url: url.clone(), headers, body: rendered.body, timeout: endpoint.timeout }
}

fn unsendable(what: &str) -> Attempt {
    Attempt::Unsendable(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::webhook::ATTEMPTS;

    #[test]
    fn every_status_means_one_thing() {
        for (status, label) in [
            (200, "ok"),
            (204, "ok"),
            (301, "redirect"),
            (302, "redirect"),
            (400, "refused"),
            (404, "refused"),
            (410, "gone"),
            (429, "throttled"),
            (500, "refused"),
            (502, "throttled"),
            (503, "throttled"),
        ] {
            let attempt = Attempt::of(Ok(Reply { status, retry_after: None }));
            assert_eq!(attempt.label(), label, "{status}");
            assert!(ATTEMPTS.contains(&label));
        }
        assert_eq!(Attempt::of(Err(TransportError::Timeout)), Attempt::Timeout);
        assert!(ATTEMPTS.contains(&Attempt::Unsendable(String::new()).label()));
    }
}

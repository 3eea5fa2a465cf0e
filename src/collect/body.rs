//! Reading a body under limits, throwing one away, and undoing compression under a limit.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use flowshift_proto::decode::{DecodeError, gunzip_limited, is_gzip};
use futures::StreamExt;

use super::{CollectOptions, Refusal};

/// A body that is not taken is read on and thrown away up to this many times the limit, so that the client is still
/// listening when the refusal comes instead of seeing a reset: a connection that is closed over unread bytes is reset, and
/// the answer may be lost with it.
const POLITE: usize = 4;
/// The longest wait for a body that is thrown away from its start.
const POLITE_TIME: Duration = Duration::from_secs(2);

/// The length a client announces, if it does.
pub(super) fn announced_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads the whole body.
///
/// # Errors
/// [`Refusal::BodyTooLarge`], [`Refusal::BodyTimeout`] or [`Refusal::ClientGone`].
pub(super) async fn read(headers: &HeaderMap, body: Body, options: &CollectOptions) -> Result<Bytes, Refusal> {
    let limit = options.max_body_bytes;
    let length = announced_length(headers);
    if is_absurd(length, options) {
        return Err(Refusal::BodyTooLarge { limit });
    }
    let reading = async {
        let mut stream = body.into_data_stream();
        let mut bytes = BytesMut::with_capacity(length.unwrap_or(0).min(limit).min(1 << 20));
        let mut total = 0_usize;
        while let Some(part) = stream.next().await {
            let part = part.map_err(|_| Refusal::ClientGone)?;
            total = total.saturating_add(part.len());
            if total <= limit {
                bytes.extend_from_slice(&part);
            } else if total > limit.saturating_mul(POLITE) {
                break;
            } else {
                bytes = BytesMut::new();
            }
        }
        if total > limit { Err(Refusal::BodyTooLarge { limit }) } else { Ok(bytes.freeze()) }
    };
    let timeout: Duration = options.body_timeout;
    tokio::time::timeout(timeout, reading).await.unwrap_or(Err(Refusal::BodyTimeout { seconds: timeout.as_secs() }))
}

/// Reads the body of a request that is refused whatever its body is, as far as is polite. A client that asks before it
/// sends (`Expect: 100-continue`) has sent nothing.
pub(super) async fn discard(headers: &HeaderMap, body: Body, options: &CollectOptions) {
    if headers.contains_key(header::EXPECT) || is_absurd(announced_length(headers), options) {
        return;
    }
    let reading = async {
        let (mut stream, mut total) = (body.into_data_stream(), 0_usize);
        while let Some(Ok(part)) = stream.next().await {
            total = total.saturating_add(part.len());
            if total > options.max_body_bytes.saturating_mul(POLITE) {
                break;
            }
        }
    };
    // Whether it came in time or not: the refusal is the same.
    drop(tokio::time::timeout(options.body_timeout.min(POLITE_TIME), reading).await);
}

/// Whether a body is announced that is too long to be thrown away.
fn is_absurd(length: Option<usize>, options: &CollectOptions) -> bool {
    length.is_some_and(|length| length > options.max_body_bytes.saturating_mul(POLITE))
}

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
}

impl Encoding {
    /// The encoding a request names.
    ///
    /// # Errors
    /// [`Refusal::UnsupportedEncoding`] for anything but gzip or identity, once.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut named = headers.get_all(header::CONTENT_ENCODING).iter();
        let Some(first) = named.next() else { return Ok(Self::Identity) };
        let text = String::from_utf8_lossy(first.as_bytes()).trim().to_ascii_lowercase();
        match text.as_str() {
            _ if named.next().is_some() => Err(Refusal::UnsupportedEncoding("several".to_owned())),
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            _ => Err(Refusal::UnsupportedEncoding(text.chars().take(40).collect())),
        }
    }
}

/// The body without its compression. A gzip body whose header was forgotten is seen by its first bytes.
///
/// # Errors
/// [`Refusal::Empty`], [`Refusal::DecodedTooLarge`], or [`Refusal::Malformed`] for a broken or cut stream.
pub(super) fn unpack(body: &Bytes, encoding: Encoding, limit: usize) -> Result<Bytes, Refusal> {
    if body.is_empty() {
        return Err(Refusal::Empty);
    }
    if encoding == Encoding::Identity && !is_gzip(body) {
        return if body.len() > limit { Err(Refusal::DecodedTooLarge { limit }) } else { Ok(body.clone()) };
    }
    match gunzip_limited(body, limit) {
        Ok(plain) => Ok(Bytes::from(plain)),
        Err(DecodeError::TooLarge { limit }) => Err(Refusal::DecodedTooLarge { limit }),
        Err(error) => Err(error.into()),
    }
}

/// The media type in lower case without parameters; empty when there is none.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let text = text.as_deref().unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().chars().take(100).collect()
}

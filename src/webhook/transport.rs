//! The HTTP side of a delivery: one POST, no redirects, no proxy, no forbidden address.
//!
//! [`Transport`] is the seam where tests put a fake; [`HttpTransport`] is the real one: reqwest over rustls with ring. Nothing is
//! retried here and no response body is read: the status and `Retry-After` decide.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::RETRY_AFTER;
use bytes::Bytes;
use futures::future::BoxFuture;
use reqwest::dns::Resolve;
use reqwest::{Certificate, Client, Url, redirect};

use super::WallClock;
use super::address::{Forbidden, Guarded, SystemResolver};

/// One POST to make.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where to.
    pub url: Url,
    /// All headers except those HTTP itself needs.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Limit from connecting to the answer's headers.
    pub timeout: Duration,
}

/// What a receiver answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After` as a delay from now.
    pub retry_after: Option<Duration>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The limit passed. The receiver may have taken the request.
    #[error("no answer in time")]
    Timeout,
    /// The address must not be called.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// No connection, a reset, or an answer that is not HTTP.
    #[error("{0}")]
    Unreachable(String),
}

/// The HTTP client cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TransportSetupError {
    /// Of its TLS, mostly.
    #[error("webhook client cannot be set up: {0}")]
    Client(reqwest::Error),
    /// What was given as certificates holds none.
    #[error("webhook client cannot be set up: no certificate in the text")]
    NoCertificate,
}

/// Who may prove a receiver's name.
#[derive(Debug)]
enum Trust {
    /// The system's certificates.
    System,
    /// These alone.
    Only(Vec<Certificate>),
    /// No receiver has TLS.
    Nobody,
}

/// Makes one POST.
pub trait Transport: Send + Sync + fmt::Debug {
    /// Posts and says what came back. Must not retry or follow redirects.
    fn post(&self, request: Request) -> BoxFuture<'_, Result<Reply, TransportError>>;
}

/// The real transport.
#[derive(Debug, Clone)]
pub struct HttpTransport {
    client: Client,
    clock: WallClock,
}

impl HttpTransport {
    /// A client with the system's certificates. Without `needs_tls` none are loaded, so that plain receivers work in an image
    /// that has no certificates.
    ///
    /// # Errors
    /// When TLS is needed and the system has no certificates.
    pub fn new(clock: WallClock, needs_tls: bool) -> Result<Self, TransportSetupError> {
        let trust = if needs_tls { Trust::System } else { Trust::Nobody };
        Self::with_resolver(clock, &trust, Guarded(SystemResolver))
    }

    /// A client for one receiver of its own kind: proved by the certificates in `ca_pem` alone, if given, and allowed to
    /// call link-local addresses, if `allow_link_local`.
    ///
    /// # Errors
    /// The text holds no certificate, or TLS is needed and the system has none.
    pub fn special(
        clock: WallClock,
        needs_tls: bool,
        ca_pem: Option<&[u8]>,
        allow_link_local: bool,
    ) -> Result<Self, TransportSetupError> {
        let trust = match ca_pem {
            Some(pem) => {
                let roots = Certificate::from_pem_bundle(pem).map_err(TransportSetupError::Client)?;
                if roots.is_empty() {
                    return Err(TransportSetupError::NoCertificate);
                }
                Trust::Only(roots)
            }
            None if needs_tls => Trust::System,
            None => Trust::Nobody,
        };
        if allow_link_local {
            Self::with_resolver(clock, &trust, SystemResolver)
        } else {
            Self::with_resolver(clock, &trust, Guarded(SystemResolver))
        }
    }

    fn with_resolver(
        clock: WallClock,
        trust: &Trust,
        resolver: impl Resolve + 'static,
    ) -> Result<Self, TransportSetupError> {
        // Fails when a provider is installed already, which is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut builder = Client::builder()
            .user_agent(concat!("flowshift/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            // A proxy would resolve names itself, past the guard.
            .no_proxy()
            .dns_resolver(resolver);
        builder = match trust {
            Trust::System => builder,
            Trust::Nobody => builder.tls_certs_only([]),
            Trust::Only(roots) => builder.tls_certs_only(roots.iter().cloned()),
        };
        Ok(Self { client: builder.build().map_err(TransportSetupError::Client)?, clock })
    }
}

impl Transport for HttpTransport {
    fn post(&self, request: Request) -> BoxFuture<'_, Result<Reply, TransportError>> {
        let sending =
            self.client.post(request.url).headers(request.headers).timeout(request.timeout).body(request.body).send();
        Box::pin(async move {
            let response = sending.await.map_err(failure)?;
            let retry_after = response
                .headers()
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok())
                .and_then(|text| parse_retry_after(text, self.clock.now_ms()));
            Ok(Reply { status: response.status().as_u16(), retry_after })
        })
    }
}

fn failure(error: reqwest::Error) -> TransportError {
    if error.is_timeout() {
        return TransportError::Timeout;
    }
    // The URL may hold a token.
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(forbidden) = cause.downcast_ref::<Forbidden>() {
            return TransportError::Forbidden(forbidden.clone());
        }
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    TransportError::Unreachable(text)
}

/// Seconds or an HTTP date; a date that has passed is no delay.
fn parse_retry_after(text: &str, now_ms: i64) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let now = std::time::UNIX_EPOCH + Duration::from_millis(u64::try_from(now_ms).unwrap_or(0));
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use reqwest::dns::{Addrs, Name, Resolving};

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now_ms = 1_445_412_000_000; // Wed, 21 Oct 2015 07:20:00 GMT
        for (text, expected) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(480)),
            ("Wed, 21 Oct 2015 07:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
        ] {
            assert_eq!(parse_retry_after(text, now_ms), expected.map(Duration::from_secs), "{text}");
        }
    }

    /// Answers every name with one address.
    struct Fixed(SocketAddr);

    impl Resolve for Fixed {
        fn resolve(&self, _name: Name) -> Resolving {
            let address = self.0;
            Box::pin(async move { Ok(Box::new(std::iter::once(address)) as Addrs) })
        }
    }

    async fn post_to(name: &str, address: &str) -> Result<Reply, TransportError> {
        let resolver = Fixed(address.parse().unwrap());
        let transport = HttpTransport::with_resolver(WallClock::system(), &Trust::Nobody, Guarded(resolver)).unwrap();
        let url = Url::parse(&format!("http://{name}/")).unwrap();
        let timeout = Duration::from_secs(5);
        transport.post(Request { url, headers: HeaderMap::new(), body: Bytes::new(), timeout }).await
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_the_metadata_service_is_not_called() {
        let forbidden = Forbidden("169.254.169.254".parse().unwrap());
        assert_eq!(post_to("innocent.test", "169.254.169.254:0").await, Err(TransportError::Forbidden(forbidden)));
    }

    /// The unspecified address is forbidden like a link-local one, and nobody can be harmed by calling it.
    #[tokio::test]
    async fn a_forbidden_address_is_called_only_where_it_is_allowed() {
        let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let url = Url::parse(&format!("http://receiver.test:{port}/")).unwrap();
        let request = Request { url, headers: HeaderMap::new(), body: Bytes::new(), timeout: Duration::from_secs(5) };
        let resolver = Fixed("0.0.0.0:0".parse().unwrap());
        let allowed = HttpTransport::with_resolver(WallClock::system(), &Trust::Nobody, resolver).unwrap();
        let result = allowed.post(request).await;
        assert!(matches!(&result, Err(TransportError::Unreachable(why)) if why.contains("refused")), "{result:?}");
    }

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        for text in [&b""[..], b"certificate"] {
            let made = HttpTransport::special(WallClock::system(), true, Some(text), false);
            assert!(matches!(made, Err(TransportSetupError::NoCertificate)), "{made:?}");
        }
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_loopback_is_called_and_a_closed_port_is_unreachable() {
        let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let result = post_to(&format!("receiver.test:{port}"), "127.0.0.1:0").await;
        assert!(matches!(&result, Err(TransportError::Unreachable(why)) if why.contains("refused")), "{result:?}");
    }
}

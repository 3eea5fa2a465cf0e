//! One receiver: where, signed with what, how patiently.
//!
//! Checked once at start: a URL that can never be called is refused here and not at the first incident. `Debug` and logs show
//! the configured name and the host, never path or query, which hold tokens with some receivers.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;

use super::address::{Forbidden, is_forbidden};
use super::filter::Filter;
use super::{Format, KeyStore, Schedule, Transport, UrlDigest};

/// Why an endpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The name is empty, longer than 64 bytes, or not of letters, digits, `-`, `_`, `.`.
    #[error("webhook name {0:?} must be 1 to 64 letters, digits, '-', '_' or '.'")]
    Name(String),
    /// The URL cannot be read; the text is left out because it may hold a token.
    #[error("url of webhook {name} is not valid: {why}")]
    Url {
        /// The endpoint's name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A duration of zero.
    #[error("{setting} of webhook {name} is zero")]
    Zero {
        /// The endpoint's name.
        name: String,
        /// The setting.
        setting: &'static str,
    },
    /// Two endpoints share a name.
    #[error("two webhooks are named {0}")]
    Twice(String),
}

/// A receiver of deliveries.
pub struct Endpoint {
    pub(super) name: String,
    pub(super) url: Url,
    pub(super) keys: KeyStore,
    pub(super) timeout: Duration,
    pub(super) max_age: Duration,
    pub(super) schedule: Schedule,
    pub(super) concurrency: usize,
    pub(super) muted: bool,
    pub(super) filter: Filter,
    pub(super) min_interval: Duration,
    pub(super) job: String,
    pub(super) link: Option<String>,
    /// Instead of the one that all share.
    pub(super) own: Option<Arc<dyn Transport>>,
}

/// A URL that may be posted to: absolute, http or https, without user name and password, not a forbidden address.
///
/// # Errors
/// What is wrong, without the URL: it may hold a token.
pub(super) fn usable_url(text: &str) -> Result<Url, String> {
    let url = postable_url(text)?;
    match address_of(&url).filter(|address| is_forbidden(*address)) {
        Some(address) => Err(Forbidden(address).to_string()),
        None => Ok(url),
    }
}

/// The address that stands in place of a name.
fn address_of(url: &Url) -> Option<IpAddr> {
    url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse().ok())
}

fn postable_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("scheme is not http or https".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("user name or password in it".to_owned());
    }
    if url.host_str().is_none() {
        return Err("no host".to_owned());
    }
    Ok(url)
}

impl Endpoint {
    /// An endpoint with the default patience: request timeout 5 s, entries kept 24 h, [`Schedule::default`], at most 4
    /// requests at once (one per incident).
    ///
    /// # Errors
    /// When the name cannot be a metric label, the URL is not http(s) with a host, holds a password, or points to a forbidden
    /// address.
    pub fn new(name: &str, url: &str, keys: impl Into<KeyStore>) -> Result<Self, EndpointError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
            return Err(EndpointError::Name(name.to_owned()));
        }
        let url = usable_url(url).map_err(|why| EndpointError::Url { name: name.to_owned(), why })?;
        Ok(Self::at(name, url, keys.into()))
    }

    /// An endpoint that may be link-local, reached by a transport of its own.
    ///
    /// # Errors
    /// As [`Endpoint::new`], except for the address.
    pub fn special(
        name: &str,
        url: &str,
        keys: impl Into<KeyStore>,
        allow_link_local: bool,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, EndpointError> {
        // All but the address is checked as ever.
        let mut endpoint = Self::new(name, "http://localhost/", keys)?;
        let url = if allow_link_local { postable_url(url) } else { usable_url(url) };
        endpoint.url = url.map_err(|why| EndpointError::Url { name: name.to_owned(), why })?;
        endpoint.own = Some(transport);
        Ok(endpoint)
    }

    fn at(name: &str, url: Url, keys: KeyStore) -> Self {
        Self {
            name: name.to_owned(),
            url,
            keys,
            timeout: Duration::from_secs(5),
            max_age: Duration::from_secs(24 * 3_600),
            schedule: Schedule::default(),
            concurrency: 4,
            muted: false,
            filter: Filter::default(),
            min_interval: Duration::ZERO,
            job: "flowshift".to_owned(),
            link: None,
            own: None,
        }
    }

    /// Sets the limit of one request, connecting included. It must stay below failover − renewal − 1 s of the engine, which
    /// the configuration checks.
    ///
    /// # Errors
    /// When it is zero.
    pub fn with_timeout(mut self, timeout: Duration) -> Result<Self, EndpointError> {
        self.refuse_zero(timeout, "timeout")?;
        self.timeout = timeout;
        Ok(self)
    }

    /// Sets how old an entry may get before it is dropped.
    ///
    /// # Errors
    /// When it is zero.
    pub fn with_max_age(mut self, max_age: Duration) -> Result<Self, EndpointError> {
        self.refuse_zero(max_age, "max_age")?;
        self.max_age = max_age;
        Ok(self)
    }

    /// Sets when failed deliveries are tried again.
    #[must_use]
    pub fn with_schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// Sets whether it wants events of muted incidents, too; by default it does not.
    #[must_use]
    pub fn with_muted(mut self, muted: bool) -> Self {
        self.muted = muted;
        self
    }

    /// Sets which incidents it is told of; by default all.
    #[must_use]
    pub fn with_filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// Sets the shortest time between the starts of two requests; by default there is none.
    #[must_use]
    pub fn with_min_interval(mut self, min_interval: Duration) -> Self {
        self.min_interval = min_interval;
        self
    }

    /// Sets the job's name and the page about an incident (`{incident}` stands for its id) that formats may show.
    #[must_use]
    pub fn with_origin(mut self, job: &str, link: Option<String>) -> Self {
        job.clone_into(&mut self.job);
        self.link = link;
        self
    }

    /// The form of its bodies.
    #[must_use]
    pub fn format(&self) -> Format {
        self.keys.format()
    }

    /// The configured name: metric label and log field.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Of the URL it would be reached by now, as far as the last look at its secret tells.
    pub(super) fn url_digest(&self) -> UrlDigest {
        UrlDigest::of(self.keys.known().address().unwrap_or(&self.url))
    }

    /// Of the URL it would be reached by now: a secret that is an address may be another since.
    pub(super) async fn present_url_digest(&self) -> UrlDigest {
        UrlDigest::of(self.keys.current(&self.name).await.address().unwrap_or(&self.url))
    }

    fn refuse_zero(&self, value: Duration, setting: &'static str) -> Result<(), EndpointError> {
        if value.is_zero() {
            return Err(EndpointError::Zero { name: self.name.clone(), setting });
        }
        Ok(())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("name", &self.name)
            .field("host", &self.url.host_str())
            .field("keys", &self.keys)
            .field("timeout", &self.timeout)
            .field("max_age", &self.max_age)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::Secrets;

    fn secrets() -> Secrets {
        Secrets::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap()
    }

    #[test]
    fn urls_that_must_not_be_called_are_refused_at_start() {
        for (url, expected) in [
            ("http://169.254.169.254/latest", "address 169.254.169.254"),
            ("http://2852039166/", "address 169.254.169.254"),
            ("http://0xa9fea9fe/", "address 169.254.169.254"),
            ("http://[fd00:ec2::254]/", "address fd00:ec2::254"),
            ("http://[::ffff:a9fe:a9fe]/", "link-local"),
            ("ftp://example.test/", "scheme is not http or https"),
            ("http://user:token@example.test/", "user name or password"),
            ("not a url", "is not valid"),
        ] {
            let error = Endpoint::new("ops", url, secrets()).unwrap_err().to_string();
            assert!(error.contains(expected), "{url}: {error}");
            assert!(!error.contains("token"), "{error}");
        }
        assert!(Endpoint::new("ops", "http://127.0.0.1:1/hook", secrets()).is_ok());
    }

    #[test]
    fn a_name_that_is_no_label_is_refused() {
        for name in ["", "a b", "ä", &"x".repeat(65)] {
            assert!(matches!(Endpoint::new(name, "http://a.test/", secrets()), Err(EndpointError::Name(_))), "{name}");
        }
    }

    #[test]
    fn debug_output_shows_the_host_but_neither_path_nor_secret() {
        let endpoint = Endpoint::new("ops", "https://hooks.test/services/T0KEN?key=K3Y", secrets()).unwrap();
        let text = format!("{endpoint:?}");
        assert!(text.contains("hooks.test") && !text.contains("T0KEN") && !text.contains("K3Y"), "{text}");
        assert!(!text.contains("C2FV"), "{text}");
    }
}

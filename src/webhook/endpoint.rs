//! One receiver: where, signed with what, how patiently.
//!
//! Checked once at start: a URL that can never be called is refused here and not at the first incident. `Debug` and logs show
//! the configured name and the host, never path or query, which hold tokens with some receivers.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use reqwest::Url;

use super::address::{Forbidden, is_forbidden};
use super::{Schedule, Secrets};

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
    /// The URL's address must not be called.
    #[error("url of webhook {name}: {source}")]
    Address {
        /// The endpoint's name.
        name: String,
        /// The address.
        source: Forbidden,
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
    pub(super) secrets: Secrets,
    pub(super) timeout: Duration,
    pub(super) max_age: Duration,
    pub(super) schedule: Schedule,
    pub(super) concurrency: usize,
    pub(super) muted: bool,
}

impl Endpoint {
    /// An endpoint with the default patience: request timeout 5 s, entries kept 24 h, [`Schedule::default`], at most 4
    /// requests at once (one per incident).
    ///
    /// # Errors
    /// When the name cannot be a metric label, the URL is not http(s) with a host, holds a password, or points to a forbidden
    /// address.
    pub fn new(name: &str, url: &str, secrets: Secrets) -> Result<Self, EndpointError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
            return Err(EndpointError::Name(name.to_owned()));
        }
        let bad = |why: &str| EndpointError::Url { name: name.to_owned(), why: why.to_owned() };
        let url = Url::parse(url).map_err(|error| bad(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("scheme is not http or https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("user name or password in it"));
        }
        let host = url.host_str().ok_or_else(|| bad("no host"))?;
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>()
            && is_forbidden(address)
        {
            return Err(EndpointError::Address { name: name.to_owned(), source: Forbidden(address) });
        }
        Ok(Self {
            name: name.to_owned(),
            url,
            secrets,
            timeout: Duration::from_secs(5),
            max_age: Duration::from_secs(24 * 3_600),
            schedule: Schedule::default(),
            concurrency: 4,
            muted: false,
        })
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

    /// The configured name: metric label and log field.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
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
            .field("secrets", &self.secrets)
            .field("timeout", &self.timeout)
            .field("max_age", &self.max_age)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

//! One checked receiver of incidents.
//!
//! Invariant: the URL is absolute, `http` or `https`, has a host and carries no user name or password; the secret is
//! named, never held.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::checked::name_is_valid;
use super::layer::Origins;
use super::{Problem, WebhookSettings};

/// Where the signing secret is read from when it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file, trailing white space ignored.
    File(PathBuf),
    /// An environment variable.
    Env(String),
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// A checked receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Unique name in metrics and logs.
    pub name: String,
    /// Where to POST.
    pub url: Url,
    /// The signing secret's place.
    pub secret: SecretSource,
    /// Longest time of one request.
    pub timeout: Duration,
    /// Age at which a delivery is given up.
    pub max_age: Duration,
    /// Whether events of muted incidents are posted, too.
    pub muted: bool,
}

impl Webhook {
    /// Checks element `index` of the list; `longest` is the longest timeout the lease times allow.
    pub(super) fn check(
        index: usize,
        raw: &WebhookSettings,
        longest: Duration,
        origins: &Origins,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let before = problems.len();
        let mut fail = |field: &str, what: String, fix: &str| {
            let key = format!("webhooks.{index}.{field}");
            let origin = origins.of(&key);
            problems.push(Problem::new(key, origin, what, fix));
        };
        let name = raw.name.clone().unwrap_or_else(|| format!("webhook-{}", index + 1));
        if !name_is_valid(&name) {
            fail("name", format!("`{name}` is not a name"), "use 1 to 64 letters, digits, `_`, `.` or `-`");
        }
        let url = Url::parse(&raw.url).ok();
        match &url {
            Some(url) if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() => {
                fail(
                    "url",
                    format!("`{}` cannot be posted to", masked_url(&raw.url)),
                    "use an http:// or https:// URL",
                );
            }
            Some(url) if !url.username().is_empty() || url.password().is_some() => {
                // The value is not repeated here: it holds a password.
                fail("url", "carries a user name or password".into(), "leave them out; deliveries are signed instead");
            }
            Some(_) => {}
            None if raw.url.is_empty() => fail("url", "is missing".into(), "give the http:// or https:// URL"),
            None => {
                fail("url", format!("`{}` is no URL", masked_path(&raw.url)), "use an absolute http:// or https:// URL")
            }
        }
        let secret = match (&raw.secret_file, &raw.secret_env) {
            (Some(file), None) => Some(SecretSource::File(file.clone())),
            (None, Some(variable)) => Some(SecretSource::Env(variable.clone())),
            (Some(_), Some(_)) => {
                fail("secret_env", "is set beside `secret_file`".into(), "keep one of the two");
                None
            }
            (None, None) => {
                fail("secret_file", "no signing secret".into(), "set `secret_file` or `secret_env`");
                None
            }
        };
        let timeout = raw.timeout.get();
        if timeout.is_zero() || timeout > longest {
            let what = format!("`{}` is not above 0 and at most {longest:?}", raw.timeout);
            fail("timeout", what, "a delivery must end before the lease can pass on: failover - renewal - 1 s");
        }
        if raw.max_age.get() < timeout {
            fail("max_age", format!("`{}` is below `timeout`", raw.max_age), "use hours, such as \"24h\"");
        }
        let checked = Self { name, url: url?, secret: secret?, timeout, max_age: raw.max_age.get(), muted: raw.muted };
        (problems.len() == before).then_some(checked)
    }
}

/// The URL for `config show`: query values and long path parts are often credentials and become `***`.
pub(super) fn masked_url(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else { return masked_path(text) };
    if url.cannot_be_a_base() {
        return "***".to_owned();
    }
    let path = masked_path(url.path());
    url.set_path(&path);
    if url.query().is_some() {
        url.set_query(Some("***"));
    }
    url.set_fragment(None);
    let credentials_gone = url.set_username("").and_then(|()| url.set_password(None));
    if credentials_gone.is_err() { "***".to_owned() } else { url.to_string() }
}

/// Parts of a path that are long enough for a token become `***`.
fn masked_path(path: &str) -> String {
    const TOKEN_FROM: usize = 16;
    let part = |part| if str::len(part) >= TOKEN_FROM { "***" } else { part };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

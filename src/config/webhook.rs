//! One checked receiver of incidents.
//!
//! Invariant: the URL is absolute, `http` or `https`, has a host and carries no user name or password; the secret is
//! named, never held, and stands where the format needs one.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::checked::name_is_valid;
use super::layer::Origins;
use super::{Problem, Span, WebhookSettings};
use crate::webhook::{Filter, Format, Schedule, SubnetWish};

/// Where the secret is read from when it is needed.
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
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Unique name in metrics and logs.
    pub name: String,
    /// Name of the job that tells.
    pub job: String,
    /// Form of the bodies.
    pub format: Format,
    /// Where to POST. With [`Format::Slack`] and a secret it stands for the one in the secret.
    pub url: Url,
    /// The secret's place, where the format needs or allows one.
    pub secret: Option<SecretSource>,
    /// Longest time of one request.
    pub timeout: Duration,
    /// Age at which a delivery is given up.
    pub max_age: Duration,
    /// Whether events of muted incidents are posted, too.
    pub muted: bool,
    /// Which incidents are told.
    pub filter: Filter,
    /// A page about an incident; `{incident}` stands for its id.
    pub link: Option<String>,
    /// Shortest time between two requests.
    pub min_interval: Duration,
    /// When what failed is tried again.
    pub retry: Schedule,
    /// Certificates that prove the receiver, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether it may be at a link-local address.
    pub allow_link_local: bool,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("name", &self.name)
            .field("format", &self.format)
            .field("url", &masked_url(self.url.as_str()))
            .field("secret", &self.secret)
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}

/// What to do about a secret that lacks.
const SECRET: &str = "set `secret_file` (flag --webhook-secret-file) or `secret_env`";
/// Where PagerDuty takes events.
const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";
/// Stands for the address in a secret.
const SLACK: &str = "https://hooks.slack.com/";
/// What Slack asks senders to keep to.
const SLACK_INTERVAL: Duration = Duration::from_secs(1);

impl Webhook {
    /// Checks element `index` of the list; `longest` is the longest timeout the lease times allow.
    pub(super) fn check(
        index: usize,
        job: &str,
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
        let named = raw.secret_file.is_some() || raw.secret_env.is_some();
        let text = match raw.format {
            Format::PagerDuty if raw.url.is_empty() => PAGERDUTY,
            Format::Slack if raw.url.is_empty() && named => SLACK,
            _ => raw.url.as_str(),
        };
        let url = Url::parse(text).ok();
        match &url {
            Some(url) if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() => {
                fail("url", format!("`{}` cannot be posted to", masked_url(text)), "use an http:// or https:// URL");
            }
            Some(url) if !url.username().is_empty() || url.password().is_some() => {
                // The value is not repeated here: it holds a password.
                fail("url", "carries a user name or password".into(), "leave them out; deliveries are signed instead");
            }
            Some(_) if raw.format == Format::Slack && named && !raw.url.is_empty() => {
                fail("url", "is set beside a secret that holds it".into(), "keep one of the two");
            }
            Some(_) => {}
            None if text.is_empty() => fail("url", "is missing".into(), "give the http:// or https:// URL"),
            None => {
                fail("url", format!("`{}` is no URL", masked_path(text)), "use an absolute http:// or https:// URL")
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
                match raw.format {
                    Format::Standard | Format::CloudEvents => {
                        fail("secret_file", "no signing secret".into(), SECRET);
                    }
                    Format::PagerDuty => {
                        fail("secret_file", "no routing key".into(), SECRET);
                    }
                    Format::Alertmanager | Format::Slack => {}
                }
                None
            }
        };
        let retry = Schedule::new(raw.retry.iter().map(|span| span.get()).collect());
        if let Err(what) = &retry {
            fail("retry", what.to_string(), "use times above 0, such as [\"5s\", \"30s\", \"2m\"]");
        }
        for wish in &raw.subnets {
            // What has a slash is meant as a range: a mistyped one must not pass as an id that no subnet has.
            if wish.is_empty() || wish.contains('/') && !matches!(SubnetWish::of(wish), SubnetWish::Range(_)) {
                let fix = "use ids or ranges, such as [\"subnet-a\", \"10.0.0.0/16\"]";
                fail("subnets", format!("`{wish}` is neither a subnet's id nor a range"), fix);
            }
        }
        if let Some(link) = &raw.link
            && !Url::parse(link).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
        {
            fail("link", "is no http:// or https:// URL".into(), "write `{incident}` where its id belongs");
        }
        let usual = if raw.format == Format::Slack { SLACK_INTERVAL } else { Duration::ZERO };
        let timeout = raw.timeout.get();
        if timeout.is_zero() || timeout > longest {
            let what = format!("`{}` is not above 0 and at most {longest:?}", raw.timeout);
            fail("timeout", what, "a delivery must end before the lease can pass on: failover - renewal - 1 s");
        }
        if raw.max_age.get() < timeout {
            fail("max_age", format!("`{}` is below `timeout`", raw.max_age), "use hours, such as \"24h\"");
        }
        let checked = Self {
            name,
            job: job.to_owned(),
            format: raw.format,
            url: url?,
            secret,
            timeout,
            max_age: raw.max_age.get(),
            muted: raw.muted,
            filter: Filter {
                min_severity: raw.min_severity,
                signals: raw.signals.iter().copied().collect(),
                verdicts: raw.verdicts.iter().copied().collect(),
                subnets: raw.subnets.iter().map(|wish| SubnetWish::of(wish)).collect(),
                azs: raw.azs.iter().cloned().collect(),
            },
            link: raw.link.clone(),
            min_interval: raw.min_interval.map_or(usual, Span::get),
            retry: retry.ok()?,
            ca_file: raw.ca_file.clone(),
            allow_link_local: raw.allow_link_local,
        };
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

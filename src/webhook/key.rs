//! What proves to a receiver who sends, and where it is read from again.
//!
//! Each format has its kind: signing secrets, a routing key, a bearer token, or an address that is a secret itself. A file is
//! read again for every attempt, so a rotated secret holds from the next request on; while it cannot be read the last good one
//! stays. Invariant: nothing of it is ever shown; errors name the source and the rule. Read `secret` next.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderValue;
use reqwest::Url;

use super::endpoint::usable_url;
use super::{Format, SecretError, Secrets};

/// Characters of PagerDuty's routing keys.
const ROUTING_KEY: usize = 32;

/// What proves who sends.
pub(super) enum Key {
    /// Nothing does.
    None,
    /// Signatures after Standard Webhooks.
    Signing(Secrets),
    /// PagerDuty's routing key, in the body.
    Routing(String),
    /// A token in `Authorization`.
    Bearer(HeaderValue),
    /// The whole address.
    Address(Url),
}

impl Key {
    /// The address it is, if it is one: it stands in for the endpoint's.
    pub(super) fn address(&self) -> Option<&Url> {
        match self {
            Self::Address(url) => Some(url),
            _ => None,
        }
    }

    fn parse(format: Format, text: &str) -> Result<Self, SecretError> {
        let word = text.trim();
        match format {
            Format::Standard | Format::CloudEvents => Secrets::parse(text).map(Self::Signing),
            Format::PagerDuty => {
                let fits = word.len() == ROUTING_KEY && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
                if fits {
                    Ok(Self::Routing(word.to_owned()))
                } else {
                    Err(SecretError::RoutingKey(word.chars().count()))
                }
            }
            Format::Alertmanager => {
                let graphic = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic());
                let header = graphic.then(|| HeaderValue::from_str(&format!("Bearer {word}")).ok()).flatten();
                let mut header = header.ok_or(SecretError::Bearer)?;
                header.set_sensitive(true);
                Ok(Self::Bearer(header))
            }
            Format::Slack => usable_url(word).map(Self::Address).map_err(SecretError::Address),
        }
    }
}

/// A key and where it comes from.
pub struct KeyStore {
    format: Format,
    /// Read again for every attempt.
    file: Option<PathBuf>,
    last: Mutex<Arc<Key>>,
    /// The file could not be used at the last look; told once.
    failing: AtomicBool,
}

impl KeyStore {
    fn holding(format: Format, key: Key, file: Option<PathBuf>) -> Self {
        Self { format, file, last: Mutex::new(Arc::new(key)), failing: AtomicBool::new(false) }
    }

    /// No key: for receivers that ask for none.
    #[must_use]
    pub fn none(format: Format) -> Self {
        Self::holding(format, Key::None, None)
    }

    /// The key that a file holds, now and later.
    ///
    /// # Errors
    /// The file cannot be read, or holds no key of the format.
    pub fn from_file(format: Format, path: &Path) -> Result<Self, SecretError> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| SecretError::Read { path: path.to_owned(), source })?;
        Ok(Self::holding(format, Key::parse(format, &text)?, Some(path.to_owned())))
    }

    /// The key that an environment variable holds.
    ///
    /// # Errors
    /// The variable is not set, or holds no key of the format.
    pub fn from_env(format: Format, name: &str) -> Result<Self, SecretError> {
        let text = std::env::var(name).map_err(|_| SecretError::Variable(name.to_owned()))?;
        Ok(Self::holding(format, Key::parse(format, &text)?, None))
    }

    /// The format whose key it is.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// The key as it is now.
    pub(super) async fn current(&self, endpoint: &str) -> Arc<Key> {
        if let Some(path) = &self.file {
            let read = match tokio::fs::read_to_string(path).await {
                Ok(text) => Key::parse(self.format, &text),
                Err(source) => Err(SecretError::Read { path: path.clone(), source }),
            };
            match read {
                Ok(key) => {
                    self.failing.store(false, Ordering::Relaxed);
                    *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                }
                Err(error) => {
                    if !self.failing.swap(true, Ordering::Relaxed) {
                        tracing::warn!(endpoint, %error, "webhook secret cannot be read again, the last one stays");
                    }
                }
            }
        }
        self.known()
    }

    /// The key as it was when it was read last.
    pub(super) fn known(&self) -> Arc<Key> {
        Arc::clone(&self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl From<Secrets> for KeyStore {
    /// Secrets of `standard` that never change.
    fn from(secrets: Secrets) -> Self {
        Self::holding(Format::Standard, Key::Signing(secrets), None)
    }
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyStore").field("format", &self.format).field("file", &self.file).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const OTHER: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    async fn signature(store: &KeyStore) -> String {
        match &*store.current("ops").await {
            Key::Signing(secrets) => secrets.sign("id", 1, b"{}").unwrap(),
            _ => panic!("no signing key"),
        }
    }

    #[tokio::test]
    async fn a_rotated_file_signs_with_both_then_with_the_new_one_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        let alone = |text: &str| Secrets::parse(text).unwrap().sign("id", 1, b"{}").unwrap();
        write(ONE);
        let store = KeyStore::from_file(Format::Standard, &path).unwrap();
        assert_eq!(signature(&store).await, alone(ONE));
        write(&format!("{ONE}\n{OTHER}\n"));
        assert_eq!(signature(&store).await, format!("{} {}", alone(ONE), alone(OTHER)));
        write(&format!("{OTHER}\n"));
        assert_eq!(signature(&store).await, alone(OTHER));
        write("nonsense");
        assert_eq!(signature(&store).await, alone(OTHER));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(signature(&store).await, alone(OTHER));
        write(ONE);
        assert_eq!(signature(&store).await, alone(ONE));
    }

    #[test]
    fn each_format_has_its_kind_of_key_and_what_is_none_is_refused_without_being_shown() {
        for (format, text, expected) in [
            (Format::PagerDuty, "SECRET", "secret is no routing key: it has 6 characters, not 32 letters and digits"),
            (
                Format::Alertmanager,
                "a SECRET",
                "secret is no bearer token: use visible ascii characters without spaces",
            ),
            (Format::Slack, "SECRET", "secret is no address: relative URL without a base"),
            (Format::Slack, "http://169.254.169.254/SECRET", "secret is no address: receiver address 169.254.169.254"),
            (Format::CloudEvents, "SECRET", "secret on line 1 does not start with whsec_"),
        ] {
            let error = Key::parse(format, text).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.starts_with(expected) && !error.contains("SECRET"), "{error}");
        }
        for (format, text) in [
            (Format::PagerDuty, "0123456789abcdef0123456789abcdef\n"),
            (Format::Alertmanager, "token\n"),
            (Format::Slack, "https://hooks.slack.com/services/T/B/X\n"),
        ] {
            assert!(Key::parse(format, text).is_ok(), "{text}");
        }
    }

    #[test]
    fn debug_output_holds_no_key() {
        let store = KeyStore::from(Secrets::parse(ONE).unwrap());
        assert_eq!(format!("{store:?}"), "KeyStore { format: Standard, file: None, .. }");
    }
}

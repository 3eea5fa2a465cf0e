//! Signing secrets: read from a file or the environment, used, never shown.
//!
//! One line is one secret `whsec_<base64 of 24 to 64 bytes>`; a second line is the other secret of a rotation, and both then
//! sign every request. Errors name the source and the line, never the content; `Debug` is redacted.

use std::fmt;
use std::path::{Path, PathBuf};

use standardwebhooks::{Webhook, WebhookError};

const PREFIX: &str = "whsec_";
const MAX_SECRETS: usize = 2;
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("secret file {path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The environment variable is not set or not UTF-8.
    #[error("environment variable {0} holds no secret")]
    Variable(String),
    /// No line holds a secret, or more than two do.
    #[error("expected 1 or 2 secrets, one a line, found {0}")]
    Count(usize),
    /// A line has no `whsec_` in front.
    #[error("secret on line {0} does not start with whsec_")]
    Prefix(usize),
    /// A line is not base64 after the prefix.
    #[error("secret on line {0} is not base64 after whsec_")]
    Base64(usize),
    /// A key is too short to be safe or longer than the standard allows.
    #[error("secret on line {line} has {bytes} bytes, allowed are 24 to 64")]
    Length {
        /// Line, from 1.
        line: usize,
        /// Bytes after decoding.
        bytes: usize,
    },
    /// It is not PagerDuty's.
    #[error("secret is no routing key: it has {0} characters, not 32 letters and digits")]
    RoutingKey(usize),
    /// It cannot stand in a header.
    #[error("secret is no bearer token: use visible ascii characters without spaces")]
    Bearer,
    /// It is no address that may be called.
    #[error("secret is no address: {0}")]
    Address(String),
}

/// One secret, or two during a rotation.
pub struct Secrets {
    keys: Vec<Webhook>,
}

impl Secrets {
    /// Takes the secrets out of a text with one a line; empty lines and spaces around are ignored.
    ///
    /// # Errors
    /// When there are not 1 or 2 lines, or one is no `whsec_` secret of 24 to 64 bytes.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let lines = text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line.trim()))
            .filter(|(_, line)| !line.is_empty())
            .collect::<Vec<_>>();
        if lines.is_empty() || lines.len() > MAX_SECRETS {
            return Err(SecretError::Count(lines.len()));
        }
        let mut keys = Vec::new();
        for (number, line) in lines {
            let encoded = line.strip_prefix(PREFIX).ok_or(SecretError::Prefix(number))?;
            keys.push(Webhook::new(encoded).map_err(|_| SecretError::Base64(number))?);
            // The decoder accepts only whole, padded groups of four, so the length follows from the text.
            let bytes = encoded.len() / 4 * 3 - encoded.bytes().rev().take_while(|&byte| byte == b'=').count();
            if !KEY_BYTES.contains(&bytes) {
                return Err(SecretError::Length { line: number, bytes });
            }
        }
        Ok(Self { keys })
    }

    /// Reads the secrets from a file.
    ///
    /// # Errors
    /// When the file cannot be read or [`Secrets::parse`] refuses its text.
    pub fn from_file(path: &Path) -> Result<Self, SecretError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| SecretError::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// The signature of each secret alone, in their order.
    ///
    /// # Errors
    /// When the body is not UTF-8.
    pub fn signatures(&self, id: &str, timestamp_seconds: i64, body: &[u8]) -> Result<Vec<String>, WebhookError> {
        self.keys.iter().map(|key| key.sign(id, timestamp_seconds, body)).collect()
    }

    /// The value of `webhook-signature`: one `v1,…` per secret, separated by a space.
    ///
    /// # Errors
    /// When the body is not UTF-8.
    pub(super) fn sign(&self, id: &str, timestamp_seconds: i64, body: &[u8]) -> Result<String, WebhookError> {
        Ok(self.signatures(id, timestamp_seconds, body)?.join(" "))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} redacted)", self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const OTHER: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn the_signature_is_the_published_test_vector() {
        let secrets = Secrets::parse(&format!("{ONE}\n")).unwrap();
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        let signature = secrets.sign("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body).unwrap();
        assert_eq!(signature, "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
    }

    #[test]
    fn two_lines_sign_twice() {
        let both = Secrets::parse(&format!("{ONE}\r\n{OTHER}\n\n")).unwrap();
        let signature = both.sign("id", 1, b"{}").unwrap();
        let one = Secrets::parse(ONE).unwrap().sign("id", 1, b"{}").unwrap();
        let other = Secrets::parse(OTHER).unwrap().sign("id", 1, b"{}").unwrap();
        assert_eq!(signature, format!("{one} {other}"));
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_shown() {
        for (text, expected) in [
            ("", "expected 1 or 2 secrets, one a line, found 0"),
            ("\n \n", "expected 1 or 2 secrets, one a line, found 0"),
            ("C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "secret on line 1 does not start with whsec_"),
            ("\nwhsec_???", "secret on line 2 is not base64 after whsec_"),
            ("whsec_", "secret on line 1 has 0 bytes, allowed are 24 to 64"),
            ("whsec_c2hvcnQ=", "secret on line 1 has 5 bytes, allowed are 24 to 64"),
        ] {
            assert_eq!(Secrets::parse(text).unwrap_err().to_string(), expected, "{text:?}");
        }
        let three = format!("{ONE}\n{ONE}\n{ONE}");
        assert_eq!(Secrets::parse(&three).unwrap_err().to_string(), "expected 1 or 2 secrets, one a line, found 3");
    }

    #[test]
    fn debug_output_does_not_hold_the_key() {
        assert_eq!(format!("{:?}", Secrets::parse(ONE).unwrap()), "Secrets(1 redacted)");
    }

    #[test]
    fn a_file_may_end_with_a_newline_and_a_missing_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, format!("{ONE}\n")).unwrap();
        assert!(Secrets::from_file(&path).is_ok());
        let missing = Secrets::from_file(&folder.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("none cannot be read"), "{missing}");
    }
}

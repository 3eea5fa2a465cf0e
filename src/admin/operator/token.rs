//! The token that commands must carry.
//!
//! A file is read again for every command, so that a rotated Secret holds at once; while it cannot be read, the last good
//! token stays. Never shown: `Debug` is redacted and errors name the source, not the content. Invariants: a server that
//! began with a token never goes on without one; comparing takes as long for a token that is almost right as for one that
//! is all wrong.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::config::AdminSettings;

/// Fewest and most characters.
const LENGTH: std::ops::RangeInclusive<usize> = 16..=512;

/// Why a token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("admin.token_file: {path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The environment variable is not set or not UTF-8.
    #[error("admin.token_env: environment variable {0} holds no token")]
    Variable(String),
    /// It is too short, too long, or has characters that no header can carry.
    #[error("{key}: the token has {length} characters; use 16 to 512 visible ASCII characters without spaces")]
    Unfit {
        /// The setting.
        key: &'static str,
        /// Characters found.
        length: usize,
    },
}

/// A checked token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// The token that the settings name; none when they name none.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn configured(settings: &AdminSettings) -> Result<Option<Self>, TokenError> {
        if let Some(path) = &settings.token_file {
            return Self::from_file(path).map(Some);
        }
        let Some(name) = &settings.token_env else { return Ok(None) };
        let text = std::env::var(name).map_err(|_| TokenError::Variable(name.clone()))?;
        Self::parse("admin.token_env", &text).map(Some)
    }

    fn from_file(path: &Path) -> Result<Self, TokenError> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| TokenError::Read { path: path.to_owned(), source })?;
        Self::parse("admin.token_file", &text)
    }

    /// A token as it was written, white space around it ignored; `key` is named when it is none.
    ///
    /// # Errors
    /// [`TokenError::Unfit`].
    pub fn parse(key: &'static str, text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let length = text.chars().count();
        if !LENGTH.contains(&length) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Unfit { key, length });
        }
        Ok(Self(text.to_owned()))
    }

    /// The token as a header carries it.
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Whether an `Authorization` header carries it.
    pub(super) fn is_in(&self, header: &[u8]) -> bool {
        const SCHEME: &[u8] = b"bearer ";
        let Some((scheme, told)) = header.split_at_checked(SCHEME.len()) else { return false };
        let differs = told.iter().zip(self.0.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b));
        scheme.eq_ignore_ascii_case(SCHEME) && told.len() == self.0.len() && differs == 0
    }
}

/// The token as it is now.
#[derive(Debug)]
pub(super) struct TokenStore {
    /// Read again for every command.
    file: Option<PathBuf>,
    last: Mutex<Token>,
}

impl TokenStore {
    /// The token that the settings name, now and later; none when they name none.
    ///
    /// # Errors
    /// It cannot be read now, or is none.
    pub(super) fn configured(settings: &AdminSettings) -> Result<Option<Self>, TokenError> {
        let token = Token::configured(settings)?;
        Ok(token.map(|token| Self { file: settings.token_file.clone(), last: Mutex::new(token) }))
    }

    /// Reads the file again, if it is one. Cost: a read of a small file, for commands alone.
    pub(super) fn current(&self) -> Token {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match self.file.as_deref().map(Token::from_file) {
            Some(Ok(token)) => *last = token,
            Some(Err(error)) => tracing::warn!(%error, "the token cannot be read again, the last one stays"),
            None => {}
        }
        last.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kubernetes changes a mounted Secret in place: the old token held until the next start.
    #[test]
    fn a_token_that_is_rotated_in_its_file_holds_at_once_and_the_last_good_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, TOKEN).unwrap();
        let settings = AdminSettings { token_file: Some(path.clone()), ..AdminSettings::default() };
        let store = TokenStore::configured(&settings).unwrap().unwrap();
        assert!(store.current().is_in(format!("Bearer {TOKEN}").as_bytes()));
        let rotated = "fedcba9876543210";
        std::fs::write(&path, rotated).unwrap();
        assert!(store.current().is_in(format!("Bearer {rotated}").as_bytes()));
        assert!(!store.current().is_in(format!("Bearer {TOKEN}").as_bytes()));
        for broken in
            [|path: &Path| std::fs::write(path, "").unwrap(), |path: &Path| std::fs::remove_file(path).unwrap()]
        {
            broken(&path);
            assert!(store.current().is_in(format!("Bearer {rotated}").as_bytes()));
        }
        assert!(TokenStore::configured(&AdminSettings::default()).unwrap().is_none());
    }

    const TOKEN: &str = "0123456789abcdef";

    #[test]
    fn only_the_whole_token_behind_the_scheme_fits() {
        let token = Token::parse("admin.token_file", &format!(" {TOKEN}\n")).unwrap();
        assert!(token.is_in(token.bearer().as_bytes()));
        assert!(token.is_in(format!("bearer {TOKEN}").as_bytes()));
        for wrong in [
            "",
            "Bearer ",
            TOKEN,
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdeg",
            "Bearer 0123456789abcdef0",
            "Basic  0123456789abcdef",
        ] {
            assert!(!token.is_in(wrong.as_bytes()), "{wrong}");
        }
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn a_token_that_can_be_guessed_or_not_sent_is_refused_without_showing_it() {
        for bad in ["", "short", "0123456789 abcdef", "0123456789abcdéf", &"x".repeat(513)] {
            let error = Token::parse("admin.token_env", bad).unwrap_err().to_string();
            assert!(error.starts_with("admin.token_env: the token has "), "{error}");
            assert!(bad.is_empty() || !error.contains(bad), "{error}");
        }
    }

    #[test]
    fn without_a_setting_there_is_no_token_and_a_missing_file_is_told() {
        let mut settings = AdminSettings::default();
        assert_eq!(Token::configured(&settings).unwrap(), None);
        settings.token_file = Some("/nowhere/token".into());
        let error = Token::configured(&settings).unwrap_err().to_string();
        assert!(error.starts_with("admin.token_file: /nowhere/token cannot be read"), "{error}");
    }
}

//! Settings: from defaults, a TOML file, the environment and flags to one checked [`Config`].
//!
//! Later layers win: defaults < file < `FLOWSHIFT__SECTION__KEY` < flags. Every layer is cut into single keys that
//! remember where they came from ([`layer`]), so a wrong key or value is reported with its origin and the fix, and
//! `config show` can say who set what. [`Settings`] is what people write (its doc comments are the manual and the JSON
//! Schema); [`Config`] is what the program runs on. The conversion happens once, at start.
//! Invariant: a `Config` that exists has passed every cross check. No file named in it is opened here.
//! Read next: [`settings`], then [`checked`].

mod checked;
mod checks;
mod error;
mod facts;
mod keys;
mod layer;
mod settings;
mod show;
mod span;
mod webhook;

#[cfg(test)]
mod tests;

pub use checked::{Config, JobName, Lanes, StreamNames, TableNames};
pub use error::{Origin, Problem, Problems};
pub use facts::{Facts, facts};
pub use keys::schema;
pub use layer::{Loaded, Override, Sources, load};
pub use settings::{
    AdminSettings, AwsSettings, CollectSettings, CrcMismatchPolicy, DetectorSettings, EngineSettings, FetchMode,
    InputFormat, InputSettings, JobSettings, KplOutOfRange, LogFormat, LogLevel, LogSettings, Settings, StartAt,
    StateMismatchPolicy, StreamSettings, TableSettings, TopologySettings, WebhookSettings,
};
pub use show::{example, show, show_json};
pub use span::{Span, SpanError};
pub use webhook::{SecretSource, Webhook};

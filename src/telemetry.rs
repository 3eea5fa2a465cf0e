//! Logs: text for people on a terminal, JSON elsewhere, always on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings};

/// Starts logging; `RUST_LOG` overrules the configured level. A second call changes nothing.
pub fn start(settings: &LogSettings) {
    let ours = settings.level.as_str();
    // The embedded DynamoDB warns of every conditional write that fails, which is how the protocol works.
    let default = format!("warn,dynoxide=error,flowshift={ours},flowshift_consumer={ours}");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let terminal = std::io::stderr().is_terminal();
    let colours = terminal && std::env::var_os("NO_COLOR").is_none();
    let json = match settings.format {
        LogFormat::Auto => !terminal,
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    // An error only says that logging was started before, which the tests do.
    if json {
        builder.json().try_init().ok()
    } else {
        builder.try_init().ok()
    };
}

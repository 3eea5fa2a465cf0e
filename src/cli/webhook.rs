//! `flowshift webhook`: try out, verify, enable.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use super::{Door, Settings};
use crate::webhook::Format;

const TEST_HELP: &str = "\
Posts a `webhook.test` in the endpoint's own format: to PagerDuty and Alertmanager an alert of severity info and then its \
end, so that nobody stays paged. Exit code 1 when a receiver did not take it.

Examples:
  flowshift webhook test --config flowshift.toml
  flowshift webhook test --webhook http://127.0.0.1:8080/ --webhook-secret-file secret
  flowshift webhook test --webhook http://127.0.0.1:9093/api/v2/alerts --format alertmanager";

const VERIFY_HELP: &str = "\
The headers stand one a line, `name: value`, as a receiver logs them; other headers are passed over. Exit code 1 and the \
reason when the request is not ours: headers (one is missing or cannot be read), body (changed on its way), signature (another \
secret, or id, time or body were changed) or time (signed by us, but too old or ahead).

Examples:
  flowshift webhook verify --secret-file secret --headers headers.txt --body body.json
  flowshift webhook verify --secret-file secret --headers headers.txt --tolerance 1h < body.json";

fn formats() -> PossibleValuesParser {
    PossibleValuesParser::new(Format::ALL.map(Format::as_str))
}

/// `flowshift webhook …`
#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// Post a test event to every configured webhook, in its format
    #[command(after_long_help = TEST_HELP)]
    Test {
        /// Settings.
        #[command(flatten)]
        settings: Settings,
        /// Form of the body for --webhook; without it that of the first webhook of the settings file
        #[arg(long, value_name = "FORMAT", requires = "webhook", value_parser = formats())]
        format: Option<String>,
        /// Print the outcomes as JSON
        #[arg(long)]
        json: bool,
    },
    /// Check the signature of a received request, and say why it does not fit
    #[command(after_long_help = VERIFY_HELP)]
    Verify(Verify),
    /// Show the webhooks a running process delivers to, and which are disabled since when
    #[command(after_long_help = "Example:\n  flowshift webhook list --admin http://10.0.3.17:9464 --json")]
    List(Door),
    /// Deliver again to a webhook that answered 410; what it missed stays missed
    #[command(after_long_help = "Example:\n  flowshift webhook enable on-call --token-file token")]
    Enable {
        /// Name of the webhook.
        #[arg(value_name = "WEBHOOK")]
        name: String,
        /// The worker that owns the evidence stream.
        #[command(flatten)]
        door: Door,
        /// File with the token of `admin.token_file`; without it the environment variable `FLOWSHIFT_ADMIN_TOKEN`
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
    },
}

/// A received request.
#[derive(Debug, Args, Clone)]
pub struct Verify {
    /// File with the signing secret, or two of a rotation
    #[arg(long, value_name = "FILE")]
    pub secret_file: PathBuf,
    /// File with the request's headers, one a line
    #[arg(long, value_name = "FILE")]
    pub headers: PathBuf,
    /// File with the request's body, byte for byte; `-` is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub body: PathBuf,
    /// How far the time in the headers may be from now, such as 5m; `0s` does not look at it
    #[arg(long, value_name = "SPAN", default_value = "5m")]
    pub tolerance: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

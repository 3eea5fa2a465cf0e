//! `flowshift webhook test`: a test event to every configured receiver, in its format.
//!
//! Where a test would stay open (an alert, a page) its end follows. Not for: the filters; a test passes all of them.

use bytes::Bytes;
use flowshift_proto::anomaly::rfc3339;
use serde_json::json;

use crate::app;
use crate::cli;
use crate::command::{Failure, load, print_line};
use crate::config::{Override, Settings, Webhook};
use crate::webhook::{Delivery, Format, WallClock, send_once};

pub(super) async fn run(settings: &cli::Settings, format: Option<String>, json: bool) -> Result<(), Failure> {
    let format = format.map(|format| Override::new("--format", "webhooks.0.format", format));
    let config = load(&Settings::default(), settings, format.into_iter().collect())?.config;
    if config.webhooks.is_empty() {
        return Err(Failure::usage(anyhow::anyhow!(
            "no webhook is configured: give --webhook URL --webhook-secret-file FILE or set [[webhooks]]"
        )));
    }
    let now_ms = WallClock::system().now_ms();
    let mut failed = 0;
    for webhook in &config.webhooks {
        let outcome = attempt(webhook, now_ms).await;
        let (ok, outcome) = outcome.map_or_else(|error| (false, format!("{error:#}")), |said| (true, said));
        failed += u32::from(!ok);
        print_line(&if json {
            let format = webhook.format.as_str();
            json!({"webhook": webhook.name, "format": format, "ok": ok, "outcome": outcome}).to_string()
        } else {
            format!("{} {}: {outcome}", if ok { "ok    " } else { "failed" }, webhook.name)
        });
    }
    if failed == 0 { Ok(()) } else { Err(Failure::start(anyhow::anyhow!("{failed} webhook(s) failed"))) }
}

async fn attempt(webhook: &Webhook, now_ms: i64) -> anyhow::Result<String> {
    let endpoint = app::endpoint(webhook)?;
    let mut answers = Vec::new();
    let ends = matches!(webhook.format, Format::Alertmanager | Format::PagerDuty);
    for over in [false, true].into_iter().take(if ends { 2 } else { 1 }) {
        let status = send_once(&endpoint, &event(now_ms, over)).await?;
        answers.push(status.to_string());
    }
    Ok(format!("answered {}", answers.join(" and ")))
}

/// `webhook.test` in the form of every other event.
fn event(now_ms: i64, over: bool) -> Delivery {
    let timestamp = rfc3339(now_ms.div_euclid(1_000)).unwrap_or_default();
    let mut data = json!({"message": "a test event of flowshift; nothing is wrong"});
    if over {
        data["resolved"] = true.into();
    }
    let body = json!({"type": "webhook.test", "timestamp": timestamp, "data": data}).to_string();
    Delivery {
        id: format!("test_{now_ms}{}", if over { "_end" } else { "" }),
        incident: format!("flowshift-test-{now_ms}"),
        sequence: 1 + u64::from(over),
        created_ms: now_ms,
        muted: false,
        past: false,
        body: Bytes::from(body),
        event: None,
    }
}

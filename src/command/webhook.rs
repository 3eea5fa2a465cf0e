//! `flowshift webhook test`: a signed test event to every configured receiver.

use bytes::Bytes;

use super::{Failure, load, print_line};
use crate::app;
use crate::cli::WebhookCommand;
use crate::config::Settings;
use crate::webhook::{Delivery, WallClock, send_once};

pub(super) async fn run(command: WebhookCommand) -> Result<(), Failure> {
    let WebhookCommand::Test { settings, json } = command;
    let config = load(&Settings::default(), &settings, Vec::new())?.config;
    if config.webhooks.is_empty() {
        return Err(Failure::usage(anyhow::anyhow!(
            "no webhook is configured: give --webhook URL --webhook-secret-file FILE or set [[webhooks]]"
        )));
    }
    let now_ms = WallClock::system().now_ms();
    let delivery = Delivery {
        id: format!("test_{now_ms}"),
        incident: "test".into(),
        sequence: 1,
        created_ms: now_ms,
        muted: false,
        body: Bytes::from(body(now_ms)),
    };
    let mut failed = 0;
    for webhook in &config.webhooks {
        let endpoint = app::endpoint(webhook)?;
        let (ok, outcome) = match send_once(&endpoint, &delivery).await {
            Ok(status) => (true, format!("answered {status}")),
            Err(error) => (false, error.to_string()),
        };
        failed += u32::from(!ok);
        print_line(&if json {
            serde_json::json!({"webhook": webhook.name, "ok": ok, "outcome": outcome}).to_string()
        } else {
            format!("{} {}: {outcome}", if ok { "ok    " } else { "failed" }, webhook.name)
        });
    }
    if failed == 0 { Ok(()) } else { Err(Failure::start(anyhow::anyhow!("{failed} webhook(s) failed"))) }
}

/// `webhook.test` in the form of every other event.
fn body(now_ms: i64) -> String {
    let timestamp = flowshift_proto::anomaly::rfc3339(now_ms.div_euclid(1000)).unwrap_or_default();
    let data = serde_json::json!({"message": "a test event of flowshift; nothing is wrong"});
    serde_json::json!({"type": "webhook.test", "timestamp": timestamp, "data": data}).to_string()
}

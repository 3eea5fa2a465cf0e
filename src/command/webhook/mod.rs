//! `flowshift webhook …`: try out receivers, check what one received, enable one again.
//!
//! [`attempt`] posts test events, [`verify`] checks a received request, and enabling speaks with the admin server of the
//! process that delivers. Invariant: no secret is printed.

mod attempt;
mod verify;

use flowshift_proto::anomaly::rfc3339;
use serde_json::{Value, json};

use super::incidents::client::Client;
use super::incidents::path;
use super::{Failure, print_line, text_table};
use crate::cli::{Door, WebhookCommand};
use text_table::{Cell, Tone, render};

pub(super) async fn run(command: WebhookCommand) -> Result<(), Failure> {
    match command {
        WebhookCommand::Test { settings, format, json } => attempt::run(&settings, format, json).await,
        WebhookCommand::Verify(request) => verify::run(&request),
        WebhookCommand::List(door) => list(&door).await,
        WebhookCommand::Enable { name, door, token_file } => {
            let client = Client::new(&door, Some(token_file.as_deref()))?;
            let answer = client.post(&format!("/v1/webhooks/{}/enable", path(&name)), &json!({})).await?;
            print_line(&if door.json {
                answer.to_string()
            } else if answer["disabled"] == true {
                format!("{name}: enabled, and has answered 410 again")
            } else if answer["was_disabled"] == true {
                format!("{name}: enabled; it gets what is told from now on")
            } else {
                format!("{name}: was not disabled")
            });
            Ok(())
        }
    }
}

async fn list(door: &Door) -> Result<(), Failure> {
    let all = Client::new(door, None)?.get("/v1/webhooks").await?;
    if door.json {
        print_line(&all.to_string());
        return Ok(());
    }
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let row = |webhook: &Value| {
        let state = match webhook["disabled"] == true {
            true => Cell::toned("disabled", Tone::Bad),
            false => Cell::plain("delivering"),
        };
        let since = webhook["disabled_since"].as_i64().and_then(rfc3339).unwrap_or_default();
        let (name, format) = (text(webhook, "webhook"), text(webhook, "format"));
        vec![Cell::plain(name), Cell::plain(format), state, Cell::plain(since), Cell::plain(text(webhook, "event"))]
    };
    let rows: Vec<_> = all["webhooks"].as_array().into_iter().flatten().map(row).collect();
    print_line(&if rows.is_empty() {
        "this process delivers to no webhook; `flowshift leases list` names the owner of the evidence stream".to_owned()
    } else {
        render(&["WEBHOOK", "FORMAT", "STATE", "SINCE", "BY ITS ANSWER TO"], &rows, text_table::colours())
    });
    Ok(())
}

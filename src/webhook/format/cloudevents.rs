//! CloudEvents 1.0 in structured JSON.
//!
//! For: receivers with a CloudEvents library. Not for: the binary form. The event stands under `data` as in Standard Webhooks;
//! `id` is the `webhook-id`, so a receiver of both knows a repeat. Invariant: attribute names are lower case letters only.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Context, RenderError, Rendered};
use crate::webhook::Delivery;

pub(super) fn render(delivery: &Delivery, context: &Context<'_>) -> Result<Rendered, RenderError> {
    let body: Value = serde_json::from_slice(&delivery.body).map_err(|_| RenderError::Json)?;
    let event = json!({
        "specversion": "1.0",
        "id": delivery.id,
        "source": format!("/flowshift/{}", context.job),
        "type": body["type"],
        "subject": delivery.incident,
        "time": body["timestamp"],
        "datacontenttype": "application/json",
        // The extension is a text by its specification.
        "sequence": delivery.sequence.to_string(),
        "data": body["data"],
    });
    Ok(Rendered { content_type: "application/cloudevents+json", body: Bytes::from(event.to_string()) })
}

//! PagerDuty's Events API v2.
//!
//! `dedup_key` is the incident's id: whatever is told of an incident is one alert there, repeats included. An update of an
//! acknowledged incident acknowledges the alert, unless PagerDuty never heard of the incident: then it must be triggered
//! first. Invariant: a body stays far below the limit of 512 KB however many pairs there are.

use flowshift_proto::anomaly::EventType;
use serde_json::{Value, json};

use super::{Context, Format, RenderError, Rendered, Told, cut, date, paged, signal_words};

/// Characters of a summary.
const SUMMARY: usize = 1_024;
/// Pairs in the details.
const PAIRS: usize = 50;

pub(super) fn render(told: &Told<'_>, context: &Context<'_>) -> Result<Rendered, RenderError> {
    let name = Format::PagerDuty.as_str();
    let key = context.routing_key.ok_or(RenderError::NoKey(name))?;
    let mut body = match told {
        Told::Test { id, over: true, .. } => json!({"event_action": "resolve", "dedup_key": id}),
        Told::Test { id, at, message, over: false } => json!({
            "event_action": "trigger",
            "dedup_key": id,
            "payload": {"summary": cut(message, SUMMARY), "source": context.job, "severity": "info", "timestamp": date(*at)?},
        }),
        Told::Event(event) => {
            let action = match event.kind {
                EventType::Resolved => "resolve",
                EventType::Updated if event.acknowledged.is_some() && !context.first => "acknowledge",
                EventType::Opened | EventType::Updated => "trigger",
            };
            let mut body = json!({"event_action": action, "dedup_key": event.incident});
            if action == "trigger" {
                body["payload"] = json!({
                    "summary": cut(&event.summary, SUMMARY),
                    "source": event.element.id,
                    "severity": paged(event.severity),
                    "timestamp": date(event.at)?,
                    "component": event.verdict.as_str(),
                    "group": context.job,
                    "class": signal_words(event.signal),
                    "custom_details": details(event),
                });
                if let Some(link) = context.link(&event.incident) {
                    body["client_url"] = link.as_str().into();
                    body["links"] = json!([{"href": link, "text": "incident"}]);
                }
            }
            body
        }
    };
    body["routing_key"] = key.into();
    body["client"] = "flowshift".into();
    Ok(Rendered::json(&body))
}

/// The event, with the first pairs only.
fn details(event: &flowshift_proto::anomaly::AnomalyEvent) -> Value {
    let mut short = event.clone();
    short.pairs.truncate(PAIRS);
    let mut details = serde_json::to_value(short).unwrap_or_default();
    if event.pairs.len() > PAIRS {
        details["pairs_in_all"] = event.pairs.len().into();
    }
    details
}

//! Slack's incoming webhooks: a text for notifications, and blocks.
//!
//! For: people in a channel. Slack has no key that makes two messages one, so each event is a message of its own. Invariant:
//! `&`, `<` and `>` of names, summaries and notes are escaped, so that no text of others mentions a channel or makes a link,
//! and every text stays below Slack's limits.

use flowshift_proto::anomaly::{AnomalyEvent, EventType};
use serde_json::{Value, json};

use super::{Context, RenderError, Rendered, Told, cut, date, pairs, signal_words, word};

/// Characters of a section's text and of one of its fields; Slack allows 3,000 and 2,000, and escaping makes up to five of one.
const SECTION: usize = 550;
const FIELD: usize = 380;
/// Pairs named.
const PAIRS: usize = 5;

pub(super) fn render(told: &Told<'_>, context: &Context<'_>) -> Result<Rendered, RenderError> {
    Ok(Rendered::json(&match told {
        Told::Event(event) => message(event, context)?,
        Told::Test { message, .. } => {
            let text = format!(":white_check_mark: {}", escaped(message, SECTION));
            json!({"text": text, "blocks": [section(&text)]})
        }
    }))
}

fn message(event: &AnomalyEvent, context: &Context<'_>) -> Result<Value, RenderError> {
    let (mark, what) = match event.kind {
        EventType::Opened => (":red_circle:", "opened"),
        EventType::Updated => (":large_yellow_circle:", "updated"),
        EventType::Resolved => (":large_green_circle:", "resolved"),
    };
    let summary = escaped(&event.summary, SECTION);
    let head = format!("*{}, {} {what}*", event.severity.as_str(), signal_words(event.signal));
    let mut fields = vec![
        ("Verdict", event.verdict.as_str().to_owned()),
        ("Place", format!("{} {}", word(event.element.kind), event.element.id)),
    ];
    if let Some(start) = event.started_at {
        fields.push(("Since", date(start)?));
    }
    if !event.pairs.is_empty() {
        fields.push(("Pairs", pairs(event, PAIRS)));
    }
    if let Some(said) = &event.acknowledged {
        fields.push(("Acknowledged", format!("{} {}", said.by, said.note).trim_end().to_owned()));
    }
    if let Some(reason) = event.reason {
        fields.push(("Reason", word(reason)));
    }
    let fields: Vec<Value> =
        fields.into_iter().map(|(name, text)| mrkdwn(&format!("*{name}*\n{}", escaped(&text, FIELD)))).collect();
    let mut foot =
        format!("{} · {} · {}", escaped(context.job, FIELD), escaped(&event.incident, FIELD), date(event.at)?);
    if let Some(link) = context.link(&event.incident) {
        foot = format!("{foot} · <{}|look>", escaped(&link, SECTION).replace('|', "%7C"));
    }
    Ok(json!({
        "text": format!("{mark} {} {what}: {summary}", event.severity.as_str()),
        "blocks": [
            section(&format!("{mark} {head}\n{summary}")),
            {"type": "section", "fields": fields},
            {"type": "context", "elements": [mrkdwn(&foot)]},
        ],
    }))
}

fn section(text: &str) -> Value {
    json!({"type": "section", "text": mrkdwn(text)})
}

/// `verbatim`: names that look like channels or links are left as they are.
fn mrkdwn(text: &str) -> Value {
    json!({"type": "mrkdwn", "text": text, "verbatim": true})
}

/// At most `limit` characters of `text`, escaped.
fn escaped(text: &str, limit: usize) -> String {
    cut(text, limit).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

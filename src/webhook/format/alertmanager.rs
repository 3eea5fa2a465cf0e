//! Alertmanager's `POST /api/v2/alerts`.
//!
//! An alert there is known by its labels and is over at `endsAt`, so an open incident is told again every minute with an end a
//! few minutes ahead. A change of severity, verdict, signal or element is another alert: the one before is ended in the same
//! request. Invariant: the labels come from the event and the job alone, so a takeover tells the same alert.

use std::time::Duration;

use flowshift_proto::anomaly::{AnomalyEvent, EventType};
use serde_json::{Map, Value, json};

use super::{Context, RenderError, Rendered, Told, cut, date, paged, pairs, word};

/// How far ahead the end of an open alert is set.
pub(in crate::webhook) const KEPT_OPEN: Duration = Duration::from_secs(300);

/// Characters of an annotation.
const LONGEST: usize = 2_000;
/// Pairs named in an annotation.
const PAIRS: usize = 20;

/// The alerts of several incidents, each with what was told of it before.
pub(super) fn render(
    told: &[(&Told<'_>, Option<&AnomalyEvent>)],
    context: &Context<'_>,
) -> Result<Rendered, RenderError> {
    let mut alerts = Vec::new();
    for (told, before) in told {
        match told {
            Told::Event(event) => {
                let labels = labels(event, context);
                if let Some(before) = before.filter(|before| self::labels(before, context) != labels) {
                    alerts.push(alert(before, Some(event.at), context)?);
                }
                let over = (event.kind == EventType::Resolved).then_some(event.at);
                alerts.push(alert(event, over, context)?);
            }
            Told::Test { id, at, message, over } => {
                let labels =
                    json!({"alertname": "FlowshiftTest", "incident": id, "job": context.job, "severity": "info"});
                // Later than its start, or Alertmanager refuses it.
                let end = if *over { at.saturating_add(1) } else { ahead(context) };
                alerts.push(json!({
                    "labels": labels, "annotations": {"summary": message}, "startsAt": date(*at)?, "endsAt": date(end)?,
                }));
            }
        }
    }
    Ok(Rendered::json(&Value::Array(alerts)))
}

/// Labels may not be empty; Alertmanager leaves such out.
fn labels(event: &AnomalyEvent, context: &Context<'_>) -> Value {
    json!({
        "alertname": "FlowshiftIncident",
        "job": context.job,
        "incident": event.incident,
        "signal": event.signal.as_str(),
        "severity": paged(event.severity),
        "verdict": event.verdict.as_str(),
        "element_kind": word(event.element.kind),
        "element": event.element.id,
    })
}

/// One alert, open or over since `over`.
fn alert(event: &AnomalyEvent, over: Option<i64>, context: &Context<'_>) -> Result<Value, RenderError> {
    let start = event.started_at.unwrap_or(event.at);
    let end = over.map_or_else(|| ahead(context), |at| at.max(start.saturating_add(1)));
    let mut annotations = Map::new();
    annotations.insert("summary".into(), cut(&event.summary, LONGEST).into());
    annotations.insert("flowshift_severity".into(), event.severity.as_str().into());
    if !event.pairs.is_empty() {
        annotations.insert("pairs".into(), cut(&pairs(event, PAIRS), LONGEST).into());
    }
    if let Some(said) = &event.acknowledged {
        annotations.insert("acknowledged".into(), cut(&format!("{}: {}", said.by, said.note), LONGEST).into());
    }
    if let Some(reason) = event.reason {
        annotations.insert("reason".into(), word(reason).into());
    }
    let mut alert = json!({
        "labels": labels(event, context), "annotations": annotations, "startsAt": date(start)?, "endsAt": date(end)?,
    });
    if let Some(link) = context.link(&event.incident) {
        alert["generatorURL"] = link.into();
    }
    Ok(alert)
}

fn ahead(context: &Context<'_>) -> i64 {
    let kept = i64::try_from(KEPT_OPEN.as_secs()).unwrap_or(i64::MAX);
    context.now_ms.div_euclid(1_000).saturating_add(kept)
}

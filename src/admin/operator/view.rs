//! The present incidents and mutes, from committed state.
//!
//! For: answers to queries, and for looking up what a command names. Not for: deciding; by the time a command is heard
//! things may be otherwise, and CORRELATE says so then. Invariant: what is answered was committed, so no restart takes
//! it back.

use std::sync::Arc;
use std::time::Duration;

use flowshift_consumer::inspect;
use flowshift_detector::correlate::{Dismissal, Mute};
use flowshift_detector::{AnomalyEvent, Correlator, IncidentId, Place, Words};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Inner;
use super::refusal::Refusal;
use crate::convert::event::to_proto;
use crate::stage::correlate::Stored;

/// How long what was read is answered again.
const KEEP: Duration = Duration::from_secs(1);

/// Committed state as it was read a moment ago.
pub(super) struct Kept {
    read: Instant,
    view: Arc<View>,
}

/// What is committed.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Event time up to which all steps are judged, epoch s.
    judged_until: Option<i64>,
    incidents: Vec<AnomalyEvent>,
    /// Incidents told of lately, by id: also those that are over.
    known: std::collections::BTreeSet<String>,
    pub(super) words: Words,
}

impl Inner {
    /// The committed state, at most a second old.
    pub(super) async fn view(&self) -> Result<Arc<View>, Refusal> {
        let mut kept = self.kept.lock().await;
        if let Some(Kept { read, view }) = kept.as_ref()
            && read.elapsed() < KEEP
        {
            return Ok(Arc::clone(view));
        }
        let view = Arc::new(self.read().await.map_err(|error| {
            tracing::warn!(error = format!("{error:#}"), "incidents cannot be read");
            Refusal::unavailable("the committed state cannot be read now")
        })?);
        *kept = Some(Kept { read: Instant::now(), view: Arc::clone(&view) });
        Ok(view)
    }

    async fn read(&self) -> anyhow::Result<View> {
        let stream = self.log.identify(&self.evidence).await?;
        let parts = inspect::parts(&self.table, &self.tables, &stream).await?;
        let Some(Stored { body, words, .. }) = Stored::read(&parts)? else { return Ok(View::default()) };
        let known = body.outbox.entries().iter().map(|entry| entry.incident.clone()).collect();
        let correlator = Correlator::from_state(self.settings.clone(), body.correlator)?.with_words(words.clone());
        Ok(View { judged_until: correlator.taken_s(), incidents: correlator.present(), known, words })
    }
}

impl View {
    /// Incidents, mutes and dismissals, with the age of the judgement.
    pub(super) fn incidents(&self, now_s: i64) -> Value {
        let mut all = self.mutes(now_s);
        all["incidents"] = self.incidents.iter().map(incident).collect();
        all
    }

    /// Mutes and dismissals.
    pub(super) fn mutes(&self, now_s: i64) -> Value {
        json!({
            "judged_until": self.judged_until,
            "age_s": self.judged_until.map(|until| now_s.saturating_sub(until).max(0)),
            "mutes": self.words.mutes().map(|(id, said)| mute(id, said)).collect::<Vec<_>>(),
            "dismissed": self.words.dismissals().map(|(id, said)| dismissal(id, said)).collect::<Vec<_>>(),
        })
    }

    /// What became of a word; its last outcome when it was said again.
    pub(super) fn word(&self, id: &str) -> Value {
        let heard = self.words.heard().filter(|heard| heard.id == id).last();
        json!({"id": id, "outcome": heard.map_or("pending", |heard| heard.outcome.as_str())})
    }

    /// Whether the incident is open; an error says why not.
    pub(super) fn open(&self, id: &str) -> Result<(), Refusal> {
        if self.incidents.iter().any(|event| event.incident.as_str() == id) {
            return Ok(());
        }
        if self.known.contains(id) {
            return Err(Refusal::over(id));
        }
        Err(Refusal::not_found("open incident", id, "GET /v1/incidents lists the open ones"))
    }

    /// Whether the same person has dismissed the incident with the same note.
    pub(super) fn dismissed_by(&self, id: &str, by: &str, note: &str) -> bool {
        let said = self.words.dismissals().find(|(incident, _)| incident.as_str() == id);
        said.is_some_and(|(_, said)| (said.by.by.as_str(), said.by.note.as_str()) == (by, note))
    }

    /// Whether there is a mute or dismissal of this id.
    pub(super) fn muted(&self, id: &str) -> Result<(), Refusal> {
        let mute = self.words.mutes().any(|(mute, _)| mute == id);
        if mute || self.words.dismissals().any(|(incident, _)| incident.as_str() == id) {
            return Ok(());
        }
        Err(Refusal::not_found("mute or dismissal", id, "GET /v1/mutes lists them"))
    }
}

/// An open incident: the fields of its events without their type.
fn incident(event: &AnomalyEvent) -> Value {
    let mut value = serde_json::to_value(to_proto(event)).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("type");
    }
    value
}

/// What a mute is about, as a command says it.
fn mute(id: &str, mute: &Mute) -> Value {
    let mut value = json!({
        "id": id, "until": mute.until_s, "by": mute.by.by, "note": mute.by.note, "at": mute.by.at,
    });
    match &mute.scope.place {
        None => {}
        Some(Place::Pair { src, dst }) => value["pair"] = format!("{src}>{dst}").into(),
        Some(Place::Subnet(subnet)) => value["subnet"] = subnet.as_str().into(),
        Some(Place::Az(az)) => value["az"] = az.as_str().into(),
    }
    if let Some(signal) = mute.scope.signal {
        value["signal"] = signal.as_str().into();
    }
    value
}

fn dismissal(incident: &IncidentId, said: &Dismissal) -> Value {
    let pairs: Vec<String> = said.pairs.iter().map(|pair| format!("{}>{}", pair.src.id, pair.dst.id)).collect();
    json!({
        "incident": incident.as_str(), "signal": said.signal.as_str(), "pairs": pairs, "severity": said.severity,
        "until": said.until_s, "by": said.by.by, "note": said.by.note, "at": said.by.at,
    })
}

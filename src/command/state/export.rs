//! `flowshift state export`: what is committed, as JSON. Reads manifests and chunks; holds no lease.

use std::collections::BTreeMap;

use anyhow::Context;
use flowshift_consumer::inspect;
use flowshift_consumer::run::lane_of_key;
use flowshift_detector::pane::ByState;
use flowshift_detector::{FeedKind, Totals};
use flowshift_proto::reason::Reason;
use serde_json::{Value, json};

use crate::command::store::Store;
use crate::stage::correlate;
use crate::stage::detect::{Account, LaneBody};

/// Everything committed, as one JSON value.
pub(super) async fn export(store: &Store) -> anyhow::Result<Value> {
    let Store { config, log, table, tables, .. } = store;
    let exchange = log.identify(&config.streams.exchange).await.context("exchange stream")?;
    let mut pairs = BTreeMap::new();
    let mut account = Account::default();
    let mut refused = 0;
    for (key, bytes) in inspect::parts(table, tables, &exchange).await.context("lane state")? {
        if lane_of_key(&key).is_none() {
            continue;
        }
        let body = LaneBody::decode(&bytes)?;
        account.add(&body.account);
        for kind in [FeedKind::Reports, FeedKind::FlowLogs] {
            refused += body.detector.feed(kind).map_or(0, |f| f.refused_closed + f.refused_misaligned);
        }
        for (kind, pair, totals) in body.detector.totals() {
            let key = (pair.src.id.to_string(), pair.dst.id.to_string(), feed_name(kind));
            pairs.insert(key.clone(), pair_json(&key, totals));
        }
    }
    let evidence = log.identify(&config.streams.evidence).await.context("evidence stream")?;
    let mut events = Vec::new();
    let parts = inspect::parts(table, tables, &evidence).await.context("incident state")?;
    if let Some(correlate::Stored { body, .. }) = correlate::Stored::read(&parts)? {
        for entry in body.outbox.entries() {
            events.push(serde_json::from_str::<Value>(&entry.event).context("event in the outbox")?);
        }
    }
    let reasons: BTreeMap<&str, u64> = Reason::iter().map(|r| (r.as_str(), account.reason(r))).collect();
    Ok(json!({
        "job": config.job.as_str(),
        "pairs": pairs.into_values().collect::<Vec<_>>(),
        "records": {"in": account.records_in, "accounted": account.accounted, "reasons": reasons},
        "panes_refused": refused,
        "unreadable": account.unreadable,
        "events": events,
    }))
}

fn feed_name(kind: FeedKind) -> &'static str {
    match kind {
        FeedKind::Reports => "reports",
        FeedKind::FlowLogs => "flow_logs",
    }
}

fn pair_json((src, dst, feed): &(String, String, &str), totals: &Totals) -> Value {
    let c = &totals.counters;
    let by_state = |s: &ByState| json!({"syn": s.syn, "established": s.est, "close": s.close});
    json!({
        "src": src, "dst": dst, "feed": feed,
        "flows": c.flows, "retransmit_flows": c.retransmit_flows,
        "segments": c.segments, "bytes": c.bytes,
        "retransmits": by_state(&c.retransmits), "timeouts": by_state(&c.timeouts),
        "connects": c.connects, "connect_failures": c.connect_failures,
        "resets": c.resets, "rejects": c.rejects,
        "rtt_n": totals.rtt_n, "records": totals.records,
        "first_pane": totals.first_pane_s, "last_pane": totals.last_pane_s,
    })
}

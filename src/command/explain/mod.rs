//! `flowshift explain`: what drove an incident, from the events that told of it.
//!
//! [`story`] finds its events, [`plot`] scales them, [`text`] and [`svg`] draw. Nothing is judged again: what is shown is
//! what was told. Invariant: what stands in a log cannot steer a terminal or break out of the drawing.

mod plot;
mod story;
mod svg;
mod text;

use std::io::stdin;
use std::path::Path;

use anyhow::Context;
use flowshift_consumer::inspect;
use flowshift_proto::anomaly::AnomalyEvent;

use super::store::Store;
use super::{Failure, print_line, text_table};
use crate::backtest::Input;
use crate::cli::{Explain, Settings};
use crate::stage::correlate;
use story::Story;

pub(super) async fn run(args: &Explain) -> Result<(), Failure> {
    let events = match &args.log {
        Some(path) => from_log(path).map_err(Failure::usage)?,
        None => {
            let settings = Settings { config: args.place.config.clone(), ..Settings::default() };
            let store = Store::open(args.place.data_dir.clone(), &settings).await?;
            let events = from_state(&store).await;
            store.close().await;
            events?
        }
    };
    let story = Story::find(events, &args.incident).map_err(Failure::usage)?;
    if let Some(path) = &args.svg {
        std::fs::write(path, svg::draw(&story)).with_context(|| format!("--svg {}", path.display()))?;
    }
    if args.json {
        for event in story.events() {
            print_line(&event.to_json().map_err(Failure::start)?);
        }
    } else {
        print_line(&text::tell(&story, text_table::colours()));
    }
    Ok(())
}

fn from_log(path: &Path) -> anyhow::Result<Vec<AnomalyEvent>> {
    let mut input = if path == Path::new("-") { Input::new(path, stdin())? } else { Input::open(path)? };
    let mut events = Vec::new();
    while let Some(line) = input.next_line()? {
        let event = serde_json::from_slice(line);
        events.push(event.map_err(|error| input.wrong(format!("no anomaly event: {error}")))?);
    }
    Ok(events)
}

async fn from_state(store: &Store) -> anyhow::Result<Vec<AnomalyEvent>> {
    let Store { config, log, table, tables, .. } = store;
    let evidence = log.identify(&config.streams.evidence).await.context("evidence stream")?;
    let mut events = Vec::new();
    let parts = inspect::parts(table, tables, &evidence).await.context("incident state")?;
    if let Some(correlate::Stored { body, .. }) = correlate::Stored::read(&parts)? {
        for entry in body.outbox.entries() {
            events.push(serde_json::from_str(&entry.event).context("event in the outbox")?);
        }
    }
    Ok(events)
}

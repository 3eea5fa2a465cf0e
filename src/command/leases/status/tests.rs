use std::time::Duration;

use flowshift_consumer::commit::Manifest;
use flowshift_consumer::lease::new_row;
use flowshift_consumer::shard::{HashRange, Shard, ShardId};

use super::*;

fn row() -> LeaseRow {
    let shard = Shard { id: ShardId::new("s"), parents: Vec::new(), range: HashRange::ALL, closed: false };
    let row = LeaseRow::read(&new_row(&shard, &Checkpoint::TrimHorizon, 0)).unwrap().unwrap();
    LeaseRow { owner: Some("w".into()), epoch: Some(1), ..row }
}

fn lease(row: LeaseRow) -> Lease {
    Lease { stream: "x".into(), shard: "s".into(), children: Vec::new(), row: Ok(row) }
}

fn said(row: &LeaseRow, kind: Kind, sign: Sign, known: &Known) -> &'static str {
    let signs = Signs::from([("w".to_owned(), sign)]);
    let why = stopped(row, None);
    status(&lease(row.clone()), row, kind, why.as_deref(), &signs, known).0
}

const LIVE: Sign = Sign::Live(Duration::from_secs(1));
const SILENT: Sign = Sign::Silent(Duration::from_secs(4));

/// A dead job was listed with `live` in the column STATUS, and its exchange and evidence rows with a dash.
#[test]
fn what_nobody_renews_is_not_called_live() {
    for (kind, word) in [(Kind::Flows, "live"), (Kind::Exchange, "reading"), (Kind::Evidence, "reading")] {
        assert_eq!(said(&row(), kind, LIVE, &Known::default()), word);
        assert_eq!(said(&row(), kind, SILENT, &Known::default()), "not renewed");
    }
    assert_eq!(said(&LeaseRow { owner: None, ..row() }, Kind::Flows, LIVE, &Known::default()), "no owner");
    assert_eq!(said(&LeaseRow { owner: None, epoch: None, ..row() }, Kind::Flows, LIVE, &Known::default()), "waiting");
}

#[test]
fn a_job_is_told_to_stand_still_only_when_every_owner_was_watched_and_silent() {
    let found = [lease(row())];
    let signs = |of: &[(&str, Sign)]| of.iter().map(|(owner, sign)| ((*owner).to_owned(), *sign)).collect::<Signs>();
    let told = nobody(&found, &signs(&[("w", SILENT), ("v", SILENT)])).unwrap();
    assert!(
        told.starts_with("no worker renews these leases: 1 are held, and all 2 owners are silent (4.0 s"),
        "{told}"
    );
    for other in [LIVE, Sign::Unknown, Sign::Stopped] {
        assert_eq!(nobody(&found, &signs(&[("w", SILENT), ("v", other)])), None);
    }
    assert_eq!(nobody(&[lease(LeaseRow { owner: None, ..row() })], &Signs::new()), None);
}

#[test]
fn a_shard_that_stopped_says_why() {
    let told = LeaseRow { trouble: Some("stage: batches are missing".into()), ..row() };
    assert_eq!(stopped(&told, None).as_deref(), Some("stage: batches are missing"));
    assert_eq!(said(&told, Kind::Exchange, LIVE, &Known::default()), "stopped");
    let manifest = Manifest { checkpoint: "7".into(), ..Manifest::default() };
    let moved = LeaseRow { manifest: Some(manifest), ..row() };
    let why = stopped(&moved, None).unwrap();
    assert_eq!(why, "its state is of checkpoint 7, the row stands at TRIM_HORIZON");
    assert_eq!(stopped(&row(), Some("gone")).as_deref(), Some("its state cannot be read: gone"));
    assert_eq!(stopped(&row(), None), None);
    let over = LeaseRow { checkpoint: Checkpoint::ShardEnd, ..told };
    assert_eq!(stopped(&over, None), None);
}

#[test]
fn an_exchange_shard_is_behind_when_another_is_minutes_ahead() {
    let known = Known { foremost_ms: Some(1_000_000), judged_ms: Some(900_000) };
    let at = |ms| LeaseRow { reached: [Some(ms), None, Some(i64::MAX), None], ..row() };
    assert_eq!(said(&at(1_000_000 - BEHIND_MS), Kind::Exchange, LIVE, &known), "reading");
    assert_eq!(said(&at(999_999 - BEHIND_MS), Kind::Exchange, LIVE, &known), "behind");
    assert_eq!(said(&row(), Kind::Exchange, LIVE, &known), "behind", "it never spoke");
    assert_eq!(lag(&at(400_000), Kind::Exchange, &known, 1_000_000), Some(Lag::Behind(600.0)));
    assert_eq!(lag(&row(), Kind::Exchange, &known, 1_000_000), None);
    assert_eq!(lag(&row(), Kind::Evidence, &known, 1_000_000), Some(Lag::Behind(100.0)));
}

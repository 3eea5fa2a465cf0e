//! Incidents, mutes and answers for people.
//!
//! Pure: the server's JSON in, text out. Not for: programs; `--json` gives them the answer as it came.

use flowshift_proto::anomaly::rfc3339;
use serde_json::Value;

use super::super::text_table::{Cell, Tone, render};

/// The open incidents, and below them what is muted and dismissed.
pub(super) fn list(all: &Value, colour: bool) -> String {
    let mut parts = vec![head(all)];
    let rows = |key: &str, row: fn(&Value) -> Vec<Cell>| {
        all[key].as_array().into_iter().flatten().map(row).collect::<Vec<_>>()
    };
    let incidents = rows("incidents", incident);
    if !incidents.is_empty() {
        const HEADINGS: [&str; 7] = ["INCIDENT", "SEVERITY", "VERDICT", "SINCE", "ACKNOWLEDGED", "MUTED", "WHAT"];
        parts.push(render(&HEADINGS, &incidents, colour));
    }
    let mutes = rows("mutes", mute);
    if !mutes.is_empty() {
        parts.push(render(&["MUTE", "OF", "SIGNAL", "UNTIL", "BY", "NOTE"], &mutes, colour));
    }
    let dismissed = rows("dismissed", dismissal);
    if !dismissed.is_empty() {
        parts.push(render(&["NOT AN ISSUE", "PAIRS", "SIGNAL", "UNTIL", "BY", "NOTE"], &dismissed, colour));
    }
    parts.join("\n\n")
}

fn head(all: &Value) -> String {
    let open = all["incidents"].as_array().map_or(0, Vec::len);
    let open = match open {
        0 => "no incident is open".to_owned(),
        1 => "1 incident is open".to_owned(),
        n => format!("{n} incidents are open"),
    };
    match (all["judged_until"].as_i64().and_then(rfc3339), all["age_s"].as_i64()) {
        (Some(until), Some(age)) => format!("{open}; judged up to {until}, {age} s ago"),
        _ => format!("{open}; nothing is judged yet"),
    }
}

/// What a command was answered.
pub(super) fn answer(answer: &Value) -> String {
    let id = text(answer, "id");
    let mute = match (text(answer, "mute"), time(&answer["until"])) {
        (mute, until) if !mute.is_empty() => format!("; it is {mute} until {until}"),
        _ => String::new(),
    };
    match answer["outcome"].as_str() {
        Some(outcome) => format!("{id}: {outcome}{mute}"),
        None => format!("{id}: taken; it holds as soon as the job has heard it{mute}"),
    }
}

fn incident(value: &Value) -> Vec<Cell> {
    let by = value.pointer("/acknowledged/by").and_then(Value::as_str).unwrap_or_default();
    let muted = value.pointer("/muted/until").map(time).unwrap_or_default();
    let severity = text(value, "severity");
    let tone = if severity == "s1" || severity == "s2" { Tone::Bad } else { Tone::Warn };
    vec![
        Cell::plain(text(value, "incident")),
        Cell::toned(severity, tone),
        Cell::plain(text(value, "verdict")),
        Cell::plain(time(&value["started_at"])),
        Cell::plain(by),
        Cell::plain(if muted.is_empty() { muted } else { format!("until {muted}") }),
        Cell::plain(text(value, "summary")),
    ]
}

fn mute(value: &Value) -> Vec<Cell> {
    let places = ["pair", "subnet", "az"].map(|key| (key, text(value, key)));
    let of = places.into_iter().find(|(_, id)| !id.is_empty());
    let of = of.map_or("everywhere".to_owned(), |(key, id)| format!("{key} {id}"));
    let signal = text(value, "signal");
    vec![
        Cell::plain(text(value, "id")),
        Cell::plain(of),
        Cell::plain(if signal.is_empty() { "all" } else { signal }),
        Cell::plain(time(&value["until"])),
        Cell::plain(text(value, "by")),
        Cell::plain(text(value, "note")),
    ]
}

fn dismissal(value: &Value) -> Vec<Cell> {
    let pairs: Vec<&str> = value["pairs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let more = if pairs.len() > 2 { format!(" and {} more", pairs.len() - 2) } else { String::new() };
    vec![
        Cell::plain(text(value, "incident")),
        Cell::plain(pairs[..pairs.len().min(2)].join(", ") + &more),
        Cell::plain(text(value, "signal")),
        Cell::plain(time(&value["until"])),
        Cell::plain(text(value, "by")),
        Cell::plain(text(value, "note")),
    ]
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn time(value: &Value) -> String {
    value.as_i64().and_then(rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_names_what_is_open_muted_and_dismissed_and_how_old_it_is() {
        let all = json!({
            "judged_until": 1_795_310_600, "age_s": 71,
            "incidents": [{
                "incident": "inc-1", "severity": "s1", "verdict": "workload", "started_at": 1_795_310_580,
                "acknowledged": {"by": "ada\u{1b}[2J"}, "muted": {"until": 1_795_314_200}, "summary": "a → b: bad",
            }],
            "mutes": [{"id": "mute-1", "az": "use1-az1", "until": 1_795_314_200, "by": "ada", "note": "works"}],
            "dismissed": [{
                "incident": "inc-0", "pairs": ["a>b", "a>c", "a>d"], "signal": "latency", "until": 1_795_314_200,
                "by": "bob", "note": "",
            }],
        });
        let told = list(&all, false);
        for part in [
            "1 incident is open; judged up to 2026-11-22T01:23:20Z, 71 s ago",
            "inc-1     s1        workload  2026-11-22T01:23:00Z  ada?[2J       until 2026-11-22T02:23:20Z  a → b: bad",
            "mute-1  az use1-az1  all     2026-11-22T02:23:20Z  ada  works",
            "inc-0         a>b, a>c and 1 more  latency",
        ] {
            assert!(told.contains(part), "{part}\n{told}");
        }
        assert_eq!(list(&json!({}), false), "no incident is open; nothing is judged yet");
    }

    #[test]
    fn an_answer_says_what_was_taken() {
        let taken = json!({"id": "word-1", "mute": "mute-1", "until": 1_795_314_200});
        let told = "word-1: taken; it holds as soon as the job has heard it; it is mute-1 until 2026-11-22T02:23:20Z";
        assert_eq!(answer(&taken), told);
        assert_eq!(answer(&json!({"id": "word-1", "outcome": "applied"})), "word-1: applied");
    }
}

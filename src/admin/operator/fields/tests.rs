//! Bodies that are taken and bodies that are not.
use axum::body::to_bytes;
use axum::response::IntoResponse;
use serde_json::json;

use super::*;

const NOW_S: i64 = 1_795_310_600;

fn clock() -> WallClock {
    WallClock::new(|| NOW_S * 1_000 + 999)
}

/// A whole mute.
fn mute(body: &Value) -> Result<(String, String, Scope, i64), Refusal> {
    let mut fields = Fields::parse(body.to_string().as_bytes())?;
    let (by, note) = fields.speaker()?;
    let (scope, until_s) = (fields.scope()?, fields.end(&clock())?);
    fields.flag("force")?;
    fields.finish("all of them")?;
    Ok((by, note, scope, until_s))
}

#[test]
fn a_mute_has_a_speaker_a_scope_and_an_end() {
    let (by, note, scope, until_s) =
        mute(&json!({"by": " ada ", "note": "", "pair": "subnet-a > subnet-b", "signal": "latency", "for": "90m"}))
            .unwrap();
    assert_eq!((by.as_str(), note.as_str(), until_s), ("ada", "", NOW_S + 5_400));
    let pair = Place::Pair { src: "subnet-a".into(), dst: "subnet-b".into() };
    assert_eq!(scope, Scope { place: Some(pair), signal: Some(Signal::Latency) });
    let (.., scope, until_s) = mute(&json!({"by": "ada", "az": "use1-az1", "until": "2026-11-22T02:23:20Z"})).unwrap();
    assert_eq!((scope.place, until_s), (Some(Place::Az("use1-az1".into())), NOW_S + 3_600));
}

#[tokio::test]
async fn an_absurd_body_is_refused_with_field_value_and_fix() {
    let good = json!({"by": "ada", "pair": "a>b", "for": "2h"});
    let cases = [
        ("by", json!(null)),
        ("by", json!(7)),
        ("by", json!("")),
        ("by", json!("a\u{1b}[2Jb")),
        ("note", json!(["x"])),
        ("note", json!("x".repeat(1_001))),
        ("pair", json!("a-b")),
        ("pair", json!(">b")),
        ("subnet", json!("b")),
        ("az", json!("b")),
        ("signal", json!("Latency")),
        ("for", json!(7_200)),
        ("for", json!("soon")),
        ("for", json!("0s")),
        ("for", json!("59s")),
        ("for", json!("31days")),
        ("for", json!("9999999999years")),
        ("until", json!("2026-11-22T02:23:20Z")),
        ("force", json!("yes")),
        ("sginal", json!("latency")),
    ];
    for (field, value) in cases {
        let mut body = good.clone();
        body[field] = value.clone();
        let refusal = mute(&body).unwrap_err();
        let answer = refusal.into_response();
        assert_eq!(answer.status(), 400, "{field} {value}");
        let answer = to_bytes(answer.into_body(), 10_000).await.unwrap();
        assert!(answer.len() < 700, "{answer:?}");
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!((&answer["error"], &answer["field"]), (&json!("invalid"), &json!(field)), "{answer}");
        assert!(answer.as_object().unwrap().contains_key("value") && answer["fix"].as_str() > Some(""), "{answer}");
    }
}

#[test]
fn what_is_no_object_is_refused_and_nothing_is_muted_without_a_scope_or_an_end() {
    for body in ["[]", "7", "{", "\u{0}", "{\"by\":\"a\",\"by\""] {
        assert!(Fields::parse(body.as_bytes()).is_err(), "{body}");
    }
    assert!(Fields::parse(&b"[".repeat(10_000)).is_err(), "deep nesting");
    assert!(mute(&json!({"by": "ada", "for": "2h"})).is_err());
    assert!(mute(&json!({"by": "ada", "az": "use1-az1"})).is_err());
    assert!(mute(&json!({"by": "ada", "az": "use1-az1", "until": "2026-11-22"})).is_err(), "in the past");
    assert!(mute(&json!({"by": "ada", "az": "use1-az1", "until": "soon"})).is_err());
}

#[test]
fn an_id_from_a_path_is_letters_digits_and_dashes() {
    assert_eq!(id("incident", "inc-3f9a0c5d2b7e4811", ""), Ok("inc-3f9a0c5d2b7e4811"));
    for bad in ["", "..", "inc%2f", "inc 1", &"x".repeat(201)] {
        assert!(id("incident", bad, "").is_err(), "{bad}");
    }
}

//! `flowshift webhook verify`: is this request ours, and if not, why?
//!
//! For: a person whose receiver refuses what it gets. The check is that of Standard Webhooks; beyond it the usual mistakes
//! (a body that was changed on its way, an old request) are named. Not for: receivers; they use a library. Invariant: neither
//! the secret nor the signature that would be right is shown.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use humantime_serde::re::humantime::{format_duration, parse_duration};
use serde_json::{Value, json};

use crate::cli::Verify;
use crate::command::{Failure, print_line};
use crate::webhook::{Secrets, WallClock};

/// Why a request is not ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Mismatch {
    #[error("header {0} is missing")]
    Missing(&'static str),
    #[error("webhook-timestamp {0:?} is no number of seconds")]
    Timestamp(String),
    #[error("the request is {age} old, more than {tolerance}: sent again by somebody else, or the clocks differ")]
    Old { age: String, tolerance: String },
    #[error("the request is {ahead} ahead of now, more than {tolerance}: the clocks differ")]
    Ahead { ahead: String, tolerance: String },
    #[error("webhook-signature has no signature of version v1")]
    NoVersion,
    #[error("the body is not utf-8")]
    Utf8,
    #[error("the body was changed: {0}")]
    Changed(&'static str),
    #[error("the body is empty: the receiver read it before it was written, or {0}")]
    Empty(&'static str),
    #[error("no signature fits: {0}")]
    NoneFits(&'static str),
}

/// The body parses and has the form of ours.
const AS_SENT: &str = "the body has the form that ours have, so most likely it was signed with another secret; or webhook-id or \
     webhook-timestamp were changed";
/// It has not.
const NOT_AS_SENT: &str = "the body is not in the form that ours have: it was changed on its way, or is of somebody else; or the secret is another";

impl Mismatch {
    /// What failed, for programs.
    fn part(&self) -> &'static str {
        match self {
            Self::Missing(_) | Self::NoVersion | Self::Timestamp(_) => "headers",
            Self::Utf8 | Self::Changed(_) | Self::Empty(_) => "body",
            Self::NoneFits(_) => "signature",
            Self::Old { .. } | Self::Ahead { .. } => "time",
        }
    }
}

pub(super) fn run(request: &Verify) -> Result<(), Failure> {
    let tolerance = parse_duration(&request.tolerance).map_err(|error| {
        Failure::usage(anyhow::anyhow!("--tolerance {}: {error}; use a time such as 5m", request.tolerance))
    })?;
    let secrets = Secrets::from_file(&request.secret_file).map_err(|error| {
        let fix = "only `standard` and `cloudevents` are signed, by secrets whsec_...; the other formats' secrets sign nothing";
        Failure::usage(anyhow::anyhow!("--secret-file: {error}; {fix}"))
    })?;
    let headers = std::fs::read_to_string(&request.headers);
    let headers =
        headers.with_context(|| format!("--headers {}", request.headers.display())).map_err(Failure::usage)?;
    let body = read(&request.body).with_context(|| format!("--body {}", request.body.display()));
    let now_s = WallClock::system().now_ms().div_euclid(1_000);
    let verified = verify(&secrets, &headers, &body.map_err(Failure::usage)?, now_s, tolerance);
    if request.json {
        let why = verified.as_ref().err().map(ToString::to_string);
        let part = verified.as_ref().err().map(Mismatch::part);
        let secret = verified.as_ref().ok();
        let told = json!({"verified": verified.is_ok(), "secret": secret, "failed": part, "problem": why});
        print_line(&told.to_string());
    } else if let Ok(secret) = verified {
        print_line(&format!("verified with secret {secret}"));
    }
    verified.map(|_| ()).map_err(Failure::start)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    if path != Path::new("-") {
        return std::fs::read(path);
    }
    let mut body = Vec::new();
    std::io::stdin().read_to_end(&mut body)?;
    Ok(body)
}

/// The number of the secret that fits, from 1.
fn verify(secrets: &Secrets, headers: &str, body: &[u8], now_s: i64, tolerance: Duration) -> Result<usize, Mismatch> {
    let id = header(headers, "webhook-id").ok_or(Mismatch::Missing("webhook-id"))?;
    let timestamp = header(headers, "webhook-timestamp").ok_or(Mismatch::Missing("webhook-timestamp"))?;
    let signatures = header(headers, "webhook-signature").ok_or(Mismatch::Missing("webhook-signature"))?;
    let sent_s: i64 = timestamp.parse().map_err(|_| Mismatch::Timestamp(timestamp.to_owned()))?;
    let told: Vec<&str> = signatures.split_whitespace().filter(|signature| signature.starts_with("v1,")).collect();
    if told.is_empty() {
        return Err(Mismatch::NoVersion);
    }
    let fitting = |body: &[u8]| -> Result<Option<usize>, Mismatch> {
        let ours = secrets.signatures(id, sent_s, body).map_err(|_| Mismatch::Utf8)?;
        Ok(ours.iter().position(|ours| told.contains(&ours.as_str())))
    };
    let Some(place) = fitting(body)? else {
        return Err(match changed(body, fitting)? {
            Some(how) => Mismatch::Changed(how),
            None if body.is_empty() => Mismatch::Empty("--body names another file than the request's"),
            None if has_our_form(body) => Mismatch::NoneFits(AS_SENT),
            None => Mismatch::NoneFits(NOT_AS_SENT),
        });
    };
    let shown = |seconds: u64| format_duration(Duration::from_secs(seconds)).to_string();
    let away = now_s.abs_diff(sent_s);
    if !tolerance.is_zero() && away > tolerance.as_secs() {
        let tolerance = format_duration(tolerance).to_string();
        return Err(if now_s > sent_s {
            Mismatch::Old { age: shown(away), tolerance }
        } else {
            Mismatch::Ahead { ahead: shown(away), tolerance }
        });
    }
    Ok(place + 1)
}

/// How a body that does not fit came to be, where it is one of the usual ways.
fn changed(
    body: &[u8],
    fitting: impl Fn(&[u8]) -> Result<Option<usize>, Mismatch>,
) -> Result<Option<&'static str>, Mismatch> {
    let trimmed = body.trim_ascii();
    if trimmed.len() < body.len() && fitting(trimmed)?.is_some() {
        return Ok(Some("white space was added at an end, such as a line end"));
    }
    // Parsed and written anew, fields keep their values and lose their form; what is sent has none to lose.
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
    let packed = std::str::from_utf8(body).ok().filter(|_| is_json).map(without_spaces);
    if let Some(packed) = packed
        && packed.as_bytes() != body
        && fitting(packed.as_bytes())?.is_some()
    {
        return Ok(Some("it was parsed and written anew; verify the bytes as they came"));
    }
    Ok(None)
}

/// An object without white space between its parts, with the fields of Standard Webhooks or of CloudEvents.
fn has_our_form(body: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(body) else { return false };
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return false };
    ["type", "data"].iter().all(|field| fields.contains_key(*field)) && without_spaces(text) == text
}

/// JSON without white space between its parts, in the same order.
fn without_spaces(json: &str) -> String {
    let (mut inside, mut escaped) = (false, false);
    json.chars()
        .filter(|&c| {
            let keep = inside || !c.is_ascii_whitespace();
            inside = if inside { c != '"' || escaped } else { c == '"' };
            escaped = inside && c == '\\' && !escaped;
            keep
        })
        .collect()
}

/// The value of a header, whatever the case of its name and the sign that a tool sets before it.
fn header<'a>(headers: &'a str, name: &str) -> Option<&'a str> {
    headers.lines().find_map(|line| {
        let line = line.trim_start_matches(['<', '>', ' ', '\t']);
        let (found, value) = line.split_once(':')?;
        found.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const OTHER: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const BODY: &[u8] = b"{\"type\":\"a \\\" b\",\"n\":1}";
    const SENT_S: i64 = 1_795_310_600;

    fn secrets(text: &str) -> Secrets {
        Secrets::parse(text).unwrap()
    }

    fn headers() -> String {
        let signature = secrets(ONE).signatures("evt_1", SENT_S, BODY).unwrap().remove(0);
        format!(
            "POST / HTTP/1.1\r\nHost: x\r\nWebhook-Id: evt_1\r\n> webhook-timestamp: {SENT_S}\r\nwebhook-signature: v1a,x {signature}\r\n"
        )
    }

    fn check(headers: &str, body: &[u8], now_s: i64) -> Result<usize, Mismatch> {
        verify(&secrets(&format!("{OTHER}\n{ONE}")), headers, body, now_s, Duration::from_secs(300))
    }

    #[test]
    fn a_request_fits_by_either_secret_within_the_tolerance() {
        assert_eq!(check(&headers(), BODY, SENT_S + 300), Ok(2));
        assert_eq!(verify(&secrets(ONE), &headers(), BODY, i64::MAX, Duration::ZERO), Ok(1));
    }

    #[test]
    fn what_does_not_fit_is_told_by_its_reason() {
        let without = |name: &str| headers().lines().filter(|line| !line.contains(name)).collect::<Vec<_>>().join("\n");
        let text = |checked: Result<usize, Mismatch>| checked.unwrap_err().to_string();
        assert_eq!(text(check(&without("signature"), BODY, SENT_S)), "header webhook-signature is missing");
        assert_eq!(text(check(&without("Id"), BODY, SENT_S)), "header webhook-id is missing");
        assert!(text(check(&headers(), BODY, SENT_S + 3_600)).starts_with("the request is 1h old, more than 5m"));
        assert!(text(check(&headers(), BODY, SENT_S - 301)).starts_with("the request is 5m 1s ahead of now"));
        let soon = headers().replace(&SENT_S.to_string(), "soon");
        assert_eq!(text(check(&soon, BODY, SENT_S)), "webhook-timestamp \"soon\" is no number of seconds");
        let asymmetric = headers().replace(" v1,", " v2,");
        assert_eq!(check(&asymmetric, BODY, SENT_S), Err(Mismatch::NoVersion));
        let wrong = verify(&secrets(OTHER), &headers(), BODY, SENT_S, Duration::ZERO);
        assert!(matches!(wrong, Err(Mismatch::NoneFits(_))), "{wrong:?}");
        let renamed = check(&headers().replace("evt_1", "evt_2"), BODY, SENT_S);
        assert!(matches!(renamed, Err(Mismatch::NoneFits(_))), "{renamed:?}");
        assert_eq!(check(&headers(), b"\xff", SENT_S), Err(Mismatch::Utf8));
    }

    #[test]
    fn a_body_that_was_changed_on_its_way_is_told_apart_from_a_wrong_secret() {
        let line = [BODY, b"\n"].concat();
        let spaced = b"{ \"type\": \"a \\\" b\",\n  \"n\": 1 }";
        for (body, how) in [(&line[..], "line end"), (&spaced[..], "parsed and written anew")] {
            let told = check(&headers(), body, SENT_S).unwrap_err();
            assert!(matches!(told, Mismatch::Changed(why) if why.contains(how)), "{told}");
        }
    }

    /// One sentence named secret, id, time and body for all of these.
    #[test]
    fn another_secret_another_body_a_late_request_and_an_empty_one_are_told_apart() {
        let other = secrets(OTHER);
        let body = br#"{"type":"anomaly.opened","timestamp":"2026-11-22T01:23:20Z","data":{"a":1}}"#;
        let signature = secrets(ONE).signatures("evt_1", SENT_S, body).unwrap().remove(0);
        let headers = format!("webhook-id: evt_1\nwebhook-timestamp: {SENT_S}\nwebhook-signature: {signature}\n");
        let told = |secrets: &Secrets, body: &[u8], now_s| {
            let why = verify(secrets, &headers, body, now_s, Duration::from_secs(300)).unwrap_err();
            (why.part(), why.to_string())
        };
        let (part, why) = told(&other, body, SENT_S);
        assert!(part == "signature" && why.contains("signed with another secret"), "{why}");
        let (part, why) = told(&secrets(ONE), b"{\"other\":1}", SENT_S);
        assert!(part == "signature" && why.contains("not in the form"), "{why}");
        let (part, why) = told(&secrets(ONE), body, SENT_S + 301);
        assert!(part == "time" && why.contains("old"), "{why}");
        assert_eq!(told(&secrets(ONE), b"", SENT_S).0, "body");
    }
}

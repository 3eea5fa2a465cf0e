//! What the body of a command may say.
//!
//! For: one JSON object into the parts of a word, field by field, so that each error names the field, its value and the
//! fix.
//! Not for: whether what it names exists. Invariant: an unknown field is an error: a misspelt `signal` must not mute
//! all.

use flowshift_consumer::clock::WallClock;
use flowshift_detector::correlate::LONGEST_S;
use flowshift_detector::{Place, Scope, Signal};
use humantime_serde::re::humantime::{parse_duration, parse_rfc3339_weak};
use serde_json::{Map, Value};

use super::refusal::Refusal;

/// Bytes of the longest note.
const NOTE: usize = 1_000;
/// Bytes of the longest name or id.
const NAME: usize = 200;
/// Shortest time a mute or dismissal is said for, s.
const SHORTEST_S: i64 = 60;

/// The fields not taken yet.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// The object in a body; no body is an empty one.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        if body.trim_ascii().is_empty() {
            return Ok(Self(Map::new()));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(Refusal::malformed("the body is JSON, but no object")),
            Err(error) => Err(Refusal::malformed(format!("the body is no JSON: {error}"))),
        }
    }

    /// Who speaks, and why.
    pub(super) fn speaker(&mut self) -> Result<(String, String), Refusal> {
        let by = self.text("by", NAME)?;
        let by = by.ok_or_else(|| Refusal::field("by", &Value::Null, "nobody is named", "say who you are"))?;
        Ok((by, self.text("note", NOTE)?.unwrap_or_default()))
    }

    /// The event time of an end (epoch s), from `for` or `until`.
    pub(super) fn end(&mut self, clock: &WallClock) -> Result<i64, Refusal> {
        let now_s = clock.now_ms().div_euclid(1_000);
        let days = LONGEST_S / 86_400;
        let range = format!("use 1 minute to {days} days from now, such as \"for\": \"2h\"");
        let (name, value, end_s) = match (self.0.remove("for"), self.0.remove("until")) {
            (Some(_), Some(until)) => {
                return Err(Refusal::field("until", &until, "stands beside `for`", "keep one of the two"));
            }
            (None, None) => return Err(Refusal::field("for", &Value::Null, "no end is given", range)),
            (Some(span), None) => {
                let parsed = span.as_str().and_then(|text| parse_duration(text).ok());
                let parsed = parsed.and_then(|span| i64::try_from(span.as_secs()).ok());
                ("for", span, parsed.map(|seconds| now_s.saturating_add(seconds)))
            }
            (None, Some(until)) => {
                let parsed = until.as_str().and_then(|text| parse_rfc3339_weak(text).ok());
                let parsed = parsed.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
                ("until", until, parsed.and_then(|at| i64::try_from(at.as_secs()).ok()))
            }
        };
        let Some(end_s) = end_s else {
            let what = if name == "for" { "is no length of time" } else { "is no time" };
            let fix = if name == "for" { range } else { "write a time such as 2026-11-22T10:30:00Z".to_owned() };
            return Err(Refusal::field(name, &value, what, fix));
        };
        // The last minute of the limit is for the clocks of others.
        if !(SHORTEST_S..=LONGEST_S - 60).contains(&end_s.saturating_sub(now_s)) {
            return Err(Refusal::field(name, &value, "ends too soon or too late", range));
        }
        Ok(end_s)
    }

    /// What a mute is about.
    pub(super) fn scope(&mut self) -> Result<Scope, Refusal> {
        let pair = self.text("pair", 2 * NAME + 1)?;
        let (subnet, az) = (self.text("subnet", NAME)?, self.text("az", NAME)?);
        let place = match (pair, subnet, az) {
            (None, None, None) => None,
            (Some(pair), None, None) => match pair.split_once('>').map(|(src, dst)| (src.trim(), dst.trim())) {
                Some((src, dst)) if !src.is_empty() && !dst.is_empty() => {
                    Some(Place::Pair { src: src.to_owned(), dst: dst.to_owned() })
                }
                _ => {
                    let fix = "write source > destination, such as \"subnet-a>subnet-b\"";
                    return Err(Refusal::field("pair", &Value::from(pair), "is no directed pair", fix));
                }
            },
            (None, Some(subnet), None) => Some(Place::Subnet(subnet)),
            (None, None, Some(az)) => Some(Place::Az(az)),
            (_, Some(subnet), _) => {
                return Err(Refusal::field("subnet", &Value::from(subnet), "is a second place", ONE_PLACE));
            }
            (_, _, Some(az)) => return Err(Refusal::field("az", &Value::from(az), "is a second place", ONE_PLACE)),
        };
        let signal = self.signal()?;
        if place.is_none() && signal.is_none() {
            let fix = "give `pair`, `subnet`, `az` or `signal`";
            return Err(Refusal::field("pair", &Value::Null, "nothing says what to mute", fix));
        }
        Ok(Scope { place, signal })
    }

    fn signal(&mut self) -> Result<Option<Signal>, Refusal> {
        const ALL: [Signal; 4] = [Signal::Retransmit, Signal::Latency, Signal::Connect, Signal::Silence];
        let Some(name) = self.text("signal", NAME)? else { return Ok(None) };
        match ALL.into_iter().find(|signal| signal.as_str() == name) {
            Some(signal) => Ok(Some(signal)),
            None => {
                let fix = format!("use {}", ALL.map(Signal::as_str).join(", "));
                Err(Refusal::field("signal", &Value::from(name), "is no signal", fix))
            }
        }
    }

    /// A yes or no; no, if nothing is said.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Refusal> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(said)) => Ok(said),
            Some(value) => Err(Refusal::field(name, &value, "is neither true nor false", "use true or false")),
        }
    }

    /// Nothing else may be said; `known` are the fields of the command.
    pub(super) fn finish(self, known: &str) -> Result<(), Refusal> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((name, value)) => {
                Err(Refusal::field(&name, &value, "is no field of this command", format!("its fields are {known}")))
            }
        }
    }

    fn text(&mut self, name: &str, longest: usize) -> Result<Option<String>, Refusal> {
        let value = match self.0.remove(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value,
        };
        let fix = format!("use a text of 1 to {longest} bytes without control characters");
        match value.as_str().map(str::trim) {
            None => Err(Refusal::field(name, &value, "is no text", fix)),
            Some(text) if text.is_empty() && name == "note" => Ok(None),
            Some("") => Err(Refusal::field(name, &value, "is empty", fix)),
            Some(text) if text.len() > longest => Err(Refusal::field(name, &value, "is too long", fix)),
            Some(text) if text.chars().any(char::is_control) => {
                Err(Refusal::field(name, &value, "has control characters", fix))
            }
            Some(text) => Ok(Some(text.to_owned())),
        }
    }
}

const ONE_PLACE: &str = "give one of `pair`, `subnet` and `az`";

/// Checks an id from a path.
pub(super) fn id<'a>(what: &str, id: &'a str, fix: &str) -> Result<&'a str, Refusal> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if (1..=NAME).contains(&id.len()) && id.bytes().all(fits) { Ok(id) } else { Err(Refusal::not_found(what, id, fix)) }
}

#[cfg(test)]
mod tests;

//! The sentence for people.
//!
//! For: one line that says where, how much against what, on how many samples, and why this verdict.
//! Not for: machines; all of it stands in fields too.
//! Invariant: integer arithmetic only, so the text is the same everywhere.

use crate::event::{Reason, Verdict};
use crate::evidence::{Effect, Signal};
use crate::topology::ElementKind;

use super::incident::Incident;

pub(super) fn sentence(incident: &Incident) -> String {
    let strongest = &incident.strongest;
    let what = measured(incident.signal, &strongest.effect);
    let counts = incident.counts;
    let verdict = match incident.verdict {
        Verdict::Workload => "workload",
        Verdict::ProviderPath => "provider path",
        Verdict::SharedUnknown => "shared, cause unknown",
        Verdict::Insufficient => "too few neighbours to tell the cause",
    };
    let all = counts.worse + counts.quiet;
    if incident.element.kind == ElementKind::Pair {
        let of = format!("{} of {all} pairs nearby worse", counts.worse);
        format!("{}: {what}; {of}: {verdict}", strongest.pair)
    } else {
        let of = format!("{} of {all} pairs worse", counts.worse);
        format!("{}: {of}; strongest {}: {what}: {verdict}", incident.element, strongest.pair)
    }
}

pub(super) fn ending(incident: &Incident, reason: Reason, at: i64) -> String {
    let what = match incident.signal {
        Signal::Connect => "connection failures",
        Signal::Retransmit => "retransmissions",
        Signal::Latency => "round-trip time",
        Signal::Silence => "traffic",
    };
    let whose = if incident.element.kind == ElementKind::Pair {
        incident.strongest.pair.to_string()
    } else {
        incident.element.to_string()
    };
    let seconds = at.saturating_sub(incident.opened_s);
    match reason {
        Reason::Recovered => format!("{whose}: {what} back to normal {seconds} s after the incident opened"),
        Reason::NewNormal => format!("{whose}: the new level of {what} has lasted and is the baseline now"),
        Reason::Merged => format!("{whose}: part of a wider incident"),
        Reason::NotAnIssue => format!("{whose}: {what}: not an issue, as an operator says"),
    }
}

fn measured(signal: Signal, effect: &Effect) -> String {
    let (n, seconds) = (thousands(effect.observed_n), effect.observed_s);
    match signal {
        Signal::Silence => {
            let now = percent(effect.observed);
            format!("{now} of the expected traffic is left and times out, {n} flows in {seconds} s")
        }
        Signal::Latency => {
            let (now, usual) = (duration(effect.observed), duration(effect.baseline));
            let which = if effect.quantile_pct == 50 { "median".into() } else { format!("p{}", effect.quantile_pct) };
            format!("{which} round trip {now} (baseline {usual}), {n} flows in {seconds} s")
        }
        Signal::Connect => {
            let (now, usual) = (percent(effect.observed), percent(effect.baseline));
            format!("{now} of connection attempts failed (baseline {usual}), {n} attempts in {seconds} s")
        }
        Signal::Retransmit => {
            let (now, usual) = (percent(effect.observed), percent(effect.baseline));
            format!("{now} of segments retransmitted (baseline {usual}), {n} segments in {seconds} s")
        }
    }
}

/// Parts per million as per cent: one decimal from 1 % on, two below, three below 0.1 %.
fn percent(ppm: i64) -> String {
    let (unit, digits) = match ppm.unsigned_abs() {
        10_000.. => (1_000, 1),
        1_000.. => (100, 2),
        _ => (10, 3),
    };
    format!("{} %", decimal(ppm, unit, digits))
}

/// µs, ms or s with one decimal.
fn duration(us: i64) -> String {
    match us.unsigned_abs() {
        1_000_000.. => format!("{} s", decimal(us, 100_000, 1)),
        1_000.. => format!("{} ms", decimal(us, 100, 1)),
        _ => format!("{us} µs"),
    }
}

/// `value` / (`unit` × 10^digits) with `digits` decimals, rounded half up.
fn decimal(value: i64, unit: i64, digits: u32) -> String {
    let scaled = value.saturating_add(unit / 2).div_euclid(unit);
    let ten = 10i64.pow(digits);
    let width = digits as usize;
    format!("{}.{:0width$}", scaled.div_euclid(ten), scaled.rem_euclid(ten))
}

fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(percent(49_312), "4.9 %");
        assert_eq!(percent(213), "0.021 %");
        assert_eq!(percent(4_560), "0.46 %");
        assert_eq!(duration(48_310), "48.3 ms");
        assert_eq!(duration(420), "420 µs");
        assert_eq!(thousands(5_400), "5,400");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }
}

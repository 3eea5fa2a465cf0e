//! Our clock against that of AWS, by the `Date` of an answer.
//!
//! AWS refuses signatures that are 5 minutes off; receivers of webhooks do the same with the time in the signature.
//! Leases and event time go by no clock of ours, so seconds do no harm.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::BoxError;

use super::answer::Trouble;
use super::{Finding, Patient};

/// The header has whole seconds, and the way takes some.
const NOTHING: Duration = Duration::from_secs(5);
/// From here on signatures are about to be refused.
const TOO_MUCH: Duration = Duration::from_secs(240);

/// Remembers how far the server's clock was ahead, in milliseconds.
#[derive(Debug, Clone, Default)]
struct Dates(Arc<Mutex<Option<i128>>>);

impl Intercept for Dates {
    fn name(&self) -> &'static str {
        "Dates"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date").and_then(|text| httpdate::parse_http_date(text).ok());
        if let Some(date) = date {
            let now = SystemTime::now();
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead_ms(date, now));
        }
        Ok(())
    }
}

fn ahead_ms(date: SystemTime, now: SystemTime) -> i128 {
    let since = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| i128::try_from(d.as_millis()).unwrap_or(i128::MAX))
    };
    // Half a second is what the header leaves out on average.
    since(date) + 500 - since(now)
}

pub(super) async fn check(patient: &Patient) -> Vec<Finding> {
    if let Some(blocked) = patient.blocked().await {
        return vec![blocked];
    }
    let dates = Dates::default();
    let config = patient.clients.kinesis.config().to_builder().interceptor(dates.clone()).build();
    let kinesis = aws_sdk_kinesis::Client::from_conf(config);
    // Whatever is answered, a refusal too, has a date.
    let sent = kinesis.describe_stream_summary().stream_name(&patient.config.streams.flows).send().await;
    let seen = *dates.0.lock().unwrap_or_else(PoisonError::into_inner);
    vec![match (seen, sent.map_err(|error| Trouble::of(&error))) {
        (Some(ahead), _) => verdict(ahead),
        (None, Err(trouble @ Trouble::Unreachable(_))) => {
            Finding::fault("Kinesis", format!("no answer: {}", trouble.text()), trouble.fix())
        }
        (None, _) => Finding::skipped("", "answers carry no date", "AWS sends one; a proxy may take it out"),
    }]
}

/// `ahead_ms`: how far the server's clock is ahead of ours, milliseconds.
fn verdict(ahead_ms: i128) -> Finding {
    let off = Duration::from_millis(u64::try_from(ahead_ms.unsigned_abs()).unwrap_or(u64::MAX));
    let ours = if ahead_ms > 0 { "behind" } else { "ahead of" };
    let what = format!("our clock is {} s {ours} that of AWS", off.as_secs());
    const FIX: &str = "set the clock and keep it (chrony, systemd-timesyncd; on EC2: 169.254.169.123)";
    if off < NOTHING {
        Finding::ok("", "agrees with that of AWS")
    } else if off < TOO_MUCH {
        Finding::warning("", what, FIX)
    } else {
        Finding::fault("", format!("{what}: AWS refuses signatures from 5 minutes on, receivers refuse webhooks"), FIX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn seconds_are_nothing_minutes_a_warning_and_an_hour_a_fault_either_way() {
        for (ahead_ms, level) in [
            (0, Level::Ok),
            (-4_900, Level::Ok),
            (6_000, Level::Warning),
            (-60_000, Level::Warning),
            (3_600_000, Level::Fault),
            (-3_600_000, Level::Fault),
        ] {
            assert_eq!(verdict(ahead_ms).level, level, "{ahead_ms}");
        }
        assert!(verdict(3_600_000).what.contains("3600 s behind"));
        assert!(verdict(-3_600_000).what.contains("3600 s ahead"));
    }

    #[test]
    fn a_header_that_leaves_out_fractions_is_half_a_second_on_average() {
        let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        assert_eq!(ahead_ms(at(10_000), at(10_500)), 0);
        assert_eq!(ahead_ms(at(10_000), at(13_500)), -3_000);
    }
}

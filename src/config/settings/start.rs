//! Where a new job starts in its input: two words, or a time as people write it.
//!
//! Invariant: text and value round-trip; a time is kept to the millisecond, as Kinesis takes it, and lies in 1970 or later.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Where shards start that nobody has read yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// At the oldest record kept.
    #[default]
    TrimHorizon,
    /// At the records that arrive from now on.
    Latest,
    /// At the records that arrived at this time or later, epoch milliseconds, not negative.
    Time(i64),
}

/// What can be written.
const WANTED: &str = "`trim_horizon`, `latest` or an RFC 3339 time such as `2026-11-22T08:00:00Z`";

/// A text is none of the words and no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no place to start at, expected {WANTED}")]
pub struct StartAtError(String);

impl FromStr for StartAt {
    type Err = StartAtError;

    fn from_str(text: &str) -> Result<Self, StartAtError> {
        match text {
            "trim_horizon" => return Ok(Self::TrimHorizon),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        let time = DateTime::from_str(text, Format::DateTimeWithOffset).ok();
        let millis = time.and_then(|time| time.to_millis().ok()).filter(|millis| *millis >= 0);
        millis.map(Self::Time).ok_or_else(|| StartAtError(text.to_owned()))
    }
}

impl fmt::Display for StartAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrimHorizon => f.write_str("trim_horizon"),
            Self::Latest => f.write_str("latest"),
            Self::Time(millis) => {
                f.write_str(&DateTime::from_millis(*millis).fmt(Format::DateTime).unwrap_or_default())
            }
        }
    }
}

impl Serialize for StartAt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StartAt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = StartAt;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(WANTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<StartAt, E> {
                text.parse().map_err(E::custom)
            }

            /// A time without quotes, which TOML has, too.
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<StartAt, A::Error> {
                let time = toml::value::Datetime::deserialize(MapAccessDeserializer::new(map))?;
                time.to_string().parse().map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for StartAt {
    fn schema_name() -> Cow<'static, str> {
        "StartAt".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["trim_horizon", "latest", "2026-11-22T08:00:00Z"] })
    }
}

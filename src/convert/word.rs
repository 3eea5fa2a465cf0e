//! An operator's word on its way to CORRELATE.
//!
//! For: the detector's word as one record of the evidence stream and back.
//! Not for: who may say it and what people write; see the admin server.
//! Invariant: the bytes are a function of the word alone, and no text in it is longer than [`LONGEST`].

use flowshift_detector::{IncidentId, Order, Place, Scope, Word};
use flowshift_proto::evidence as wire;

use super::ConvertError;
use super::evidence::{signal_from_number, signal_to_wire};

/// Bytes of the longest text in a word: a name, an id, a note.
pub const LONGEST: usize = 2_048;

/// Encodes a word as a record of the evidence stream.
pub fn encode(word: &Word) -> Vec<u8> {
    let record = wire::StepEvidence { word: Some(to_wire(word)), ..wire::StepEvidence::default() };
    wire::encode(record, wire::MAX_BYTES)
}

fn to_wire(word: &Word) -> wire::Word {
    let order = match &word.order {
        Order::Acknowledge(id) => wire::word::Order::Acknowledge(wire::Acknowledge { incident: id.to_string() }),
        Order::Mute { scope, until_s } => wire::word::Order::Mute(wire::Mute {
            place: scope.place.as_ref().map(place_to_wire),
            signal: scope.signal.map_or(wire::Signal::Unspecified, signal_to_wire) as i32,
            until_s: *until_s,
        }),
        Order::Unmute(id) => wire::word::Order::Unmute(wire::Unmute { id: id.clone() }),
        Order::NotAnIssue { incident, until_s } => {
            wire::word::Order::NotAnIssue(wire::NotAnIssue { incident: incident.to_string(), until_s: *until_s })
        }
    };
    wire::Word { said_s: word.said_s, by: word.by.clone(), note: word.note.clone(), order: Some(order) }
}

fn place_to_wire(place: &Place) -> wire::mute::Place {
    match place {
        Place::Pair { src, dst } => wire::mute::Place::Pair(wire::PairIds { src: src.clone(), dst: dst.clone() }),
        Place::Subnet(id) => wire::mute::Place::Subnet(id.clone()),
        Place::Az(az) => wire::mute::Place::Az(az.clone()),
    }
}

/// The word in a record.
///
/// # Errors
/// It has no order or scope, an unknown signal, or a text above [`LONGEST`].
pub(super) fn from_wire(word: &wire::Word) -> Result<Word, ConvertError> {
    let order = match word.order.as_ref().ok_or(ConvertError::Missing { what: "order of a word" })? {
        wire::word::Order::Acknowledge(said) => Order::Acknowledge(incident(&said.incident)?),
        wire::word::Order::Mute(said) => Order::Mute { scope: scope(said)?, until_s: said.until_s },
        wire::word::Order::Unmute(said) => Order::Unmute(text("id of a mute", &said.id)?),
        wire::word::Order::NotAnIssue(said) => {
            Order::NotAnIssue { incident: incident(&said.incident)?, until_s: said.until_s }
        }
    };
    let (by, note) = (text("name of an operator", &word.by)?, text("note of a word", &word.note)?);
    Ok(Word { said_s: word.said_s, by, note, order })
}

fn incident(id: &str) -> Result<IncidentId, ConvertError> {
    Ok(IncidentId::new(text("id of an incident", id)?))
}

fn scope(mute: &wire::Mute) -> Result<Scope, ConvertError> {
    let signal = match mute.signal {
        0 => None,
        number => Some(signal_from_number(number)?),
    };
    let place = match &mute.place {
        None if signal.is_none() => return Err(ConvertError::Missing { what: "scope of a mute" }),
        None => None,
        Some(wire::mute::Place::Pair(pair)) => Some(Place::Pair {
            src: text("source of a pair", &pair.src)?,
            dst: text("destination of a pair", &pair.dst)?,
        }),
        Some(wire::mute::Place::Subnet(id)) => Some(Place::Subnet(text("subnet of a mute", id)?)),
        Some(wire::mute::Place::Az(az)) => Some(Place::Az(text("zone of a mute", az)?)),
    };
    Ok(Scope { place, signal })
}

fn text(what: &'static str, text: &str) -> Result<String, ConvertError> {
    if text.len() > LONGEST {
        return Err(ConvertError::OutOfRange { what, value: text.len() as u64, max: LONGEST as u64 });
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use flowshift_detector::Signal;

    use super::super::evidence::{Said, decode};
    use super::*;

    fn word(order: Order) -> Word {
        Word { said_s: 1_795_310_655, by: "ada".into(), note: "on it".into(), order }
    }

    #[test]
    fn every_word_comes_back_as_it_was() {
        let mute = |place, signal| Order::Mute { scope: Scope { place, signal }, until_s: 1_795_314_200 };
        for order in [
            Order::Acknowledge(IncidentId::new("inc-1")),
            mute(Some(Place::Pair { src: "a".into(), dst: "internet".into() }), None),
            mute(Some(Place::Subnet("a".into())), Some(Signal::Latency)),
            mute(Some(Place::Az("use1-az1".into())), Some(Signal::Silence)),
            mute(None, Some(Signal::Connect)),
            mute(None, Some(Signal::Retransmit)),
            Order::Unmute("mute-1".into()),
            Order::NotAnIssue { incident: IncidentId::new("inc-1"), until_s: 1_795_397_160 },
        ] {
            let word = word(order);
            let bytes = encode(&word);
            assert_eq!(decode(&bytes).unwrap(), Said::Word(word.clone()));
            assert_eq!(encode(&word), bytes);
        }
    }

    #[test]
    fn a_word_without_order_or_scope_beside_a_step_or_with_endless_text_is_refused() {
        let refused = |change: &dyn Fn(&mut wire::StepEvidence)| {
            let said = to_wire(&word(Order::Acknowledge(IncidentId::new("inc-1"))));
            let mut record = wire::StepEvidence { word: Some(said), ..wire::StepEvidence::default() };
            change(&mut record);
            decode(&wire::encode(record, wire::MAX_BYTES)).unwrap_err().to_string()
        };
        let of = |record: &mut wire::StepEvidence, order| {
            if let Some(word) = &mut record.word {
                word.order = order;
            }
        };
        assert_eq!(refused(&|record| of(record, None)), "order of a word is missing");
        let everything = wire::word::Order::Mute(wire::Mute::default());
        assert_eq!(refused(&|record| of(record, Some(everything.clone()))), "scope of a mute is missing");
        let odd = wire::word::Order::Mute(wire::Mute { signal: 99, ..wire::Mute::default() });
        assert_eq!(refused(&|record| of(record, Some(odd.clone()))), "signal has the unknown number 99");
        let long = wire::word::Order::Unmute(wire::Unmute { id: "x".repeat(LONGEST + 1) });
        assert_eq!(refused(&|record| of(record, Some(long.clone()))), "id of a mute is 2049, above 2048");
        assert_eq!(refused(&|record| record.lane = 3), "step evidence is inconsistent: a word says a step");
    }
}

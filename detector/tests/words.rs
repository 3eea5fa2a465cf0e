//! What an operator says of incidents: events carry it, a repeat changes nothing, a mute ends, a dismissed pattern
//! stays quiet until it gets worse or its time is over.
#![allow(clippy::unwrap_used)]

mod traffic;

use std::sync::OnceLock;

use flowshift_detector::{
    AnomalyEvent, Correlator, CorrelatorState, EventType, IncidentId, Order, Outcome, Place, Reason, Scope, Settings,
    Severity, Signal, StepEvidence, Word, Words,
};
use traffic::{FAIR, START_S, STEP_S, Weather, traffic};

/// A lossy pair (subnet-0 > subnet-4, of az1 and az3) from step 90 to 119, and what its lane says.
fn evidence() -> &'static [StepEvidence] {
    static SAID: OnceLock<Vec<StepEvidence>> = OnceLock::new();
    SAID.get_or_init(|| lossy(|_| 0.02))
}

/// The same with a loss by step.
fn lossy(loss: impl Fn(i64) -> f64) -> Vec<StepEvidence> {
    let panes = traffic(21, 140, |pair, _, step| match (pair, step) {
        (3, 90..120) => Weather { loss: loss(step), ..FAIR },
        _ => Weather { flows: 25.0, ..FAIR },
    });
    traffic::run(&panes).evidence
}

fn step(n: i64) -> i64 {
    START_S + n * STEP_S
}

fn word(said_s: i64, order: Order) -> Word {
    Word { said_s, by: "ada".into(), note: "known".into(), order }
}

fn mute(said_s: i64, place: Option<Place>, signal: Option<Signal>, until_s: i64) -> Word {
    word(said_s, Order::Mute { scope: Scope { place, signal }, until_s })
}

fn pair() -> Option<Place> {
    Some(Place::Pair { src: "subnet-0".into(), dst: "subnet-4".into() })
}

/// Plays the evidence; before that of a step, says the words that are due there, of which some name the open incident.
fn play(say: impl FnMut(i64, Option<&IncidentId>) -> Vec<Word>) -> (Vec<AnomalyEvent>, Vec<Outcome>, Correlator) {
    play_over(evidence(), say)
}

fn play_over(
    evidence: &[StepEvidence],
    mut say: impl FnMut(i64, Option<&IncidentId>) -> Vec<Word>,
) -> (Vec<AnomalyEvent>, Vec<Outcome>, Correlator) {
    let mut correlator = Correlator::new(Settings::default(), 1);
    let (mut events, mut outcomes) = (Vec::new(), Vec::new());
    for said in evidence {
        let open = correlator.state().open_incidents().next().cloned();
        for word in say((said.step_start_s - START_S) / STEP_S, open.as_ref()) {
            let (outcome, event) = correlator.hear(&word);
            outcomes.push(outcome);
            events.extend(event);
        }
        correlator.apply(0, said);
        events.extend(correlator.advance());
    }
    (events, outcomes, correlator)
}

fn kinds(events: &[AnomalyEvent]) -> Vec<EventType> {
    events.iter().map(|event| event.event_type).collect()
}

fn undisturbed() -> Vec<AnomalyEvent> {
    let (events, _, _) = play(|_, _| Vec::new());
    assert_eq!(events.first().unwrap().event_type, EventType::Opened);
    assert_eq!(events.last().unwrap().reason, Some(Reason::Recovered));
    events
}

#[test]
fn an_acknowledgement_is_told_once_and_stands_on_every_later_event_of_the_opening() {
    let (events, outcomes, _) = play(|n, open| match (n, open) {
        (100 | 101, Some(id)) => vec![word(step(n), Order::Acknowledge(id.clone()))],
        _ => Vec::new(),
    });
    assert_eq!(outcomes, [Outcome::Applied, Outcome::Repeated]);
    assert_eq!(events.len(), undisturbed().len() + 1);
    let told = events.iter().find(|event| event.acknowledged.is_some()).unwrap();
    assert_eq!((told.event_type, told.at), (EventType::Updated, step(100)));
    assert!(told.summary.ends_with("; acknowledged by ada"), "{}", told.summary);
    let by = told.acknowledged.as_ref().unwrap();
    assert_eq!((by.by.as_str(), by.note.as_str(), by.at), ("ada", "known", step(100)));
    assert!(events.iter().filter(|event| event.at > step(100)).all(|event| event.acknowledged.is_some()));
    let sequences: Vec<u32> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (1..=events.len() as u32).collect::<Vec<_>>());
}

#[test]
fn a_word_that_stands_in_the_evidence_twice_counts_once_also_behind_stored_state() {
    let (_, outcomes, correlator) =
        play(|n, _| if n == 50 { vec![mute(step(50), pair(), None, step(900))] } else { Vec::new() });
    assert_eq!(outcomes, [Outcome::Applied]);
    let stored = postcard::to_allocvec(&(correlator.state(), correlator.words())).unwrap();
    let (state, words) = postcard::from_bytes::<(CorrelatorState, Words)>(&stored).unwrap();
    assert_eq!(&words, correlator.words());
    let mut again = Correlator::from_state(Settings::default(), state).unwrap().with_words(words);
    let unmute = |said_s| word(said_s, Order::Unmute(correlator.words().mutes().next().unwrap().0.to_owned()));
    assert_eq!(again.hear(&unmute(step(141))).0, Outcome::Applied);
    assert_eq!(again.hear(&mute(step(50), pair(), None, step(900))).0, Outcome::Repeated, "the same record once more");
    assert_eq!(again.words().mutes().count(), 0, "it does not bring the mute back");
    assert_eq!(again.hear(&unmute(step(142))).0, Outcome::NotThere);
    assert_eq!(again.hear(&mute(step(60), pair(), None, step(900))).0, Outcome::Applied, "said again later");
    assert_eq!(again.hear(&mute(step(61), pair(), None, step(900))).0, Outcome::Repeated);
}

#[test]
fn events_of_a_muted_incident_are_the_same_but_marked() {
    for (place, signal) in [
        (pair(), None),
        (Some(Place::Subnet("subnet-4".into())), Some(Signal::Retransmit)),
        (Some(Place::Az("az3".into())), None),
        (None, Some(Signal::Retransmit)),
    ] {
        let scope = Scope { place: place.clone(), signal };
        let said = |n, _: Option<&IncidentId>| match n {
            50 => vec![mute(step(50), place.clone(), signal, step(900))],
            _ => Vec::new(),
        };
        let (mut events, _, _) = play(said);
        for event in &mut events {
            let muted = event.muted.take().unwrap_or_else(|| panic!("{scope}: not marked: {}", event.summary));
            assert_eq!((muted.until, &muted.mutes[..]), (step(900), &[scope.mute_id()][..]));
        }
        assert_eq!(events, undisturbed(), "{scope}");
    }
    for (place, signal) in [
        (Some(Place::Pair { src: "subnet-4".into(), dst: "subnet-0".into() }), None),
        (Some(Place::Az("az2".into())), None),
        (pair(), Some(Signal::Latency)),
    ] {
        let (events, _, _) = play(|n, _| match n {
            50 => vec![mute(step(50), place.clone(), signal, step(900))],
            _ => Vec::new(),
        });
        assert_eq!(events, undisturbed(), "{place:?} {signal:?} is about something else");
    }
}

#[test]
fn a_mute_ends_with_its_event_time_and_an_incident_that_is_open_then_is_told_of() {
    let (events, _, _) = play(|n, _| match n {
        50 => vec![mute(step(50), pair(), None, step(105))],
        _ => Vec::new(),
    });
    let (hushed, open): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event.muted.is_some());
    assert!(hushed.iter().all(|event| event.at < step(105)), "{hushed:?}");
    assert_eq!(hushed.first().unwrap().event_type, EventType::Opened);
    assert_eq!((open[0].event_type, open[0].at), (EventType::Updated, step(105)));
    assert_eq!(open.last().unwrap().event_type, EventType::Resolved);

    let id = Scope { place: pair(), signal: None }.mute_id();
    let (events, outcomes, _) = play(|n, _| match n {
        50 => vec![mute(step(50), pair(), None, step(900))],
        103 => vec![word(step(103), Order::Unmute(id.clone()))],
        _ => Vec::new(),
    });
    assert_eq!(outcomes, [Outcome::Applied; 2]);
    let first = events.iter().find(|event| event.muted.is_none()).unwrap();
    assert_eq!((first.event_type, first.at), (EventType::Updated, step(104)));
}

#[test]
fn whoever_was_told_of_an_incident_is_told_of_its_end_whatever_was_muted_meanwhile() {
    let (events, outcomes, _) = play(|n, open| match (n, open) {
        (100, Some(id)) => {
            vec![mute(step(100), pair(), None, step(900)), word(step(100), Order::Acknowledge(id.clone()))]
        }
        _ => Vec::new(),
    });
    assert_eq!(outcomes, [Outcome::Applied; 2]);
    let opened = &events[0];
    assert!(opened.muted.is_none());
    assert!(events.iter().find(|event| event.acknowledged.is_some()).unwrap().muted.is_some(), "told of while muted");
    let last = events.last().unwrap();
    assert_eq!((last.event_type, last.muted.is_some()), (EventType::Resolved, false));
}

#[test]
fn what_is_not_an_issue_ends_and_is_not_raised_again_in_its_time() {
    let (events, outcomes, correlator) = play(|n, open| match (n, open) {
        (100, Some(incident)) => {
            vec![word(step(100), Order::NotAnIssue { incident: incident.clone(), until_s: step(900) })]
        }
        _ => Vec::new(),
    });
    assert_eq!(outcomes, [Outcome::Applied]);
    let last = events.last().unwrap();
    assert_eq!((last.event_type, last.reason, last.at), (EventType::Resolved, Some(Reason::NotAnIssue), step(100)));
    assert_eq!(last.dismissed.as_ref().map(|by| (by.by.as_str(), by.until)), Some(("ada", step(900))));
    assert_eq!(last.pairs.len(), 1);
    assert!(!kinds(&events[1..]).contains(&EventType::Opened), "{:?}", kinds(&events));
    assert_eq!(correlator.words().dismissals().count(), 1);

    // Its time is over, or it is taken back, while the pair is still bad: another incident.
    let short = |n, open: Option<&IncidentId>| match (n, open) {
        (100, Some(incident)) => {
            vec![word(step(100), Order::NotAnIssue { incident: incident.clone(), until_s: step(105) })]
        }
        _ => Vec::new(),
    };
    let (events, _, correlator) = play(short);
    let opened: Vec<_> = events.iter().filter(|event| event.event_type == EventType::Opened).collect();
    assert_eq!((opened.len(), opened[1].at), (2, step(105)));
    assert_ne!(opened[0].incident, opened[1].incident);
    assert_eq!(correlator.words().dismissals().count(), 0, "forgotten");
    let (events, _, _) = play(|n, open| match (n, open) {
        (102, _) => vec![word(step(102), Order::Unmute(undisturbed()[0].incident.to_string()))],
        (100, Some(incident)) => {
            vec![word(step(100), Order::NotAnIssue { incident: incident.clone(), until_s: step(900) })]
        }
        _ => Vec::new(),
    });
    assert_eq!(kinds(&events).iter().filter(|kind| **kind == EventType::Opened).count(), 2);
}

#[test]
fn what_was_dismissed_is_raised_when_it_gets_more_severe() {
    let dismissed_at = |step_n: i64, loss: fn(i64) -> f64| {
        let (events, outcomes, _) = play_over(&lossy(loss), |n, open| match open {
            Some(incident) if n == step_n => {
                vec![word(step(n), Order::NotAnIssue { incident: incident.clone(), until_s: step(900) })]
            }
            _ => Vec::new(),
        });
        assert_eq!(outcomes, [Outcome::Applied]);
        let opened = events.into_iter().filter(|event| event.event_type == EventType::Opened);
        opened.map(|event| (event.at, event.severity)).collect::<Vec<_>>()
    };
    let worse = dismissed_at(100, |n| if n < 105 { 0.005 } else { 0.05 });
    assert_eq!(worse.iter().map(|opened| opened.1).collect::<Vec<_>>(), [Severity::S3, Severity::S2]);
    assert!(worse[1].0 >= step(106), "{worse:?}");
    let milder = dismissed_at(100, |n| if n < 105 { 0.05 } else { 0.005 });
    assert_eq!(milder.len(), 1, "{milder:?}");
}

#[test]
fn words_about_what_is_not_there_or_without_a_proper_end_change_nothing() {
    let nobody = IncidentId::new("inc-0000000000000000");
    let day = 86_400;
    let (events, outcomes, correlator) = play(|n, open| match (n, open) {
        (50, _) => vec![
            word(step(50), Order::Acknowledge(nobody.clone())),
            word(step(50), Order::NotAnIssue { incident: nobody.clone(), until_s: step(900) }),
            word(step(50), Order::Unmute("mute-0".into())),
            mute(step(50), pair(), None, step(50)),
            mute(step(50), pair(), None, step(50) + 31 * day),
            mute(step(50), pair(), None, i64::MAX),
            mute(i64::MIN, pair(), None, i64::MAX),
        ],
        (100, Some(incident)) => {
            vec![word(step(100), Order::NotAnIssue { incident: incident.clone(), until_s: i64::MAX })]
        }
        _ => Vec::new(),
    });
    use Outcome::{BadEnd, NotThere};
    assert_eq!(outcomes, [NotThere, NotThere, NotThere, BadEnd, BadEnd, BadEnd, BadEnd, BadEnd]);
    assert_eq!(events, undisturbed());
    let ended = events[0].incident.clone();
    let mut correlator = correlator;
    assert_eq!(correlator.hear(&word(step(200), Order::Acknowledge(ended))).0, NotThere, "it is over");
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut correlator = Correlator::new(Settings::default(), 1);
    let outcomes = (0..1_200).map(|n| {
        let place = Some(Place::Subnet(format!("subnet-{n}")));
        correlator.hear(&mute(step(0), place, None, step(900))).0
    });
    let taken = outcomes.filter(|outcome| *outcome == Outcome::Applied).count();
    assert_eq!((taken, correlator.words().mutes().count()), (1_000, 1_000));
    assert_eq!(correlator.words().heard().count(), 512);
    assert_eq!(correlator.words().heard().last().unwrap().outcome, Outcome::Full);
}

//! The published bodies of `proto/examples/FORMAT` against what is made of the events in `proto/examples`.
//!
//! After a change that is meant, write them anew with `FLOWSHIFT_WRITE_EXAMPLES=1 cargo test -p flowshift --lib format`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use flowshift_proto::anomaly::WebhookBody;

use super::*;

const NOW_MS: i64 = 1_795_310_700_000;
const EVENTS: [&str; 5] = [
    "anomaly.opened.json",
    "anomaly.updated.json",
    "anomaly.updated-acknowledged.json",
    "anomaly.resolved.json",
    "anomaly.resolved-not-an-issue.json",
];

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/examples")
}

fn event(name: &str) -> AnomalyEvent {
    let text = std::fs::read_to_string(examples().join(name)).unwrap();
    serde_json::from_str::<WebhookBody>(&text).unwrap().data
}

fn delivery(event: AnomalyEvent) -> Delivery {
    Delivery {
        id: format!("evt_{:032x}", event.sequence),
        incident: event.incident.clone(),
        sequence: event.sequence,
        created_ms: NOW_MS,
        muted: false,
        past: false,
        body: Bytes::from(serde_json::to_string(&event.to_webhook().unwrap()).unwrap()),
        event: Some(Arc::new(event)),
    }
}

fn test_event(over: bool) -> Delivery {
    Delivery {
        incident: "flowshift-test-1".into(),
        event: None,
        body: Bytes::from(format!(
            r#"{{"type":"webhook.test","timestamp":"2026-11-22T01:25:00Z","data":{{"message":"a test <!channel>","resolved":{over}}}}}"#
        )),
        ..delivery(event(EVENTS[0]))
    }
}

fn context() -> Context<'static> {
    Context {
        now_ms: NOW_MS,
        job: "flowshift",
        link: Some("https://example.com/incidents?id={incident}"),
        routing_key: Some("0123456789abcdef0123456789abcdef"),
        first: false,
        before: None,
    }
}

fn json_of(format: Format, delivery: &Delivery, context: &Context<'_>) -> Value {
    serde_json::from_slice(&render(format, delivery, context).unwrap().body).unwrap()
}

#[test]
fn every_format_says_what_its_published_examples_say() {
    for format in [Format::CloudEvents, Format::Alertmanager, Format::PagerDuty, Format::Slack] {
        for name in EVENTS {
            let made = json_of(format, &delivery(event(name)), &context());
            let path = examples().join(format.as_str()).join(name);
            if std::env::var_os("FLOWSHIFT_WRITE_EXAMPLES").is_some() {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&made).unwrap())).unwrap();
            }
            let published: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            assert_eq!(made, published, "{}: write it anew if the change is meant", path.display());
        }
    }
}

#[test]
fn the_standard_body_is_sent_as_it_was_committed() {
    let delivery = delivery(event(EVENTS[0]));
    let sent = render(Format::Standard, &delivery, &context()).unwrap();
    assert_eq!((sent.content_type, sent.body), ("application/json", delivery.body));
}

#[test]
fn text_of_others_is_never_markup_in_slack() {
    let mut hostile = event("anomaly.updated-acknowledged.json");
    let said = hostile.acknowledged.as_mut().unwrap();
    (said.by, said.note) = ("<@U1>".into(), "<!channel> & <http://x|y>".into());
    hostile.summary = "<!here> ".repeat(2_000);
    hostile.element.id = "a>b".into();
    let made = json_of(Format::Slack, &delivery(hostile), &Context { link: None, ..context() });
    assert!(!made.to_string().contains('<'), "{made}");
    let longest = made["blocks"][0]["text"]["text"].as_str().unwrap().chars().count();
    assert!(longest > 1_000 && longest < 3_000, "{longest}");
    assert!(made.to_string().contains("&lt;!channel&gt; &amp; &lt;http://x|y&gt;"));
}

#[test]
fn an_open_alert_ends_minutes_after_now_and_a_resolved_one_at_its_event() {
    let open = json_of(Format::Alertmanager, &delivery(event("anomaly.opened.json")), &context());
    assert_eq!(open[0]["endsAt"], date(NOW_MS / 1_000 + 300).unwrap());
    let over = event("anomaly.resolved.json");
    let told = json_of(Format::Alertmanager, &delivery(over.clone()), &context());
    assert_eq!(told[0]["endsAt"], date(over.at).unwrap());
    let mut at_once = over;
    at_once.at = at_once.started_at.unwrap() - 5;
    let told = json_of(Format::Alertmanager, &delivery(at_once.clone()), &context());
    assert_eq!(told[0]["endsAt"], date(at_once.at + 6).unwrap(), "an end before the start is refused there");
}

#[test]
fn an_alert_whose_labels_change_ends_the_one_before_and_otherwise_stands_alone() {
    let before = event("anomaly.opened.json");
    let context = Context { before: Some(&before), ..context() };
    let mut worse = event("anomaly.updated.json");
    (worse.severity, worse.signal, worse.verdict) = (before.severity, before.signal, before.verdict);
    worse.element = before.element.clone();
    let same = json_of(Format::Alertmanager, &delivery(worse.clone()), &context);
    assert_eq!(same.as_array().unwrap().len(), 1);
    worse.severity = Severity::S3;
    let told = json_of(Format::Alertmanager, &delivery(worse.clone()), &context);
    assert_eq!(told[0]["labels"]["severity"], "critical");
    assert_eq!(told[0]["endsAt"], date(worse.at).unwrap());
    assert_eq!(
        (&told[1]["labels"]["severity"], &told[1]["endsAt"]),
        (&"warning".into(), &date(NOW_MS / 1_000 + 300).unwrap().into())
    );
}

#[test]
fn pagerduty_is_triggered_before_it_can_acknowledge() {
    let acknowledged = delivery(event("anomaly.updated-acknowledged.json"));
    let action =
        |first| json_of(Format::PagerDuty, &acknowledged, &Context { first, ..context() })["event_action"].clone();
    assert_eq!((action(true), action(false)), ("trigger".into(), "acknowledge".into()));
    let keyless = Context { routing_key: None, ..context() };
    assert_eq!(render(Format::PagerDuty, &acknowledged, &keyless), Err(RenderError::NoKey("pagerduty")));
}

#[test]
fn ten_thousand_pairs_are_cut_and_counted() {
    let mut wide = event("anomaly.opened.json");
    wide.pairs = std::iter::repeat_n(wide.pairs[0].clone(), 10_000).collect();
    wide.summary = "x".repeat(5_000);
    let wide = delivery(wide);
    for format in [Format::Alertmanager, Format::PagerDuty, Format::Slack] {
        let body = render(format, &wide, &context()).unwrap().body;
        assert!(body.len() < 16_000, "{}: {} bytes", format.as_str(), body.len());
    }
    let details = &json_of(Format::PagerDuty, &wide, &context())["payload"];
    assert_eq!(details["custom_details"]["pairs_in_all"], 10_000);
    assert_eq!(details["summary"].as_str().unwrap().chars().count(), 1_024);
}

#[test]
fn every_format_has_words_for_a_test_and_none_for_what_it_does_not_know() {
    for format in Format::ALL {
        for over in [false, true] {
            let body = render(format, &test_event(over), &context()).unwrap().body;
            let text = String::from_utf8(body.to_vec()).unwrap();
            assert!(text.contains("test"), "{text}");
            assert!(format != Format::Slack || !text.contains('<'), "{text}");
        }
    }
    let unknown = Delivery { event: None, body: Bytes::from_static(b"{\"type\":\"new\"}"), ..test_event(false) };
    assert_eq!(render(Format::Slack, &unknown, &context()), Err(RenderError::NoEvent("slack")));
    let broken = Delivery { body: Bytes::from_static(b"{"), ..unknown };
    assert_eq!(render(Format::CloudEvents, &broken, &context()), Err(RenderError::Json));
}

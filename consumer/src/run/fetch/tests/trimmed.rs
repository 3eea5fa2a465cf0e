//! Records that expired: told when they were unread, and only then.

use super::*;

#[tokio::test(start_paused = true)]
async fn records_that_expired_unread_are_told_before_the_first_one_left() {
    let log = Scripted::new();
    let read = log.put("0").await;
    let lost = log.put("1").await;
    log.put("2").await;
    log.log.trim(STREAM, &shard_id(), &lost);
    assert_eq!(texts(&mut fetch(&log, &Checkpoint::At(read), 0)).await, ["trimmed after 1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn records_that_expired_while_nothing_could_be_read_are_told_too() {
    let log = Scripted::new();
    log.put("0").await;
    let mut pages = fetch(&log, &Checkpoint::TrimHorizon, 0);
    assert_eq!(texts(&mut pages).await, ["0"]);
    let lost = log.put("1").await;
    log.failures.lock().unwrap().push_back(LogError::Expired);
    log.log.trim(STREAM, &shard_id(), &lost);
    log.put("2").await;
    assert_eq!(texts(&mut pages).await, ["trimmed after 1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_expired_after_it_was_read_is_no_sign_of_loss_while_what_came_since_is_kept() {
    const HOUR: Duration = Duration::from_secs(3_600);
    for (silence, told) in [(HOUR, vec!["1"]), (22 * HOUR, vec!["trimmed after 1", "1"])] {
        let log = Scripted::keeping(24 * HOUR);
        let read = log.put("0").await;
        let mut pages = fetch(&log, &Checkpoint::TrimHorizon, 0);
        assert_eq!(texts(&mut pages).await, ["0"]);
        // Nobody takes a page meanwhile, so nothing is read: two wait and one is under way.
        tokio::time::sleep(silence).await;
        log.log.trim(STREAM, &shard_id(), &read);
        log.failures.lock().unwrap().push_back(LogError::Expired);
        log.put("1").await;
        let mut heard = Vec::new();
        while !heard.iter().any(|text| text == "1") {
            heard.extend(texts(&mut pages).await);
        }
        assert_eq!(heard, told, "after {silence:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_whose_checkpoint_is_still_there_is_not_called_trimmed() {
    let log = Scripted::new();
    let old = log.put("0").await;
    let read = log.put("1").await;
    log.put("2").await;
    log.log.trim(STREAM, &shard_id(), &old);
    assert_eq!(texts(&mut fetch(&log, &Checkpoint::At(read), 0)).await, ["2"]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_shard_of_which_nothing_is_left_is_told_before_its_end() {
    // Bug: the end was told alone, as if everything had been read.
    let log = Scripted::new();
    let read = log.put("0").await;
    let lost = log.put("1").await;
    log.log.split(STREAM, &shard_id());
    log.log.trim(STREAM, &shard_id(), &lost);
    for by in [Fetch::Polling, fan_out()] {
        let told = texts(&mut fetch_by(by, &log, &Checkpoint::At(read.clone()), 0)).await;
        assert_eq!(told, [format!("trimmed after {read}"), "ShardEnd".to_owned()]);
    }
}

#[tokio::test(start_paused = true)]
async fn records_that_expired_between_two_subscriptions_are_told() {
    // Bug: the next subscription began behind the last record seen, where nothing showed that others had been there.
    let log = Scripted::new();
    let mut put = Vec::new();
    for n in 0..9_000 {
        put.push(log.put(n.to_string()).await);
    }
    // The stage takes nothing, so the subscription is not at the tip when another takes its place.
    let mut pages = fetch_by(fan_out(), &log, &Checkpoint::TrimHorizon, 0);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let consumer = ConsumerId::new(STREAM, "c");
    drop(log.log.subscribe(&consumer, &shard_id(), &Position::TrimHorizon).await.unwrap());
    log.log.trim(STREAM, &shard_id(), &put[8_000]);
    let told = texts(&mut pages).await;
    let at = told.iter().position(|text| text.starts_with("trimmed")).expect("not told");
    assert!(at < 8_000, "{at} records were given before");
    assert_eq!(told[at..at + 2], [format!("trimmed after {}", put[at - 1]), "8001".to_owned()]);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_was_quiet_for_longer_than_records_are_kept_is_not_called_trimmed() {
    let log = Scripted::new();
    let last = log.put("0").await;
    let mut pages = fetch_by(fan_out(), &log, &Checkpoint::TrimHorizon, 0);
    assert_eq!(texts(&mut pages).await, ["0"]);
    let quiet = tokio::time::Instant::now() + Duration::from_secs(30 * 3600);
    while tokio::time::Instant::now() < quiet {
        pages.recv().await.unwrap();
    }
    log.log.trim(STREAM, &shard_id(), &last);
    log.put("1").await;
    assert_eq!(texts(&mut pages).await, ["1"]);
}

//! Workers that stood still for so long that the leader struck them off the list.

use super::*;
use crate::run::items::{WORKERS, worker_key};

async fn listed(site: &Site) -> BTreeSet<String> {
    let name = TableName { name: "test-state".into(), key: crate::commit::STATE_KEY };
    site.table.get(&name, WORKERS).await.unwrap().unwrap().strings("ids")
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_slept_until_it_was_struck_off_gets_nothing_meanwhile_and_its_share_when_it_wakes() {
    let site = Site::new(6);
    let fleet = settled(&site).await;
    let sleeper = &fleet[0];
    sleeper.port.asleep.store(true, Ordering::Relaxed);
    site.produce(60).await;
    assert!(listed(&site).await.contains(&sleeper.id), "not forgotten so soon");
    tokio::time::sleep(FORGOTTEN).await;
    site.produce(10).await;
    assert!(!listed(&site).await.contains(&sleeper.id), "{:?}", listed(&site).await);
    let name = TableName { name: "test-state".into(), key: crate::commit::STATE_KEY };
    assert!(site.table.get(&name, &worker_key(&sleeper.id)).await.unwrap().is_none());
    assert_eq!(site.counts().await.get(&sleeper.id), None, "{:?}", site.counts().await);

    sleeper.port.asleep.store(false, Ordering::Relaxed);
    let woke = Instant::now();
    site.produce(200).await;
    assert!(listed(&site).await.contains(&sleeper.id));
    assert_eq!(site.counts().await.values().copied().collect::<Vec<_>>(), [2, 2, 2]);
    // It reads what it was given, and what it slept over was read by others.
    assert!(site.reads.lock().unwrap().iter().any(|read| read.0 == sleeper.id && read.2 > woke));
    let mut read = site.texts();
    read.dedup();
    assert_eq!(read, site.put_texts());
    // A worker that left on purpose stays off.
    let leaver = &fleet[1];
    leaver.leave.cancel();
    site.produce(60).await;
    assert!(!listed(&site).await.contains(&leaver.id));
    assert_eq!(site.counts().await.values().copied().collect::<Vec<_>>(), [3, 3]);
}

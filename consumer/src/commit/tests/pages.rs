//! Pages: versions, crashes before and after the commit, and what is left behind.

use super::*;
use crate::commit::{Form, PageName, Pages, indexed_part};

fn name(text: &str) -> PageName {
    PageName::new(text).unwrap()
}

struct Owner {
    saver: Saver,
    pages: Pages,
}

impl Owner {
    /// Takes over what `committed` names.
    async fn new(chunks: &Chunks, counter: i64, committed: Option<&Manifest>) -> Self {
        let parts = committed.map(|manifest| manifest.parts.clone()).unwrap_or_default();
        let mut indexes = Vec::new();
        for part in parts.iter().filter(|part| indexed_part(&part.key).is_some()) {
            indexes.push((part.key.clone(), chunks.get(part).await.unwrap()));
        }
        let fence = fence(1, counter);
        let mut pages = Pages::new(chunks.clone(), fence, &indexes).unwrap();
        pages.sweep_all().await.unwrap();
        Self { saver: Saver::new(chunks.clone(), "s", fence, parts, None), pages }
    }

    /// Puts changes without a commit.
    async fn put(&mut self, changes: Vec<(&str, Option<&str>)>) -> Manifest {
        let bytes = |text: &str| Bytes::from(text.to_owned());
        let changes = changes.into_iter().map(|(page, text)| (name(page), text.map(bytes))).collect();
        let stop = CancellationToken::new();
        let (index, written) = self.pages.put("lane-0001", changes, &stop).await.unwrap();
        assert!(written.iter().all(|written| written.form == Form::Page));
        self.saver.put("1".into(), vec![index], |_| true, &stop).await.unwrap().0
    }

    async fn save(&mut self, changes: Vec<(&str, Option<&str>)>) -> Manifest {
        let manifest = self.put(changes).await;
        self.saver.committed();
        self.pages.committed().await.unwrap();
        manifest
    }

    async fn get(&self, page: &str) -> Option<Bytes> {
        self.pages.get("lane-0001", &name(page)).await.unwrap()
    }
}

async fn stored_pages(memory: &MemoryTable) -> Vec<String> {
    let items = memory.scan(&state_table()).await.unwrap();
    let keys = items.iter().filter_map(|item| item.string(STATE_KEY));
    keys.filter_map(|key| Some(key.split_once("/page/")?.1.to_owned())).collect()
}

#[tokio::test]
async fn a_new_version_replaces_the_last_one_only_with_its_commit_and_then_leaves_nothing_behind() {
    let memory = Arc::new(MemoryTable::default());
    let chunks = chunks_in(memory.clone());
    let mut owner = Owner::new(&chunks, 1, None).await;
    owner.save(vec![("monday.08", Some("one")), ("monday.09", Some("other"))]).await;
    let manifest = owner.put(vec![("monday.08", Some("two"))]).await;
    assert_eq!(owner.get("monday.08").await.unwrap(), "one", "not committed");
    owner.saver.committed();
    owner.pages.committed().await.unwrap();
    assert_eq!(owner.get("monday.08").await.unwrap(), "two");
    assert_eq!(stored_pages(&memory).await, ["monday.08/2/0", "monday.09/1/0"]);
    let next = Owner::new(&chunks, 2, Some(&manifest)).await;
    assert_eq!(next.get("monday.08").await.unwrap(), "two");
    assert_eq!(next.get("tuesday.08").await, None);
}

#[tokio::test]
async fn a_crash_before_the_commit_leaves_the_old_page_and_the_next_owner_overwrites_the_orphan() {
    let memory = Arc::new(MemoryTable::default());
    let chunks = chunks_in(memory.clone());
    let mut owner = Owner::new(&chunks, 1, None).await;
    let committed = owner.save(vec![("p", Some("one"))]).await;
    owner.put(vec![("p", Some("never committed"))]).await;
    let mut next = Owner::new(&chunks, 2, Some(&committed)).await;
    assert_eq!(next.get("p").await.unwrap(), "one");
    let committed = next.save(vec![("p", Some("two"))]).await;
    let late = owner.pages.put("lane-0001", vec![(name("p"), Some("late".into()))], &CancellationToken::new()).await;
    assert!(matches!(late, Err(ChunkError::Fenced(_))), "a zombie's page");
    assert_eq!(Owner::new(&chunks, 3, Some(&committed)).await.get("p").await.unwrap(), "two");
    assert_eq!(stored_pages(&memory).await, ["p/2/0"]);
}

#[tokio::test]
async fn a_crash_between_commit_and_deletion_is_swept_by_the_next_owner() {
    let memory = Arc::new(MemoryTable::default());
    let chunks = chunks_in(memory.clone());
    let mut owner = Owner::new(&chunks, 1, None).await;
    owner.save(vec![("p", Some("one")), ("q", Some("q"))]).await;
    let committed = owner.put(vec![("p", Some("two")), ("q", None)]).await;
    assert_eq!(stored_pages(&memory).await, ["p/1/0", "p/2/0", "q/1/0"]);
    let next = Owner::new(&chunks, 2, Some(&committed)).await;
    assert_eq!(stored_pages(&memory).await, ["p/2/0"]);
    assert_eq!((next.get("p").await, next.get("q").await), (Some(Bytes::from("two")), None));
}

#[tokio::test]
async fn a_dropped_name_never_gets_a_key_again_that_a_late_deletion_could_hit() {
    let memory = Arc::new(MemoryTable::default());
    let chunks = chunks_in(memory.clone());
    let mut owner = Owner::new(&chunks, 1, None).await;
    owner.save(vec![("p", Some("one"))]).await;
    owner.save(vec![("p", None)]).await;
    let committed = owner.save(vec![("p", Some("again"))]).await;
    assert_eq!(stored_pages(&memory).await, ["p/3/0"]);
    assert_eq!(Owner::new(&chunks, 2, Some(&committed)).await.get("p").await.unwrap(), "again");
}

#[tokio::test]
async fn a_page_that_is_named_and_gone_or_damaged_is_an_error_and_never_no_page() {
    let memory = Arc::new(MemoryTable::default());
    let chunks = chunks_in(memory.clone());
    let mut owner = Owner::new(&chunks, 1, None).await;
    owner.save(vec![("p", Some("one"))]).await;
    let items = memory.scan(&state_table()).await.unwrap();
    let page = items.into_iter().find(|item| item.string(STATE_KEY).unwrap().contains("/page/")).unwrap();
    let mut damaged = page.clone();
    damaged.set("d", crate::table::Value::B(Bytes::from_static(b"not zstd")));
    memory.put(&state_table(), damaged, crate::table::Condition::None).await.unwrap();
    let read = owner.pages.get("lane-0001", &name("p")).await;
    assert!(matches!(read, Err(ChunkError::Damaged { .. })));
    let key = page.string(STATE_KEY).unwrap();
    memory.delete(&state_table(), key, crate::table::Condition::None).await.unwrap();
    assert!(matches!(owner.pages.get("lane-0001", &name("p")).await, Err(ChunkError::Missing(_))));
}

#[test]
fn names_are_plain() {
    for bad in ["", "A", "a/b", "a b", "ä"] {
        assert!(PageName::new(bad).is_err(), "{bad:?}");
    }
    assert!(PageName::new("x".repeat(65)).is_err());
    assert_eq!(name("day-3_slot.08").as_str(), "day-3_slot.08");
}

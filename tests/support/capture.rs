//! The POSTs of two real agents, as they were sent, in the order in which they were received.
//!
//! `tests/data/two-subnets/posts.jsonl` holds method, path, headers and body of each; the bytes are the agents' own (their
//! credentials were fake from the start). 46 + 43 reports every 5 s over 220 s of known faults.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::http::Answer;
use super::program::Program;

/// When the first fault, 5 % loss, began.
pub(crate) const LOSS_5: (f64, f64) = (1_795_310_577.5, 1_795_310_617.5);
/// 20 ms more each way.
pub(crate) const DELAY_20: (f64, f64) = (1_795_310_637.5, 1_795_310_677.6);
/// 20 % loss and 10 ms.
pub(crate) const LOSS_20: (f64, f64) = (1_795_310_697.6, 1_795_310_721.7);
/// Connects dropped and refused, until the end.
pub(crate) const FAILED_CONNECTS: (f64, f64) = (1_795_310_729.8, 1_795_310_758.1);
/// How long after the end of its phase a fault may still open: a report covers 5 s and is told at its end, and a step
/// ends up to 10 s after its data.
pub(crate) const SLACK: f64 = 15.0;

/// One POST.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) agent: String,
    pub(crate) received_at: f64,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Post {
    /// Sends it with its own headers.
    pub(crate) fn send(&self, program: &Program) -> std::io::Result<Answer> {
        program.post(&self.path, &self.headers(), &self.body)
    }

    /// Its headers, borrowed.
    pub(crate) fn headers(&self) -> Vec<(&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}

/// All POSTs in order of time.
pub(crate) fn posts() -> Vec<Post> {
    #[derive(Deserialize)]
    struct Row {
        agent: String,
        received_at: f64,
        path: String,
        headers: serde_json::Map<String, serde_json::Value>,
        body: String,
    }
    let text = std::fs::read_to_string(data().join("posts.jsonl")).unwrap();
    let mut posts = Vec::new();
    for line in text.lines() {
        let Row { agent, received_at, path, headers, body } = serde_json::from_str(line).unwrap();
        let headers = headers.into_iter().map(|(name, value)| (name, value.as_str().unwrap().to_owned())).collect();
        posts.push(Post { agent, received_at, path, headers, body: STANDARD.decode(body).unwrap() });
    }
    assert_eq!(posts.len(), 89);
    assert!(posts.is_sorted_by(|one, next| one.received_at <= next.received_at));
    posts
}

/// Sends all of them once, in order; each must be taken.
pub(crate) fn send_all(program: &Program) {
    for post in posts() {
        let answer = post.send(program).unwrap_or_else(|error| panic!("{error}, log:\n{}", program.log_tail()));
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

/// The agents' own logs of the same reports.
pub(crate) fn report_logs() -> [PathBuf; 2] {
    [data().join("reports-a.jsonl.gz"), data().join("reports-b.jsonl.gz")]
}

/// The raw capture beside the repository, which the committed files are made of.
pub(crate) fn raw() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/nfm/two-subnets");
    path.is_dir().then_some(path)
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/two-subnets")
}

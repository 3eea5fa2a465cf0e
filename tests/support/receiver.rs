//! A webhook receiver written with another language's library: `tests/python/receiver.py`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};

use serde::Deserialize;

use super::site::script;

/// One request the receiver got.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Received {
    pub(crate) id: String,
    pub(crate) verified: bool,
    pub(crate) problem: Option<String>,
    pub(crate) body: String,
}

/// The running receiver; ends when dropped.
#[derive(Debug)]
pub(crate) struct Receiver {
    child: Child,
    /// Its end is the receiver's end.
    stdin: Option<ChildStdin>,
    out: PathBuf,
    /// Where to POST.
    pub(crate) url: String,
}

impl Receiver {
    /// Starts it and waits until it listens.
    pub(crate) fn start(python: &Path, out: PathBuf, secret_file: &Path) -> Self {
        let mut command = script(python, "receiver.py");
        command.arg(&out).arg(secret_file).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str::<serde_json::Value>(&line).unwrap_or_else(|_| panic!("receiver: {line:?}"));
        let url = format!("http://127.0.0.1:{}/hook", ready["port"]);
        Self { child, stdin, out, url }
    }

    /// What it got so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        let text = std::fs::read_to_string(&self.out).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.stdin.take());
        self.child.wait().ok();
    }
}

//! The real binary as a child process: start, ready line, event lines, the three ways to end.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use serde_json::Value;

use super::http::{self, Answer};
use super::tools::PATIENCE;

/// The binary under test.
pub(crate) fn flowshift() -> Command {
    Command::new(env!("CARGO_BIN_EXE_flowshift"))
}

/// A running `flowshift local --json`; killed when dropped.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
    stderr: PathBuf,
    /// Event lines seen so far, as printed.
    seen: Vec<String>,
    /// The collector's `host:port`.
    pub(crate) collect: String,
    /// The admin server's `host:port`.
    pub(crate) admin: String,
    /// The Kinesis emulator's `host:port`, when the ready line tells it.
    pub(crate) kinesis: Option<String>,
}

/// How a run ended and what it printed.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// Event lines, as printed.
    pub(crate) lines: Vec<String>,
}

/// Why a start did not get to the ready line.
#[derive(Debug)]
pub(crate) struct NotReady(pub(crate) String);

impl Program {
    /// Starts a command that prints the ready line first, and waits for that line. What it says on stderr is appended to `stderr`.
    pub(crate) fn start(mut command: Command, stderr: &Path) -> Result<Self, NotReady> {
        let log = File::options().create(true).append(true).open(stderr).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stderr = stderr.to_owned();
        let nowhere = String::new;
        let mut program =
            Self { child, lines, stderr, seen: Vec::new(), collect: nowhere(), admin: nowhere(), kinesis: None };
        let first = program.lines.recv_timeout(PATIENCE);
        let line = first.map_err(|error| NotReady(format!("no ready line: {error}, log:\n{}", program.log_tail())))?;
        program.ready(&line)?;
        Ok(program)
    }

    fn ready(&mut self, line: &str) -> Result<(), NotReady> {
        let value = serde_json::from_str::<Value>(line).unwrap_or_default();
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        if text("type").as_deref() != Some("ready") {
            return Err(NotReady(format!("first line is {line:?}")));
        }
        self.collect = text("collect").ok_or_else(|| NotReady(format!("no collect in {line}")))?;
        self.admin = text("admin").ok_or_else(|| NotReady(format!("no admin in {line}")))?;
        self.kinesis = text("kinesis").map(|url| url.trim_start_matches("http://").trim_end_matches('/').to_owned());
        Ok(())
    }

    /// POSTs to the collector.
    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<Answer> {
        http::post(&self.collect, path, headers, body)
    }

    /// The text of `/metrics`.
    pub(crate) fn metrics(&self) -> String {
        let answer = http::get(&self.admin, "/metrics").unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    /// The sum of all series of a metric that have all these labels (`name="value"`); 0 without any.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.metrics();
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let lines = text.lines().filter(of_name).filter(|line| labels.iter().all(|label| line.contains(label)));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The next event line; panics when none comes in time.
    pub(crate) fn next_event(&mut self) -> Value {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                let value = serde_json::from_str(&line).unwrap();
                self.seen.push(line);
                value
            }
            Err(error) => panic!("no event line: {error}, log:\n{}", self.log_tail()),
        }
    }

    /// Sends SIGTERM and does not wait.
    pub(crate) fn terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "kill -TERM: {status}");
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    pub(crate) fn kill(mut self) -> Ended {
        self.child.kill().unwrap();
        self.ended()
    }

    /// Waits until it ends by itself.
    pub(crate) fn ended(mut self) -> Ended {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            // The end of its stdout is the end of the process: it has no children that could keep it open.
            match self.lines.recv_timeout(deadline.saturating_duration_since(std::time::Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("did not end in {PATIENCE:?}, log:\n{}", self.log_tail()),
            }
        }
        let status = self.child.wait().unwrap();
        Ended { status, lines: std::mem::take(&mut self.seen) }
    }

    /// SIGTERM, then its end, which must be a success.
    pub(crate) fn finish(self) -> Vec<String> {
        self.terminate();
        let log = self.stderr.clone();
        let ended = self.ended();
        assert!(ended.status.success(), "{}, log:\n{}", ended.status, tail(&log));
        ended.lines
    }

    /// The last lines of its log.
    pub(crate) fn log_tail(&self) -> String {
        tail(&self.stderr)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// The last 30 lines of a file, each cut to what a person reads.
pub(crate) fn tail(path: &Path) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let cut = |line: &&str| line.chars().take(400).collect::<String>();
    lines[lines.len().saturating_sub(30)..].iter().map(cut).collect::<Vec<_>>().join("\n")
}

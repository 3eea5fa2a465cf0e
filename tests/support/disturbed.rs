//! A run over the real capture that may be killed at any moment and goes on.
//!
//! A body whose connection broke is sent again, and a program that died is started again on the same data; the lines of all
//! its processes make one log, in which each event stands once. Not here: when it is killed, and what must come out.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::capture::Post;
use super::program::Program;
use super::receiver::Receiver;
use super::site::Site;
use super::tools;

/// Short engine times make many batches, cuts and commits out of a small input, and short leases a quick return.
const SETTINGS: &str = "[engine]
batch_interval = \"100ms\"
poll_interval = \"200ms\"
commit_interval = \"500ms\"
failover = \"4s\"
renewal = \"1s\"
leader_lock = \"3s\"
leader_beat = \"1s\"
";

/// What a run leaves.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Event lines in order, each once.
    pub(crate) log: Vec<String>,
    /// What `state export` says at the end.
    pub(crate) export: Value,
    /// Webhook bodies by id.
    pub(crate) webhooks: BTreeMap<String, String>,
    /// How often the process went down.
    pub(crate) crashes: usize,
}

/// A run under way: the program, its receiver, and the lines of the processes that died.
#[derive(Debug)]
pub(crate) struct Run {
    site: Site,
    receiver: Option<Receiver>,
    program: Option<Program>,
    lines: Vec<String>,
    crashes: usize,
}

impl Run {
    /// Starts it, with a fail point armed in its first process.
    pub(crate) fn start(fail_points: Option<&str>) -> Self {
        let mut site = Site::two_subnets().with_settings(SETTINGS);
        let receiver = tools::python_with_webhooks()
            .map(|python| Receiver::start(&python, site.path("received.jsonl"), &site.secret_file()));
        if let Some(receiver) = &receiver {
            let (url, secret) = (&receiver.url, site.secret_file());
            let toml = format!("[[webhooks]]\nurl = \"{url}\"\nsecret_file = {secret:?}\ntimeout = \"2s\"\n");
            site = site.with_settings(&toml);
        }
        let mut run = Self { site, receiver, program: None, lines: Vec::new(), crashes: 0 };
        // A fail point may strike before the first line; then it goes on without.
        match run.site.try_start(fail_points) {
            Ok(program) => run.program = Some(program),
            Err(_) if fail_points.is_some() => run.restart(),
            Err(error) => panic!("{error:?}"),
        }
        run
    }

    /// The process now.
    pub(crate) fn program(&self) -> &Program {
        self.program.as_ref().unwrap()
    }

    fn restart(&mut self) {
        self.crashes += 1;
        self.program = Some(self.site.start());
    }

    /// Takes the lines of a process that has died, and starts the next.
    fn fell(&mut self) {
        let ended = self.program.take().unwrap().ended();
        assert!(!ended.status.success(), "it left by itself");
        self.lines.extend(ended.lines);
        self.restart();
    }

    /// kill -9, and the next start.
    pub(crate) fn kill(&mut self) {
        self.lines.extend(self.program.take().unwrap().kill().lines);
        self.restart();
    }

    /// Sends until it is answered 200, over any number of deaths.
    pub(crate) fn send(&mut self, post: &Post) {
        loop {
            match post.send(self.program()) {
                Ok(answer) if answer.status == 200 => return,
                Ok(answer) if [429, 503].contains(&answer.status) => {
                    let pause = answer.retry_after.unwrap_or_else(|| panic!("no Retry-After: {answer:?}"));
                    std::thread::sleep(Duration::from_secs(pause));
                }
                Ok(answer) => panic!("{answer:?}"),
                Err(_) => self.fell(),
            }
        }
    }

    /// Ends the input until it ends well; each of the first ends is a kill -9 after a pause.
    pub(crate) fn finish(mut self, mut kills: impl Iterator<Item = Duration>) -> Outcome {
        loop {
            self.program().terminate();
            if let Some(pause) = kills.next() {
                std::thread::sleep(pause);
                let ended = self.program.take().unwrap().kill();
                self.lines.extend(ended.lines);
                if ended.status.success() {
                    break;
                }
                self.restart();
                continue;
            }
            let ended = self.program.take().unwrap().ended();
            self.lines.extend(ended.lines);
            if ended.status.success() {
                break;
            }
            self.restart();
        }
        let export = self.site.export();
        let webhooks = self.receiver.as_ref().map(webhooks).unwrap_or_default();
        Outcome { log: each_once(&self.lines), export, webhooks, crashes: self.crashes }
    }
}

/// Lines by (incident, sequence), the first of each; a repetition must be the same bytes.
fn each_once(lines: &[String]) -> Vec<String> {
    let mut seen: BTreeMap<(String, u64), &String> = BTreeMap::new();
    let mut log = Vec::new();
    for line in lines {
        let event: Value = serde_json::from_str(line).unwrap();
        let key = (event["incident"].as_str().unwrap().to_owned(), event["sequence"].as_u64().unwrap());
        match seen.get(&key) {
            Some(before) => assert_eq!(*before, line, "two events under {key:?}"),
            None => {
                seen.insert(key, line);
                log.push(line.clone());
            }
        }
    }
    log
}

fn webhooks(receiver: &Receiver) -> BTreeMap<String, String> {
    let mut by_id = BTreeMap::new();
    for request in receiver.received() {
        assert!(request.verified, "{:?}", request.problem);
        if let Some(before) = by_id.insert(request.id.clone(), request.body.clone()) {
            assert_eq!(before, request.body, "two bodies under the id {}", request.id);
        }
    }
    by_id
}

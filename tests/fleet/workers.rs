//! Worker processes of one job: `flowshift run`, each with its own settings file, log and signals.
//!
//! What a process prints outlives it. Not here: when which of them is struck.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::aws::Aws;
use crate::support::program::{flowshift, tail};

/// A lease is lost after this long: short, so that a minute holds many take-overs.
pub(crate) const FAILOVER: Duration = Duration::from_secs(4);
/// The longest a worker may take to leave.
const LEAVING: Duration = Duration::from_secs(60);

/// A job: its streams, its settings, and a folder for its workers' files.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    name: &'static str,
    folder: PathBuf,
    settings: String,
}

impl Job {
    /// Makes the streams of a job (`NAME-flows`, `NAME-exchange`, `NAME-evidence`).
    pub(crate) fn make(name: &'static str, aws: &Aws, folder: &Path, topology: &Path, shards: (usize, usize)) -> Self {
        for (stream, count) in [("flows", shards.0), ("exchange", shards.1), ("evidence", 1)] {
            aws.create(&format!("{name}-{stream}"), count);
        }
        let (kinesis, dynamodb, failover) = (&aws.kinesis, &aws.dynamodb, FAILOVER.as_secs());
        let settings = format!(
            "[job]\nname = \"{name}\"\nlanes = 32\n\
             [aws]\nregion = \"us-east-1\"\nendpoint_url_kinesis = \"http://{kinesis}\"\n\
             endpoint_url_dynamodb = \"http://{dynamodb}\"\n\
             [input]\nformat = \"json-lines\"\nlateness_reports = \"5m\"\n\
             [engine]\nbatch_interval = \"1s\"\npoll_interval = \"250ms\"\ncommit_interval = \"2s\"\n\
             failover = \"{failover}s\"\nrenewal = \"1s\"\nleader_lock = \"3s\"\nleader_beat = \"1s\"\n\
             assign_interval = \"1s\"\ndiscovery = \"250ms\"\n\
             [detector]\nstep = \"10s\"\n\
             [topology]\nfile = {topology:?}\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n"
        );
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self { name, folder, settings }
    }

    /// A stream of the job.
    pub(crate) fn stream(&self, which: &str) -> String {
        format!("{}-{which}", self.name)
    }

    /// Starts a worker; `slot` names its files.
    pub(crate) fn start(&self, slot: &str, role: &str, more: &[&str]) -> Worker {
        let mut command = self.command(slot);
        command.args(["run", "--json", "--role", role]).args(more);
        self.configured(&mut command, slot);
        Worker::spawn(command, self.log(slot))
    }

    /// What is committed, by `state export`.
    pub(crate) fn export(&self) -> serde_json::Value {
        let mut command = self.command("export");
        command.args(["state", "export"]);
        self.configured(&mut command, "export");
        let output = command.output().unwrap();
        assert!(output.status.success(), "state export: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The last lines of every worker's log.
    pub(crate) fn log_tails(&self) -> String {
        let mut logs: Vec<PathBuf> = std::fs::read_dir(&self.folder).unwrap().map(|e| e.unwrap().path()).collect();
        logs.retain(|path| path.extension().is_some_and(|e| e == "log"));
        logs.sort();
        logs.iter().map(|path| format!("-- {}\n{}\n", path.display(), tail(path))).collect()
    }

    /// How often a text stands in the workers' logs.
    pub(crate) fn logged(&self, text: &str) -> usize {
        let logs = std::fs::read_dir(&self.folder).unwrap().map(|e| e.unwrap().path());
        let logs = logs.filter(|path| path.extension().is_some_and(|e| e == "log"));
        logs.map(|path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).matches(text).count()).sum()
    }

    fn log(&self, slot: &str) -> PathBuf {
        self.folder.join(format!("{slot}.log"))
    }

    fn command(&self, slot: &str) -> Command {
        let mut command = flowshift();
        command.env_remove("FAILPOINTS").env_remove("FLOWSHIFT_CONFIG").env("RUST_BACKTRACE", "1");
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test").env("HOSTNAME", slot);
        command
    }

    fn configured(&self, command: &mut Command, slot: &str) {
        let path = self.folder.join(format!("{slot}.toml"));
        std::fs::write(&path, &self.settings).unwrap();
        command.arg("--config").arg(path);
    }
}

/// One process. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<std::thread::JoinHandle<()>>,
    log: PathBuf,
}

impl Worker {
    fn spawn(mut command: Command, log: PathBuf) -> Self {
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).spawn().unwrap();
        let (stdout, lines) = (child.stdout.take().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let printed = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                printed.lock().unwrap().push(line);
            }
        });
        Self { child, lines, reader: Some(reader), log }
    }

    /// Sends a signal by name, as in `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "kill -{name}: {status}");
    }

    /// How it ended, if it did by itself.
    pub(crate) fn gone(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// kill -9; what it printed.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.printed()
    }

    /// SIGTERM and its good end; what it printed and how long it took.
    pub(crate) fn leave(self) -> (Vec<String>, Duration) {
        self.signal("TERM");
        self.ended(LEAVING)
    }

    /// Waits for its good end.
    pub(crate) fn ended(mut self, patience: Duration) -> (Vec<String>, Duration) {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.gone() {
                break status;
            }
            assert!(began.elapsed() < patience, "did not end in {patience:?}, log:\n{}", tail(&self.log));
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "{status}, log:\n{}", tail(&self.log));
        (self.printed(), began.elapsed())
    }

    fn printed(&mut self) -> Vec<String> {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        std::mem::take(&mut self.lines.lock().unwrap())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

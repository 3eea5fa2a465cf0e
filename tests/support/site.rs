//! A directory with everything a run needs: topology, settings, signing secret, and the data that survives it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::program::{NotReady, Program, flowshift};

/// The subnets of the real capture, which the tests with records made by hand use too.
const TOPOLOGY: &str = "subnets:
  - id: subnet-a
    cidrs: [10.77.1.0/24, \"fd77:1::/64\"]
    az: use1-az1
    vpc: vpc-1
  - id: subnet-b
    cidrs: [10.77.2.0/24, \"fd77:2::/64\"]
    az: use1-az2
    vpc: vpc-1
";
/// The bytes `0..32`, as the Standard Webhooks form of a secret.
const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The directory; removed when dropped.
#[derive(Debug)]
pub(crate) struct Site {
    dir: TempDir,
    settings: String,
    webhook: Option<String>,
    /// Whether SIGTERM ends the input.
    pub(crate) drain: bool,
}

impl Site {
    /// The two subnets of the capture, steps of 10 s, SIGTERM ends the input.
    pub(crate) fn two_subnets() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("topology.yaml"), TOPOLOGY).unwrap();
        std::fs::write(dir.path().join("secret"), SECRET).unwrap();
        Self { dir, settings: String::new(), webhook: None, drain: true }
    }

    /// With these settings (TOML).
    pub(crate) fn with_settings(mut self, toml: &str) -> Self {
        self.settings.push_str(toml);
        self
    }

    /// Posting incidents there.
    pub(crate) fn with_webhook(mut self, url: &str) -> Self {
        self.webhook = Some(url.to_owned());
        self
    }

    /// A file of this name in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts `local` and waits until it is ready.
    pub(crate) fn start(&self) -> Program {
        self.try_start(None).unwrap_or_else(|NotReady(why)| panic!("{why}"))
    }

    /// Starts `local` with a fail point armed, as in `map::after_cut=return`.
    pub(crate) fn try_start(&self, fail_points: Option<&str>) -> Result<Program, NotReady> {
        let mut command = flowshift();
        command.args(["local", "--json", "--collect", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--step", "10s"]);
        command.arg("--data-dir").arg(self.data_dir());
        command.arg("--topology").arg(self.path("topology.yaml"));
        self.configure(&mut command);
        if let Some(url) = &self.webhook {
            command.args(["--webhook", url]).arg("--webhook-secret-file").arg(self.path("secret"));
        }
        if self.drain {
            command.arg("--drain");
        }
        if let Some(points) = fail_points {
            command.env("FAILPOINTS", points);
        }
        Program::start(command, &self.path("stderr.log"))
    }

    /// What `state export` says about the data of the run.
    pub(crate) fn export(&self) -> Value {
        let mut command = flowshift();
        command.args(["state", "export", "--data-dir"]).arg(self.data_dir());
        self.configure(&mut command);
        let output = command.output().unwrap();
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "state export: {}\n{problem}", output.status);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A finished run of a command over the data of the run, as in `["leases", "list"]`.
    pub(crate) fn command(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = flowshift();
        command.args(arguments).arg("--data-dir").arg(self.data_dir());
        self.configure(&mut command);
        command.output().unwrap()
    }

    fn configure(&self, command: &mut Command) {
        command.env_remove("FAILPOINTS").env_remove("FLOWSHIFT_CONFIG").env("RUST_BACKTRACE", "1");
        if !self.settings.is_empty() {
            std::fs::write(self.path("settings.toml"), &self.settings).unwrap();
            command.arg("--config").arg(self.path("settings.toml"));
        }
    }

    /// The folder of streams and state.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    /// The file that holds the signing secret.
    pub(crate) fn secret_file(&self) -> PathBuf {
        self.path("secret")
    }

    /// The directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// A script of `tests/python`.
pub(crate) fn script(python: &Path, name: &str) -> Command {
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(name));
    command
}

//! What the program says of itself: help with examples, version, completions, manual; and the settings that README and
//! manifests show.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::CommandFactory;
use flowshift::cli::Cli;
use flowshift::config::{self, Settings, Sources};
use flowshift::webhook::Format;
use serde_json::Value;

use support::program::flowshift;

fn told(arguments: &[&str]) -> String {
    let output = flowshift().args(arguments).env_remove("FLOWSHIFT_CONFIG").output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Commands that do something, by their whole name.
fn leaves(command: &clap::Command, name: &str, found: &mut Vec<(String, String)>) {
    let mut inner = command.get_subcommands().filter(|inner| inner.get_name() != "help").peekable();
    if inner.peek().is_none() {
        let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        found.push((name.to_owned(), help));
    }
    for inner in inner {
        leaves(inner, &format!("{name} {}", inner.get_name()), found);
    }
}

#[test]
fn every_command_teaches_by_an_example_of_itself() {
    let mut found = Vec::new();
    leaves(&Cli::command(), "flowshift", &mut found);
    assert!(found.len() > 20, "{found:?}");
    for (name, help) in found {
        let example = help.split_once("Example").map(|(_, rest)| rest).unwrap_or_default();
        assert!(example.contains(&name), "`{name} --help` has no example of it: {help:?}");
    }
}

#[test]
fn the_long_version_names_the_commit_and_the_short_one_is_a_line() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(told(&["-V"]), format!("flowshift {version}\n"));
    let long = told(&["--version"]);
    let lines: Vec<&str> = long.lines().collect();
    assert_eq!(lines[0], format!("flowshift {version}"));
    let commit = lines[1].strip_prefix("commit ").unwrap();
    assert!(commit == "unknown" || commit.len() >= 7, "{long}");
    assert_eq!(lines[2], "embedded services: yes");
}

#[test]
fn completions_and_manual_know_every_command() {
    let names: Vec<String> = Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = told(&["completions", shell]);
        assert!(names.iter().all(|name| script.contains(name.as_str())), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    told(&["man", "--out", pages.to_str().unwrap()]);
    for name in &names {
        assert!(pages.join(format!("flowshift-{name}.1")).exists(), "no page of {name}");
    }
    let page = std::fs::read_to_string(pages.join("flowshift-doctor.1")).unwrap();
    assert!(page.starts_with(".ie") || page.contains(".TH"), "{page}");
    assert!(page.contains("Nothing is changed, put or delivered"), "{page}");
    assert!(told(&["man"]).contains("flowshift\\-doctor"));
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    let mut child = flowshift().args(["completions", "zsh"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn settings_are_checked_and_shown_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flowshift.toml");
    std::fs::write(&file, "[detector]\nstep = \"7s\"\n[jbo]\nlanes = 3\n").unwrap();
    let output = flowshift().args(["config", "check", "--json", "--config"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let problem = told["problems"].as_array().unwrap().iter().find(|problem| problem["key"] == "jbo.lanes").unwrap();
    assert!(problem["fix"].as_str().unwrap().contains("job.lanes"), "{told}");
    std::fs::write(&file, "[job]\nlanes = 3\n").unwrap();
    let shown = flowshift().args(["config", "show", "--json", "--config"]).arg(&file).output().unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["settings"]["job"]["lanes"], 3);
}

/// Every key of the settings, lists as `name[]`.
fn keys() -> BTreeSet<String> {
    let schema = config::schema();
    let target = |node: &Value| match node["$ref"].as_str() {
        Some(path) => schema.pointer(path.trim_start_matches('#')).unwrap().clone(),
        None => node.clone(),
    };
    let mut keys = BTreeSet::new();
    for (section, node) in schema["properties"].as_object().unwrap() {
        let node = target(node);
        let (prefix, of) = match node.get("items") {
            Some(items) => (format!("{section}[]"), target(items)),
            None => (section.clone(), node),
        };
        keys.extend(of["properties"].as_object().unwrap().keys().map(|key| format!("{prefix}.{key}")));
    }
    keys
}

#[test]
fn every_key_that_readme_lists_exists() {
    let readme = include_str!("../README.md");
    let keys = keys();
    let table = readme.split("| key | default | meaning |").nth(1).unwrap();
    let mut seen = 0;
    for row in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let mut section = String::new();
        for name in row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2) {
            // `.consumer` behind `input.fetch` is `input.consumer`.
            let full = if name.starts_with('.') { format!("{section}{name}") } else { name.to_owned() };
            section = full.rsplit_once('.').unwrap().0.to_owned();
            let known = match full.strip_suffix('*') {
                Some(all) => keys.iter().any(|key| key.starts_with(all)),
                None => keys.contains(&full),
            };
            assert!(known, "README lists `{full}`, which is no key");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn the_settings_of_the_manifests_are_read() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("k8s/parts/shared/flowshift.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    // What is shown as a comment must fit as well.
    let shown: String = text
        .lines()
        .map(|line| {
            let bare = line.trim_start_matches("# ");
            let is_setting = bare.starts_with('[') || bare.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
            format!("{}\n", if is_setting { bare } else { line })
        })
        .collect();
    assert_ne!(shown, text);
    for text in [text, shown] {
        let sources = Sources { file: Some((path.clone(), text)), ..Sources::default() };
        config::load(&Settings::default(), &sources).unwrap();
    }
}

#[test]
fn the_webhook_blocks_of_readme_are_read_and_have_every_format() {
    let readme = include_str!("../README.md");
    let block = readme.split("```toml\n").skip(1).find(|block| block.starts_with("[[webhooks]]")).unwrap();
    let text = block.split("```").next().unwrap().to_owned();
    let sources = Sources { file: Some((PathBuf::from("README.md"), text)), ..Sources::default() };
    let config = config::load(&Settings::default(), &sources).unwrap().config;
    let formats: BTreeSet<&str> = config.webhooks.iter().map(|webhook| webhook.format.as_str()).collect();
    assert_eq!(formats, Format::ALL.map(Format::as_str).into());
}

#[test]
fn the_exit_codes_stand_in_the_help_and_in_the_manual() {
    for told in [told(&["--help"]), told(&["man"])] {
        for text in ["Exit codes", "state inspect", "wrong command line"] {
            assert!(told.replace("\\-", "-").contains(text), "{text}: {told}");
        }
    }
}

/// The text of `--help` in a narrow terminal had a line of two words in the middle of a sentence.
#[test]
fn help_wraps_where_the_terminal_ends() {
    let output = flowshift().args(["webhook", "verify", "--help"]).env("COLUMNS", "80").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("The headers stand")).collect();
    let paragraph: Vec<&&str> = lines.iter().take_while(|line| !line.is_empty()).collect();
    assert!(paragraph.len() > 3, "{text}");
    for line in &paragraph[..paragraph.len() - 1] {
        assert!((60..=80).contains(&line.len()), "{line:?}");
    }
}

#[test]
fn a_page_of_the_manual_ends_with_the_program_and_not_with_the_last_word_of_the_command() {
    let folder = tempfile::tempdir().unwrap();
    told(&["man", "--out", folder.path().to_str().unwrap()]);
    let page = std::fs::read_to_string(folder.path().join("flowshift-leases-resolve-skip.1")).unwrap();
    let title = page.lines().find(|line| line.starts_with(".TH")).unwrap();
    assert!(title.contains("flowshift-leases-resolve-skip 1") && title.contains("\"flowshift "), "{title}");
}

#[test]
fn an_export_takes_no_settings_of_a_run() {
    let help = told(&["state", "export", "--help"]);
    assert!(help.contains("--data-dir") && help.contains("--config"), "{help}");
    for option in ["--webhook", "--step", "--admin", "--topology"] {
        assert!(!help.contains(option), "{option}: {help}");
    }
}

/// Only keys that were read had a line; a secret that lacks, or cannot be read, had none.
#[test]
fn what_is_wrong_with_a_webhooks_secret_names_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flowshift.toml");
    let check = |settings: &str| {
        std::fs::write(&file, settings).unwrap();
        let output = flowshift().args(["config", "check", "--config"]).arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(64));
        String::from_utf8(output.stderr).unwrap()
    };
    let place = |line: usize| format!("{}:{line}: webhooks.0.secret_file: ", file.display());
    let url = "\n[[webhooks]]\nname = \"on-call\"\nurl = \"http://127.0.0.1:9/\"\n";
    let lacks = check(url);
    assert!(lacks.contains(&format!("{}no signing secret", place(3))), "{lacks}");
    let unread = check(&format!("{url}secret_file = \"/nowhere/secret\"\n"));
    assert!(unread.contains(&place(5)) && unread.contains("/nowhere/secret"), "{unread}");
    assert!(unread.contains("topology"), "all at once: {unread}");
}

#[test]
fn a_collector_tells_its_addresses_as_json_also_while_kinesis_does_not_answer() {
    use std::io::{BufRead, BufReader};

    let mut command = flowshift();
    command.args(["collect", "--json", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.env("AWS_REGION", "us-east-1").env("AWS_EC2_METADATA_DISABLED", "true").env_remove("FLOWSHIFT_CONFIG");
    // Nobody listens there.
    command.env("FLOWSHIFT__AWS__ENDPOINT_URL_KINESIS", "http://127.0.0.1:9");
    command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", "s");
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(ready["type"], "ready");
    for door in ["collect", "admin"] {
        let address: std::net::SocketAddr = ready[door].as_str().unwrap().parse().unwrap();
        assert!(address.ip().is_loopback() && address.port() > 0, "{line}");
    }
}

//! `flowshift config`: check, show and describe the configuration. Nothing is contacted.

use flowshift_consumer::exchange::ShardCounts;
use serde_json::{Value, json};

use super::{Failure, load, print_line, said, services};
use crate::admin::operator::Token;
use crate::app;
use crate::cli::ConfigCommand;
use crate::config::{self, Loaded, Problem, Problems, SecretSource, Settings};
use crate::topology::Topology;

pub(super) fn run(command: ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check { settings, input_shards, exchange_shards, json } => {
            let opened = load(&Settings::default(), &settings, Vec::new()).and_then(|loaded| {
                let topology = opened(&loaded)?;
                Ok((loaded, topology))
            });
            let (loaded, topology) = match opened {
                Ok(opened) => opened,
                Err(failure) if json => {
                    let problems = failure.error.downcast_ref::<Problems>().map(problems);
                    print_line(&pretty(&json!({"ok": false, "problems": problems}))?);
                    return Err(failure);
                }
                Err(failure) => return Err(failure),
            };
            let (subnets, edges) = (topology.subnets().len(), topology.edges().len());
            let shards = ShardCounts { input: input_shards.into(), exchange: exchange_shards.into() };
            let facts = config::facts(&loaded.config, shards);
            if json {
                print_line(&pretty(&json!({
                    "ok": true,
                    "topology": {"subnets": subnets, "edges": edges},
                    "batch_interval_s": facts.batch_interval.as_secs_f64(),
                    "exchange_shards_needed": facts.exchange_shards_needed,
                    "threshold_nats": facts.threshold_nats,
                    "longest_webhook_timeout_s": facts.longest_webhook_timeout.as_secs_f64(),
                    "warnings": facts.warnings,
                }))?);
                return Ok(());
            }
            print_line(&format!("topology: {subnets} subnets, {edges} edges"));
            print_line(facts.to_string().trim_end());
            print_line("ok");
        }
        ConfigCommand::Show { settings, json } => {
            let loaded = load(&Settings::default(), &settings, Vec::new())?;
            if json {
                print_line(&pretty(&config::show_json(&loaded).map_err(Failure::start)?)?);
            } else {
                print_line(config::show(&loaded).trim_end());
            }
        }
        ConfigCommand::Schema => {
            print_line(&pretty(&config::schema())?);
        }
        ConfigCommand::Example => print_line(config::example().trim_end()),
    }
    Ok(())
}

/// Opens the files that the settings name; all that cannot be used are told at once, each with the line of its key.
fn opened(loaded: &Loaded) -> Result<Topology, Failure> {
    let config = &loaded.config;
    let mut problems = Vec::new();
    for (index, webhook) in config.webhooks.iter().enumerate() {
        if let Err(error) = app::endpoint(webhook) {
            let field = match &webhook.secret {
                _ if webhook.ca_file.is_some() && format!("{error:#}").contains("ca_file") => "ca_file",
                Some(SecretSource::File(_)) => "secret_file",
                Some(SecretSource::Env(_)) => "secret_env",
                None => "url",
            };
            let what = said(&error);
            problems.push(loaded.problem(
                &format!("webhooks.{index}.{field}"),
                what,
                "README, `Webhooks`, has an example",
            ));
        }
    }
    if let Err(error) = Token::configured(&config.admin) {
        let key = if config.admin.token_env.is_some() { "admin.token_env" } else { "admin.token_file" };
        let what = error.to_string();
        let what = what.strip_prefix(&format!("{key}: ")).unwrap_or(&what).to_owned();
        problems.push(loaded.problem(key, what, "write one with `head -c 24 /dev/urandom | base64`"));
    }
    match services::topology(config) {
        Ok(topology) if problems.is_empty() => Ok(topology),
        Ok(_) => Err(Problems(problems).into()),
        Err(error) => {
            problems.push(loaded.problem("topology.file", said(&error), "README has an example of a topology file"));
            Err(Problems(problems).into())
        }
    }
}

fn pretty(value: &Value) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(Failure::start)
}

fn problems(problems: &Problems) -> Vec<Value> {
    let one = |problem: &Problem| {
        let origin = problem.origin.to_string();
        json!({"key": problem.key, "origin": origin, "what": problem.what, "fix": problem.fix})
    };
    problems.0.iter().map(one).collect()
}

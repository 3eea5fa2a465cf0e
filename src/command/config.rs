//! `flowshift config`: check, show and describe the configuration. Nothing is contacted.

use flowshift_consumer::exchange::ShardCounts;
use serde_json::{Value, json};

use super::{Failure, load, print_line, services};
use crate::admin::operator::Token;
use crate::app;
use crate::cli::ConfigCommand;
use crate::config::{self, Problem, Problems, Settings};

pub(super) fn run(command: ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check { settings, input_shards, exchange_shards, json } => {
            let loaded = match load(&Settings::default(), &settings, Vec::new()) {
                Ok(loaded) => loaded,
                Err(failure) if json => {
                    let problems = failure.error.downcast_ref::<Problems>().map(problems);
                    print_line(&pretty(&json!({"ok": false, "problems": problems}))?);
                    return Err(failure);
                }
                Err(failure) => return Err(failure),
            };
            let topology = services::topology(&loaded.config).map_err(Failure::usage)?;
            for webhook in &loaded.config.webhooks {
                app::endpoint(webhook).map_err(Failure::usage)?;
            }
            Token::configured(&loaded.config.admin).map_err(Failure::usage)?;
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

//! `flowshift config`: check, show and describe the configuration. Nothing is contacted.

use flowshift_consumer::exchange::ShardCounts;

use super::{Failure, load, print_line, services};
use crate::admin::operator::Token;
use crate::app;
use crate::cli::ConfigCommand;
use crate::config::{self, Settings};

pub(super) fn run(command: ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check { settings, input_shards, exchange_shards } => {
            let loaded = load(&Settings::default(), &settings, Vec::new())?;
            let topology = services::topology(&loaded.config).map_err(Failure::usage)?;
            for webhook in &loaded.config.webhooks {
                app::endpoint(webhook).map_err(Failure::usage)?;
            }
            Token::configured(&loaded.config.admin).map_err(Failure::usage)?;
            print_line(&format!("topology: {} subnets, {} edges", topology.subnets().len(), topology.edges().len()));
            let shards = ShardCounts { input: input_shards.into(), exchange: exchange_shards.into() };
            print_line(config::facts(&loaded.config, shards).to_string().trim_end());
            print_line("ok");
        }
        ConfigCommand::Show { settings } => {
            let loaded = load(&Settings::default(), &settings, Vec::new())?;
            print_line(config::show(&loaded).trim_end());
        }
        ConfigCommand::Schema => {
            print_line(&serde_json::to_string_pretty(&config::schema()).map_err(Failure::start)?);
        }
        ConfigCommand::Example => print_line(config::example().trim_end()),
    }
    Ok(())
}

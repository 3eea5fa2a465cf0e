//! Settings that are allowed and odd, and the operator's token.
//!
//! What is wrong with settings is told before any check runs ([`super::unreadable`]).

use flowshift_consumer::exchange::ShardCounts;

use super::{Finding, Patient};
use crate::admin::operator::Token;
use crate::config;

pub(super) async fn check(patient: &Patient) -> Vec<Finding> {
    let config = &patient.config;
    let mut findings = vec![Finding::ok(format!("job {}", config.job), "settings are read and agree with each other")];
    // The width of the exchange is judged by the shards there are, and a missing topology by its own check.
    let wide = ShardCounts { input: 1, exchange: u64::from(u16::MAX) };
    let warnings = config::facts(config, wide).warnings;
    for warning in warnings.iter().filter(|warning| !warning.starts_with("topology.file")) {
        let (about, fix) = advice(warning);
        findings.push(Finding::warning(about, warning, fix));
    }
    if patient.part.works() {
        findings.push(token(Token::configured(&config.admin).map(|token| token.is_some()).map_err(|e| e.to_string())));
    }
    findings
}

/// What a warning is about, by the key it begins with, and what to do.
fn advice(warning: &str) -> (&'static str, &'static str) {
    if warning.starts_with("collect.listen") {
        ("collect.listen", "keep the port inside the VPC: a security group or NetworkPolicy that names the agents")
    } else if warning.starts_with("admin.listen") {
        ("admin.listen", "listen on loopback, or let a NetworkPolicy admit Prometheus and operators alone")
    } else if warning.starts_with("webhook") {
        ("webhooks", "use an https:// URL")
    } else {
        ("", "see `flowshift config check`")
    }
}

fn token(read: Result<bool, String>) -> Finding {
    match read {
        Ok(true) => Finding::ok("admin.token", "commands of operators are taken with the token"),
        Ok(false) => Finding::ok("admin.token", "not set: commands of operators are refused"),
        Err(why) => Finding::fault("admin.token", why, "write a token: head -c 24 /dev/urandom | base64 > FILE"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_token_that_cannot_be_read_is_a_fault_and_none_is_a_choice() {
        assert_eq!(token(Ok(false)).level, Level::Ok);
        assert_eq!(token(Err("admin.token_file: t cannot be read".into())).level, Level::Fault);
    }

    #[test]
    fn every_warning_of_the_settings_has_advice_of_its_own() {
        let mut config = crate::config::Config::local_defaults().unwrap();
        config.admin.listen = "0.0.0.0:1".parse().unwrap();
        config.collect.listen = "0.0.0.0:2".parse().unwrap();
        let warnings = config::facts(&config, ShardCounts { input: 1, exchange: 1 }).warnings;
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        for warning in warnings.iter().filter(|warning| !warning.starts_with("topology")) {
            assert_ne!(advice(warning).0, "", "{warning}");
        }
    }
}

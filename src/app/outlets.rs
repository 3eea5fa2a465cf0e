//! The way of committed events out of the process: a deliverer for each owner of the evidence stream's lease.
//!
//! For: configured webhooks into running endpoints. Not for: delivering; see [`crate::webhook`]. Invariant: a process whose
//! role does not deliver reads no secret, and an owner without its secrets holds what is due.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use flowshift_consumer::commit::Snapshot;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Job, Role};
use crate::config::{SecretSource, Webhook};
use crate::metrics::Metrics;
use crate::stage::correlate::{Deliveries, Outlet, Printer};
use crate::stage::rules::Rules;
use crate::webhook::{
    Board, Deliverer, Endpoint, Gate, HttpTransport, KeyStore, Map, Options, Places, SubnetPlace, Switches, WallClock,
};

/// Events waiting for the deliverer.
const QUEUE: usize = 256;

/// Makes an outlet for each owner of the evidence stream's lease.
pub(super) struct Outlets {
    printer: Option<Printer>,
    webhooks: Vec<Webhook>,
    metrics: Metrics,
    failover: std::time::Duration,
    map: Map,
    switches: Switches,
    /// Whether this process may deliver at all; if not, it knows nothing of endpoints.
    deliver: bool,
}

impl Outlets {
    pub(super) fn new(job: &Job) -> anyhow::Result<Self> {
        let webhooks = receivers(&job.config.webhooks, job.role, job.deliver);
        // Made once at the start, so that a missing secret is told now and not with the first incident.
        for webhook in webhooks {
            endpoint(webhook)?;
        }
        Ok(Self {
            printer: job.printer.clone(),
            webhooks: webhooks.to_vec(),
            metrics: job.metrics.clone(),
            failover: job.config.engine.failover.get(),
            map: map(job.snapshot.clone()),
            switches: job.switches.clone(),
            deliver: job.deliver,
        })
    }

    /// An outlet whose deliveries stop with the lease.
    pub(super) fn open(&self, renewed: watch::Receiver<Option<Instant>>, lost: CancellationToken) -> Outlet {
        if self.webhooks.is_empty() {
            let outlet = Outlet::new(self.printer.clone(), None);
            // No endpoint is configured: what is committed of endpoints is forgotten.
            return if self.deliver { outlet.with_board(Board::default()) } else { outlet };
        }
        let longest = self.webhooks.iter().map(|w| w.timeout).max().unwrap_or_default();
        let gate = Gate::renewal(renewed, self.failover.saturating_sub(longest));
        let endpoints: Result<Vec<_>, _> = self.webhooks.iter().map(endpoint).collect();
        let deliverer = endpoints.and_then(|e| {
            let options = Options {
                map: self.map.clone(),
                switches: self.switches.clone(),
                seed: rand::random(),
                ..Options::default()
            };
            Ok(Deliverer::with_options(e, self.metrics.webhook.clone(), options)?)
        });
        let deliverer = match deliverer {
            Ok(deliverer) => deliverer,
            Err(error) => {
                // The same endpoints were made at the start: a secret has gone since. What is due stays in the outbox.
                tracing::error!(error = format!("{error:#}"), "webhooks cannot be delivered by this owner");
                return Outlet::held(self.printer.clone());
            }
        };
        let (queue, entries) = mpsc::channel(QUEUE);
        let (done, outcomes) = mpsc::channel(QUEUE);
        let (drain, board) = (deliverer.drain_handle(), deliverer.board());
        tokio::spawn(deliverer.run(entries, done, gate, lost));
        Outlet::new(self.printer.clone(), Some(Deliveries { queue, outcomes, drain })).with_board(board)
    }
}

/// The webhooks this process may have to deliver to.
fn receivers(webhooks: &[Webhook], role: Role, deliver: bool) -> &[Webhook] {
    if deliver && role != Role::Aggregate { webhooks } else { &[] }
}

/// Where the subnets are by the rules in force; read anew only when they change.
fn map(snapshot: watch::Receiver<Snapshot>) -> Map {
    let read: Mutex<Option<(String, Arc<Places>)>> = Mutex::new(None);
    Map::from_fn(move || {
        let snapshot = snapshot.borrow();
        let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((hash, places)) = &*read
            && hash == snapshot.hash()
        {
            return Arc::clone(places);
        }
        let found = Rules::read(&snapshot).map(|rules| places(&rules));
        let found = Arc::new(found.unwrap_or_else(|error| {
            tracing::warn!(%error, "webhook filters know no subnets: the rules cannot be read");
            BTreeMap::new()
        }));
        *read = Some((snapshot.hash().to_owned(), Arc::clone(&found)));
        found
    })
}

fn places(rules: &Rules) -> Places {
    let place = |s: &crate::topology::Subnet| SubnetPlace { az: s.az.clone(), cidrs: s.cidrs.clone() };
    rules.topology.subnets().iter().map(|subnet| (subnet.id.clone(), place(subnet))).collect()
}

fn keys(webhook: &Webhook) -> anyhow::Result<KeyStore> {
    let read = match &webhook.secret {
        None => return Ok(KeyStore::none(webhook.format)),
        Some(SecretSource::File(path)) => KeyStore::from_file(webhook.format, path),
        Some(SecretSource::Env(name)) => KeyStore::from_env(webhook.format, name),
    };
    read.with_context(|| format!("secret of webhook {}", webhook.name))
}

/// The transport of a webhook that others cannot share.
fn transport(webhook: &Webhook) -> anyhow::Result<Arc<HttpTransport>> {
    let read = |path: &std::path::PathBuf| {
        std::fs::read(path).with_context(|| format!("ca_file of webhook {}: {}", webhook.name, path.display()))
    };
    let pem = webhook.ca_file.as_ref().map(read).transpose()?;
    let tls = webhook.url.scheme() == "https";
    let transport = HttpTransport::special(WallClock::system(), tls, pem.as_deref(), webhook.allow_link_local);
    Ok(Arc::new(transport.with_context(|| format!("webhook {}", webhook.name))?))
}

/// The endpoint of a configured webhook.
///
/// # Errors
/// Its secret is missing, its address forbidden, or its certificates cannot be read.
pub fn endpoint(webhook: &Webhook) -> anyhow::Result<Endpoint> {
    let (name, url, keys) = (&webhook.name, webhook.url.as_str(), keys(webhook)?);
    let endpoint = if webhook.ca_file.is_some() || webhook.allow_link_local {
        Endpoint::special(name, url, keys, webhook.allow_link_local, transport(webhook)?)?
    } else {
        Endpoint::new(name, url, keys)?
    };
    let endpoint = endpoint.with_timeout(webhook.timeout)?.with_max_age(webhook.max_age)?.with_muted(webhook.muted);
    Ok(endpoint
        .with_filter(webhook.filter.clone())
        .with_schedule(webhook.retry.clone())
        .with_min_interval(webhook.min_interval)
        .with_origin(&webhook.job, webhook.link.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::{Filter, Format, Schedule};

    fn webhook(file: &std::path::Path) -> Webhook {
        Webhook {
            name: "ops".into(),
            job: "flowshift".into(),
            format: Format::Standard,
            url: "http://127.0.0.1:9/hook".parse().unwrap(),
            secret: Some(SecretSource::File(file.to_owned())),
            timeout: std::time::Duration::from_secs(1),
            max_age: std::time::Duration::from_secs(60),
            muted: false,
            filter: Filter::default(),
            link: None,
            min_interval: std::time::Duration::ZERO,
            retry: Schedule::default(),
            ca_file: None,
            allow_link_local: false,
        }
    }

    fn outlets(webhooks: Vec<Webhook>, deliver: bool) -> Outlets {
        Outlets {
            printer: None,
            webhooks,
            metrics: Metrics::new().unwrap(),
            failover: std::time::Duration::from_secs(10),
            map: Map::default(),
            switches: Switches::default(),
            deliver,
        }
    }

    /// Without a board what is committed of disabled endpoints stays as it is.
    #[tokio::test]
    async fn only_an_owner_that_delivers_has_a_say_about_endpoints_and_so_it_has_when_none_is_configured() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\n").unwrap();
        let missing = folder.path().join("missing");
        for (webhooks, deliver, board) in [
            (vec![webhook(&file)], true, true),
            (vec![], true, true),
            (vec![], false, false),
            (vec![webhook(&missing)], true, false),
        ] {
            let outlet = outlets(webhooks, deliver).open(watch::channel(None).1, CancellationToken::new());
            assert!(format!("{outlet:?}").contains(&format!("board: {board}")), "{outlet:?}");
        }
    }

    #[test]
    fn a_link_local_receiver_is_refused_unless_it_is_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\n").unwrap();
        let url = "http://169.254.10.1/hook".parse().unwrap();
        let refused = Webhook { url, ..webhook(&file) };
        assert!(endpoint(&refused).unwrap_err().to_string().contains("link-local"));
        let allowed = Webhook { allow_link_local: true, ..refused };
        assert!(endpoint(&allowed).is_ok());
        let proved = Webhook { ca_file: Some(file), allow_link_local: false, ..allowed.clone() };
        assert!(format!("{:#}", endpoint(&proved).unwrap_err()).contains("no certificate in the text"));
        let missing = Webhook { ca_file: Some("none".into()), ..allowed };
        assert!(format!("{:#}", endpoint(&missing).unwrap_err()).contains("ca_file of webhook ops: none"));
    }

    /// Workers that only aggregate did not start without secrets they never use.
    #[test]
    fn only_a_role_that_delivers_needs_secrets() {
        let all = [webhook(std::path::Path::new("none"))];
        assert!(receivers(&all, Role::Aggregate, true).is_empty() && receivers(&all, Role::All, false).is_empty());
        assert_eq!((receivers(&all, Role::Detect, true).len(), receivers(&all, Role::All, true).len()), (1, 1));
    }

    /// It counted as delivered what nobody had sent, because there was no deliverer to wait for.
    #[tokio::test]
    async fn an_owner_whose_secret_is_gone_holds_what_is_due_and_the_next_owner_that_has_it_sends() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let outlets = outlets(vec![webhook(&file)], true);
        let event = serde_json::json!({
            "id": "evt_1", "incident": "inc", "sequence": 1, "kind": "opened", "event": "{}", "body": "{}",
            "created_ms": 0, "printed": false, "delivered": false,
        });
        let outbox = serde_json::json!({ "entries": [event], "open": ["inc"], "dropped": 0 });
        let mut outbox: crate::stage::correlate::Outbox = serde_json::from_value(outbox).unwrap();
        outbox.commit();
        let (renewed, owner) = watch::channel(None);
        let mut without = outlets.open(owner, CancellationToken::new());
        without.send(&mut outbox);
        without.collect(&mut outbox);
        assert!(!outbox.is_delivered(), "{:?}", outbox.entries());

        std::fs::write(&file, "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\n").unwrap();
        let mut with = outlets.open(renewed.subscribe(), CancellationToken::new());
        with.send(&mut outbox);
        assert!(!outbox.is_delivered(), "not before the receiver has it");
        assert!(format!("{with:?}").contains("handed: 1"), "{with:?}");
    }
}

//! The addresses the process will listen on: they are this machine's, and free or held by a flowshift.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;

use super::{Finding, Part, Patient};

/// How long the one who holds a port has to say who it is.
const ANSWER: Duration = Duration::from_secs(2);

pub(super) async fn check(patient: &Patient) -> Vec<Finding> {
    let config = &patient.config;
    let mut findings = vec![look("admin.listen", config.admin.listen).await];
    if patient.part == Part::Collect || patient.embedded {
        findings.push(look("collect.listen", config.collect.listen).await);
    }
    findings
}

async fn look(key: &str, address: SocketAddr) -> Finding {
    let bound = TcpListener::bind(address).await.map(drop).map_err(|error| error.kind());
    let ours = bound == Err(ErrorKind::AddrInUse) && is_flowshift(address).await;
    verdict(key, address, bound, ours)
}

/// Whether what listens there is a flowshift's admin port or collector.
async fn is_flowshift(address: SocketAddr) -> bool {
    // Fails when a provider is installed already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let asked = async {
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().ok()?;
        let metrics = client.get(format!("http://{address}/metrics")).send().await.ok()?;
        if metrics.text().await.ok()?.contains("flowshift_build_info") {
            return Some(());
        }
        // The collector has no page of its own; what it says to a GET names it.
        let flows = client.get(format!("http://{address}/v1/flows")).send().await.ok()?;
        (flows.status() == reqwest::StatusCode::METHOD_NOT_ALLOWED).then_some(())
    };
    tokio::time::timeout(ANSWER, asked).await.ok().flatten().is_some()
}

fn verdict(key: &str, address: SocketAddr, bound: Result<(), ErrorKind>, ours: bool) -> Finding {
    let about = format!("{key} {address}");
    match bound {
        Ok(()) => Finding::ok(about, "free"),
        Err(ErrorKind::AddrInUse) if ours => Finding::ok(about, "a flowshift listens there already"),
        Err(ErrorKind::AddrInUse) => Finding::fault(
            about,
            "in use by another program",
            format!("stop it (ss -ltnp), or set {key} to a free port"),
        ),
        Err(ErrorKind::AddrNotAvailable) => Finding::fault(
            about,
            "no address of this machine",
            format!("set {key} to one of `ip address`, or to 0.0.0.0 or [::] for all"),
        ),
        Err(ErrorKind::PermissionDenied) => {
            Finding::fault(about, "this user may not listen there", format!("set {key} to a port above 1023"))
        }
        Err(other) => Finding::fault(about, format!("cannot listen: {other}"), format!("set {key} to another address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[tokio::test]
    async fn a_port_that_another_program_holds_is_a_fault_and_a_free_one_is_not() {
        let held = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = held.local_addr().unwrap();
        let found = look("admin.listen", address).await;
        assert!(found.level == Level::Fault && found.what.contains("in use"), "{found:?}");
        drop(held);
        assert_eq!(look("admin.listen", address).await.level, Level::Ok);
    }

    #[test]
    fn each_refusal_of_the_system_says_what_to_set() {
        let address = "192.0.2.1:80".parse().unwrap();
        for kind in [ErrorKind::AddrNotAvailable, ErrorKind::PermissionDenied, ErrorKind::AddrInUse, ErrorKind::Other] {
            let found = verdict("collect.listen", address, Err(kind), false);
            assert!(found.level == Level::Fault && found.fix.contains("collect.listen"), "{found:?}");
        }
        assert_eq!(verdict("admin.listen", address, Err(ErrorKind::AddrInUse), true).level, Level::Ok);
    }
}

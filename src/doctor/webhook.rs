//! Receivers of incidents, as far as can be tried without posting anything: secret, name, address, connection, TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::answer::chain;
use super::{Finding, Patient};
use crate::app;
use crate::config::Webhook;
use crate::webhook::{Format, is_forbidden};

pub(super) async fn check(patient: &Patient) -> Vec<Finding> {
    if !patient.part.detects() {
        return vec![Finding::ok("", "this role delivers none")];
    }
    if patient.config.webhooks.is_empty() {
        let fix = "set [[webhooks]] with url and secret_file, and try it with `flowshift webhook test`";
        return vec![Finding::warning("", "none is set: incidents are in metrics and at /v1/incidents only", fix)];
    }
    futures::future::join_all(patient.config.webhooks.iter().map(look)).await
}

/// How far a connection got.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reached {
    /// Connected, over TLS if the URL says so.
    Open(SocketAddr, bool),
    /// The name leads to no address.
    NoName(String),
    /// All its addresses are link-local or a metadata service.
    Forbidden(SocketAddr),
    /// No connection to any address.
    Closed(String),
    /// The TLS handshake failed.
    NoTls(String),
    /// Nothing within the webhook's timeout.
    Late(Duration),
}

async fn look(webhook: &Webhook) -> Finding {
    if let Err(error) = app::endpoint(webhook) {
        return unfit(webhook, &format!("{error:#}"));
    }
    let Some(host) = webhook.url.host_str() else { return unfit(webhook, "its url has no host") };
    // As it stands in a URL, an IPv6 address is in brackets.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = webhook.url.port_or_known_default().unwrap_or(443);
    let tls = webhook.url.scheme() == "https";
    verdict(webhook, host, port, &reach(host, port, tls, webhook.timeout).await)
}

/// Name, connection and TLS; the name has a limit of its own, so that a slow resolver is not taken for a firewall.
async fn reach(host: &str, port: u16, tls: bool, limit: Duration) -> Reached {
    let addresses: Vec<SocketAddr> = match tokio::time::timeout(limit, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => return Reached::NoName(error.to_string()),
        Err(_) => return Reached::NoName(format!("the resolver does not answer within {limit:?}")),
    };
    let connected = tokio::time::timeout(limit, connect(host, addresses, tls)).await;
    connected.unwrap_or(Reached::Late(limit))
}

async fn connect(host: &str, addresses: Vec<SocketAddr>, tls: bool) -> Reached {
    let Some(first) = addresses.first().copied() else { return Reached::NoName("no address".into()) };
    let mut why = None;
    for address in addresses.into_iter().filter(|address| !is_forbidden(address.ip())) {
        match TcpStream::connect(address).await {
            Ok(stream) if tls => return handshake(host, address, stream).await,
            Ok(_) => return Reached::Open(address, false),
            Err(error) => why = Some(format!("{address}: {error}")),
        }
    }
    why.map_or(Reached::Forbidden(first), Reached::Closed)
}

async fn handshake(host: &str, address: SocketAddr, stream: TcpStream) -> Reached {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(BuilderVerifierExt::with_platform_verifier);
    let (config, name) = match (config, ServerName::try_from(host.to_owned())) {
        (Ok(config), Ok(name)) => (config.with_no_client_auth(), name),
        (Err(error), _) => return Reached::NoTls(error.to_string()),
        (_, Err(error)) => return Reached::NoTls(error.to_string()),
    };
    match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        Ok(_) => Reached::Open(address, true),
        Err(error) => Reached::NoTls(chain(&error)),
    }
}

/// What the program itself would refuse at its start.
fn unfit(webhook: &Webhook, why: &str) -> Finding {
    let fix = if why.contains("link-local") {
        "post to a receiver of your own; addresses that hand out credentials are never called"
    } else if matches!(webhook.format, Format::Standard | Format::CloudEvents) {
        "write a secret: echo \"whsec_$(head -c 32 /dev/urandom | base64)\" > FILE, and give it to the receiver as well"
    } else {
        "put the receiver's key or URL where secret_file or secret_env says; README, `Webhooks`, says what it is"
    };
    Finding::fault(&webhook.name, why, fix)
}

fn verdict(webhook: &Webhook, host: &str, port: u16, reached: &Reached) -> Finding {
    let name = &webhook.name;
    match reached {
        Reached::Open(address, tls) => {
            let over = if *tls { " over TLS" } else { "" };
            Finding::ok(name, format!("{host} answers at {address}{over}; nothing was posted"))
        }
        Reached::NoName(why) => Finding::fault(
            name,
            format!("{host} has no address: {why}"),
            "look at the url and at name resolution; in Kubernetes a NetworkPolicy must allow DNS",
        ),
        Reached::Forbidden(address) => Finding::fault(
            name,
            format!("{host} is {}, link-local or a metadata service", address.ip()),
            "post to a receiver of your own; addresses that hand out credentials are never called",
        ),
        Reached::Closed(why) => Finding::fault(
            name,
            format!("no connection to {host}:{port}: {why}"),
            "start the receiver, or mend url, firewall or NetworkPolicy; events wait in the outbox until max_age",
        ),
        Reached::NoTls(why) => Finding::fault(
            name,
            format!("no TLS with {host}: {why}"),
            "mend the receiver's certificate (name, chain, date), or add its CA to the system's certificates",
        ),
        Reached::Late(limit) => Finding::fault(
            name,
            format!("{host}:{port} does not answer within {limit:?}"),
            "a firewall that drops: look at security groups, NetworkPolicy and routes",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Settings, Sources, load};
    use crate::doctor::Level;

    const LIMIT: Duration = Duration::from_secs(5);

    async fn port(listener: &tokio::net::TcpListener) -> u16 {
        listener.local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn an_open_port_is_reached_and_a_closed_one_is_named() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = port(&listener).await;
        assert!(matches!(reach("127.0.0.1", open, false, LIMIT).await, Reached::Open(_, false)));
        drop(listener);
        let Reached::Closed(why) = reach("127.0.0.1", open, false, LIMIT).await else { panic!("reached") };
        assert!(why.contains("refused"), "{why}");
    }

    #[tokio::test]
    async fn a_link_local_address_is_not_even_tried() {
        assert!(matches!(reach("169.254.169.254", 80, false, LIMIT).await, Reached::Forbidden(_)));
        assert!(matches!(reach("fe80::1", 80, false, LIMIT).await, Reached::Forbidden(_)));
    }

    #[tokio::test]
    async fn a_receiver_that_speaks_no_tls_is_told_from_a_closed_one() {
        use tokio::io::AsyncWriteExt;

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = port(&listener).await;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            }
        });
        assert!(matches!(reach("127.0.0.1", port, true, LIMIT).await, Reached::NoTls(_)));
    }

    #[test]
    fn however_far_it_got_the_fault_says_what_to_do() {
        let toml = "[[webhooks]]\nname = \"pager\"\nurl = \"https://h.example/\"\nsecret_env = \"S\"\n";
        let sources = Sources { file: Some(("f".into(), toml.into())), ..Sources::default() };
        let webhook = load(&Settings::default(), &sources).unwrap().config.webhooks.remove(0);
        let address = "169.254.169.254:443".parse().unwrap();
        for reached in [
            Reached::NoName("x".into()),
            Reached::Forbidden(address),
            Reached::Closed("x".into()),
            Reached::NoTls("x".into()),
            Reached::Late(Duration::from_secs(5)),
        ] {
            let found = verdict(&webhook, "h.example", 443, &reached);
            assert!(found.level == Level::Fault && !found.fix.is_empty() && found.about == "pager", "{found:?}");
        }
        assert_eq!(verdict(&webhook, "h", 443, &Reached::Open(address, true)).level, Level::Ok);
    }
}

//! Addresses that no webhook may call: where clouds hand out credentials.
//!
//! Link-local addresses and the instance metadata service are refused, written as such, as IPv4 inside IPv6, or found by DNS.
//! Loopback and private networks are allowed: receivers usually live there. The check runs on the addresses the connection
//! will use, after resolution, so a name that changes its answer gains nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// A receiver's address is one that must not be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("receiver address {0} is link-local or a metadata service")]
pub struct Forbidden(pub IpAddr);

/// Whether an address must not be called: 169.254/16, fe80::/10, fd00:ec2::/32 (metadata over IPv6), the unspecified address,
/// and any of these as IPv4-mapped, IPv4-compatible, NAT64 or 6to4 IPv6.
#[must_use]
pub fn is_forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.segments()[..2] == [0xfd00, 0x0ec2]
                || embedded_v4(v6).is_some_and(|v4| v4.is_link_local() || v4.is_unspecified())
        }
    }
}

fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let from = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] => Some(from(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(from(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(from(high, low)),
        [0x2002, high, low, ..] => Some(from(high, low)),
        _ => None,
    }
}

/// The system's resolver.
#[derive(Debug, Clone, Copy)]
pub(super) struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // Port 0 means: the URL's own port.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?.collect::<Vec<_>>();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// A resolver with forbidden addresses taken out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guarded<R>(pub(super) R);

impl<R: Resolve> Resolve for Guarded<R> {
    fn resolve(&self, name: Name) -> Resolving {
        let resolving = self.0.resolve(name);
        Box::pin(async move { Ok(Box::new(allowed(resolving.await?.collect())?.into_iter()) as Addrs) })
    }
}

/// The addresses that may be called.
///
/// # Errors
/// [`Forbidden`] when addresses were found and all of them are forbidden.
fn allowed(found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Forbidden> {
    let first = found.first().map(SocketAddr::ip);
    let kept = found.into_iter().filter(|address| !is_forbidden(address.ip())).collect::<Vec<_>>();
    match first {
        Some(address) if kept.is_empty() => Err(Forbidden(address)),
        _ => Ok(kept),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_and_link_local_addresses_are_forbidden_in_every_spelling() {
        for text in [
            "169.254.169.254",
            "169.254.170.2",
            "0.0.0.0",
            "::",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(is_forbidden(text.parse().unwrap()), "{text} is allowed");
        }
    }

    #[test]
    fn loopback_private_and_public_addresses_are_allowed() {
        for text in ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "198.51.100.7", "fd00::1", "2001:db8::1"] {
            assert!(!is_forbidden(text.parse().unwrap()), "{text} is forbidden");
        }
    }

    #[test]
    fn a_name_with_a_good_and_a_bad_address_keeps_the_good_one() {
        let good = "10.0.0.1:0".parse::<SocketAddr>().unwrap();
        let bad = "169.254.169.254:0".parse::<SocketAddr>().unwrap();
        assert_eq!(allowed(vec![bad, good]), Ok(vec![good]));
        assert_eq!(allowed(vec![bad]), Err(Forbidden(bad.ip())));
        assert_eq!(allowed(vec![]), Ok(vec![]));
    }
}

//! Checked conversions of single values, shared by the decoders.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::error::{ValueError, excerpt};
use crate::flow::{MAX_COUNT, PROTOCOL_TCP};

/// An address in text, un-mapped from `::ffff:`.
pub(super) fn address_text(field: &'static str, text: &str) -> Result<IpAddr, ValueError> {
    let parsed: Result<IpAddr, _> = text.parse();
    parsed.map(|ip| ip.to_canonical()).map_err(|_| ValueError::Address { field, value: excerpt(text) })
}

/// An address of 4 or 16 bytes, un-mapped from `::ffff:`.
pub(super) fn address_bytes(field: &'static str, bytes: &[u8]) -> Result<IpAddr, ValueError> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::V4(Ipv4Addr::from(v4)));
    }
    if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
        return Ok(IpAddr::V6(Ipv6Addr::from(v6)).to_canonical());
    }
    Err(ValueError::Address { field, value: format!("{} bytes", bytes.len()) })
}

/// A port.
pub(super) fn port(field: &'static str, value: i64) -> Result<u16, ValueError> {
    u16::try_from(value).map_err(|_| ValueError::Port { field, value })
}

/// A protocol by name (any case) or number.
pub(super) fn protocol_text(text: &str) -> Result<u8, ValueError> {
    let named = [("tcp", PROTOCOL_TCP), ("udp", 17), ("icmp", 1), ("icmpv6", 58), ("sctp", 132)];
    if let Some((_, number)) = named.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        return Ok(*number);
    }
    text.parse().map_err(|_| ValueError::Protocol(excerpt(text)))
}

/// A count that travelled as a double: finite, not negative, whole, at most 2^53.
pub(super) fn count_from_double(field: &str, value: f64) -> Result<u64, ValueError> {
    if value.is_finite() && value >= 0.0 && value.fract() == 0.0 && value <= MAX_COUNT as f64 {
        return Ok(value as u64);
    }
    Err(ValueError::NotACount { field: excerpt(field), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_doubles_up_to_2_to_the_53_are_counts() {
        assert_eq!(count_from_double("x", 9_007_199_254_740_992.0), Ok(MAX_COUNT));
        assert_eq!(count_from_double("x", -0.0), Ok(0));
        for bad in [f64::NAN, f64::INFINITY, -1.0, 0.5, 9_007_199_254_740_994.0, f64::MAX] {
            assert!(count_from_double("x", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mapped_addresses_lose_their_prefix_in_text_and_bytes() {
        let v4: IpAddr = Ipv4Addr::new(10, 77, 1, 10).into();
        assert_eq!(address_text("src", "::ffff:10.77.1.10"), Ok(v4));
        assert_eq!(address_bytes("src", &Ipv4Addr::new(10, 77, 1, 10).to_ipv6_mapped().octets()), Ok(v4));
        assert_eq!(address_text("src", "fd77:1::11").map(|ip| ip.is_ipv6()), Ok(true));
        assert!(address_text("src", "10.77.1").is_err());
        assert!(address_bytes("src", &[1, 2, 3]).is_err());
    }

    #[test]
    fn protocols_are_read_by_name_and_number() {
        assert_eq!(protocol_text("TCP"), Ok(6));
        assert_eq!(protocol_text("udp"), Ok(17));
        assert_eq!(protocol_text("47"), Ok(47));
        assert!(protocol_text("256").is_err());
        assert!(protocol_text("").is_err());
    }
}

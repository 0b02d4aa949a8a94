//! Whom a request is from when its connection is a proxy's: what `X-Forwarded-For` says, as far as it was written by proxies
//! that are trusted. It decides whose budget of failed authentications is charged, and what log and records say; it never goes
//! upstream.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};

use crate::config::TrustedProxies;

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The most addresses that are looked at. There are as many as proxies, unless somebody plays.
const ADDRESSES_MAX: usize = 32;

/// The sender's address, where `peer` is a trusted proxy that tells it: the last one that is no trusted proxy itself, or the
/// first if all are. `None` where the connection's own address counts: nothing is told, or nothing that can be believed.
pub(super) fn client_address(
    trusted: &TrustedProxies,
    peer: IpAddr,
    headers: &HeaderMap,
) -> Option<IpAddr> {
    if trusted.is_empty() || !trusted.contains(peer) {
        return None;
    }
    let mut first = None;
    let lines = headers.get_all(&FORWARDED_FOR).iter().rev();
    let mut addresses = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    for address in addresses.by_ref().take(ADDRESSES_MAX) {
        let address = parse(address.trim_ascii())?;
        if !trusted.contains(address) {
            return Some(address);
        }
        first = Some(address);
    }
    if addresses.next().is_some() {
        return None;
    }
    first
}

/// An address, with a port or without.
fn parse(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let bare = || {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse().ok().map(IpAddr::V6)
    };
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    let address = text.parse().ok().or_else(bare).or_else(with_port)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::config::Config;

    fn told(lines: &[&str]) -> Option<String> {
        let config = include_str!("../../../../config/edge/edge.toml");
        let trusted = "trusted = ['10.0.0.0/8', '2001:db8::/32']";
        let config = config.replace("trusted = []", trusted);
        let trusted = Config::parse("edge.toml", &config).unwrap().trusted;
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                &FORWARDED_FOR,
                HeaderValue::from_bytes(line.as_bytes()).unwrap(),
            );
        }
        let stranger: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(client_address(&trusted, stranger, &headers), None);
        let proxy = "10.0.0.1".parse().unwrap();
        client_address(&trusted, proxy, &headers).map(|address| address.to_string())
    }

    #[test]
    fn the_last_address_that_is_no_proxy_is_the_clients() {
        for (lines, expected) in [
            (&["203.0.113.7"][..], Some("203.0.113.7")),
            (&["198.51.100.1, 203.0.113.7"], Some("203.0.113.7")),
            (
                &["198.51.100.1, 203.0.113.7, 10.1.1.1 ,10.2.2.2"],
                Some("203.0.113.7"),
            ),
            (
                &["198.51.100.1", "203.0.113.7", "10.1.1.1"],
                Some("203.0.113.7"),
            ),
            (&["anything, at all, 203.0.113.7"], Some("203.0.113.7")),
            (&["10.3.3.3, 10.1.1.1"], Some("10.3.3.3")),
            (&["203.0.113.7:4711"], Some("203.0.113.7")),
            (&["[2001:db9::7]:4711, 2001:db8::1"], Some("2001:db9::7")),
            (&["[2001:db9::7]"], Some("2001:db9::7")),
            (&["::ffff:203.0.113.7"], Some("203.0.113.7")),
            (&[], None),
        ] {
            assert_eq!(told(lines).as_deref(), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_is_malformed_is_not_believed() {
        for line in [
            "",
            "unknown",
            "203.0.113.7,",
            "203.0.113.7, ,10.1.1.1",
            "203.0.113.300",
            "203.0.113.7 10.1.1.1",
            "203.0.113.7, caf\u{e9}",
            "[203.0.113.7]",
            "203.0.113.7:99999",
        ] {
            assert_eq!(told(&[line]), None, "{line:?}");
        }
    }

    #[test]
    fn only_so_many_addresses_are_looked_at() {
        let line = |proxies: usize| format!("203.0.113.7{}", ", 10.1.1.1".repeat(proxies));
        assert_eq!(
            told(&[&line(ADDRESSES_MAX - 1)]).as_deref(),
            Some("203.0.113.7")
        );
        assert_eq!(told(&[&line(ADDRESSES_MAX)]), None);
    }
}

//! `[proxies]`: whose word about a sender's address is taken.

use std::net::IpAddr;

use ops::config::Section;

/// The networks of proxies that are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TrustedProxies(Vec<Network>);

/// Addresses with the same first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    first: IpAddr,
    bits: u32,
}

pub(super) fn proxies(section: &Section<'_>) -> TrustedProxies {
    let texts: Vec<String> = section.or("trusted", Vec::new());
    let mut networks = Vec::with_capacity(texts.len());
    for text in texts {
        match Network::parse(&text) {
            Ok(network) => networks.push(network),
            Err(problem) => section.problem("trusted", problem),
        }
    }
    section.finish();
    TrustedProxies(networks)
}

impl TrustedProxies {
    /// Whether an address is that of a proxy.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Network {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not a network: write ADDRESS/BITS such as \"10.0.0.0/8\", or an address"
            )
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(bits_max), str::parse).map_err(|_| wrong())?;
        if bits > bits_max {
            return Err(wrong());
        }
        let first = prefix(address, bits);
        if first != address {
            return Err(format!(
                "{text:?} has bits after the first {bits}: write \"{first}/{bits}\""
            ));
        }
        Ok(Self { first, bits })
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4() && prefix(address, self.bits) == self.first
    }
}

/// The address with all bits but the first ones cleared.
fn prefix(address: IpAddr, bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(networks: &[&str]) -> TrustedProxies {
        let networks = networks.iter().map(|text| Network::parse(text).unwrap());
        TrustedProxies(networks.collect())
    }

    #[test]
    fn an_address_is_trusted_when_a_network_has_it() {
        let trusted = trusted(&["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::1/128"]);
        for inside in [
            "10.255.255.255",
            "192.0.2.1",
            "::ffff:10.1.2.3",
            "2001:db8:ffff::1",
            "::1",
        ] {
            assert!(trusted.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "11.0.0.0",
            "9.255.255.255",
            "192.0.2.2",
            "2001:db9::",
            "::2",
        ] {
            assert!(!trusted.contains(outside.parse().unwrap()), "{outside}");
        }
        let everyone = self::trusted(&["0.0.0.0/0"]);
        assert!(everyone.contains("203.0.113.7".parse().unwrap()));
        assert!(!everyone.contains("2001:db8::1".parse().unwrap()));
        assert!(!TrustedProxies::default().contains("::1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_told_with_what_would_be() {
        for (text, fix) in [
            ("10.0.0.0/33", "such as \"10.0.0.0/8\""),
            ("::/129", "such as"),
            ("10.0.0/8", "such as"),
            ("10.0.0.0/", "such as"),
            ("10.0.0.0/-1", "such as"),
            ("example.com", "such as"),
            ("10.1.2.3/8", "write \"10.0.0.0/8\""),
            ("2001:db8::1/32", "write \"2001:db8::/32\""),
        ] {
            let told = Network::parse(text).unwrap_err();
            assert!(told.contains(fix), "{told}");
        }
    }
}

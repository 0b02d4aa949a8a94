//! The URL of an upstream. Decides which URLs can be one; connecting is for `upstream::connect`.

use std::net::{IpAddr, SocketAddr};

use http::Uri;

/// Scheme, host, port and the path before every path of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UpstreamUrl {
    pub(crate) https: bool,
    /// As in the URL: an IPv6 address keeps its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Without a slash at its end; mostly empty.
    pub(crate) base: String,
}

/// Why a text is not the URL of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidUpstreamUrl {
    #[error("{0:?} is not a URL: write http://HOST:PORT or https://HOST:PORT")]
    NotAUrl(String),
    #[error("a user name or password in the URL is not used: remove it")]
    Credentials,
    #[error("a query in the URL is not used: remove it")]
    Query,
}

impl UpstreamUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidUpstreamUrl> {
        let not_a_url = || InvalidUpstreamUrl::NotAUrl(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| not_a_url())?;
        let https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(not_a_url()),
        };
        let authority = uri.authority().ok_or_else(not_a_url)?;
        if authority.as_str().contains('@') {
            return Err(InvalidUpstreamUrl::Credentials);
        }
        if uri.query().is_some() {
            return Err(InvalidUpstreamUrl::Query);
        }
        Ok(Self {
            https,
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(if https { 443 } else { 80 }),
            base: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// The address, if the host is one.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.host.trim_matches(['[', ']']).parse().ok()?;
        Some(SocketAddr::new(ip, self.port))
    }

    /// `host:port`, for the `Host` header.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_scheme_and_a_host() {
        let url = UpstreamUrl::parse("https://mimir.example/base/").unwrap();
        assert_eq!(
            (url.https, url.port, url.base.as_str()),
            (true, 443, "/base")
        );
        assert_eq!(
            UpstreamUrl::parse("http://[::1]:8080").unwrap().authority(),
            "[::1]:8080"
        );
        for bad in ["mimir:8080", "/path", "ftp://a", "", "http://"] {
            assert!(
                matches!(UpstreamUrl::parse(bad), Err(InvalidUpstreamUrl::NotAUrl(_))),
                "{bad}"
            );
        }
        assert_eq!(
            UpstreamUrl::parse("http://u:p@a"),
            Err(InvalidUpstreamUrl::Credentials)
        );
        assert_eq!(
            UpstreamUrl::parse("http://a/?x"),
            Err(InvalidUpstreamUrl::Query)
        );
    }
}

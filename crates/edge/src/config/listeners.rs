//! `[listeners]`: the ports for senders.

use std::net::SocketAddr;
use std::sync::Arc;

use ops::config::Section;

use super::tls::{self, TlsSettings};
use super::{AcmeSettings, TrustedProxies};

/// One port for senders.
#[derive(Debug, Clone)]
pub(crate) struct ListenerSettings {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) tenant_header: TenantHeader,
    /// Whether every connection begins with a header of a trusted proxy.
    pub(crate) proxy_protocol: bool,
    pub(crate) trusted: Arc<TrustedProxies>,
    pub(crate) tls: Option<TlsSettings>,
}

/// What is done with a tenant header that is not the key's tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TenantHeader {
    /// The request is refused.
    Strict,
    /// The header is overwritten and counted.
    Ignore,
}

pub(super) fn listeners(
    section: &Section<'_>,
    trusted: &Arc<TrustedProxies>,
    acme: Option<&AcmeSettings>,
) -> Vec<ListenerSettings> {
    let names = section.names();
    if names.is_empty() {
        section.problem(
            "otlp_grpc",
            "no listener is set: write [listeners.otlp_grpc] with address = \"0.0.0.0:4317\"",
        );
    }
    let mut listeners = Vec::with_capacity(names.len());
    for name in names {
        let listener = section.section(&name);
        let address =
            listener.required("address", "write where to listen, such as \"0.0.0.0:4317\"");
        let headers = [
            ("strict", TenantHeader::Strict),
            ("ignore", TenantHeader::Ignore),
        ];
        let tenant_header = listener.choice("tenant_header", &headers, TenantHeader::Strict);
        let same = |other: &&ListenerSettings| Some(other.address) == address;
        if let Some(other) = listeners.iter().find(same)
            && other.address.port() != 0
        {
            let already = format!("[listeners.{}] has this address already", other.name);
            listener.problem("address", already);
        }
        let proxy_protocol = [("off", false), ("required", true)];
        let proxy_protocol = listener.choice("proxy_protocol", &proxy_protocol, false);
        if proxy_protocol && trusted.is_empty() {
            let fix = "needs proxies.trusted, the addresses of the proxies that may connect";
            listener.problem("proxy_protocol", fix);
        }
        let tls = tls::tls(&listener, acme);
        listener.finish();
        if let Some(address) = address {
            listeners.push(ListenerSettings {
                name,
                address,
                tenant_header,
                proxy_protocol,
                trusted: Arc::clone(trusted),
                tls,
            });
        }
    }
    listeners
}

//! Which certificate is shown to whom: the one with the name that the client asks for, else the one with a `*` in place of
//! its first label, else the first. Of several with the same name, the first whose key the client can check.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::files::Certificate;

/// Certificates by the names they are for.
#[derive(Default)]
pub(crate) struct ByName {
    /// In the order of preference.
    pub(crate) all: Vec<Arc<Certificate>>,
    exact: HashMap<String, Vec<Arc<Certificate>>>,
    /// By what follows the `*.`.
    wildcard: HashMap<String, Vec<Arc<Certificate>>>,
}

impl ByName {
    pub(crate) fn new(all: Vec<Arc<Certificate>>) -> Self {
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for certificate in &all {
            for name in &certificate.names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut wildcard, parent),
                    None => (&mut exact, name.as_str()),
                };
                let of_name: &mut Vec<_> = names.entry(name.to_owned()).or_default();
                of_name.push(Arc::clone(certificate));
            }
        }
        Self {
            all,
            exact,
            wildcard,
        }
    }

    /// The certificates for a name, best first; for no name, or one that nobody has, those of the first certificate's names.
    fn of(&self, name: Option<&str>) -> &[Arc<Certificate>] {
        let name = name.map(str::to_ascii_lowercase);
        let found = name.as_deref().and_then(|name| {
            let of_parent = || self.wildcard.get(name.split_once('.')?.1);
            self.exact.get(name).or_else(of_parent)
        });
        let of_first = || {
            let first = self.all.first()?.names.first()?;
            let of_parent = || self.wildcard.get(first.strip_prefix("*.")?);
            self.exact.get(first).or_else(of_parent)
        };
        found.or_else(of_first).unwrap_or(&self.all)
    }

    pub(crate) fn choose(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<&Arc<Certificate>> {
        let of_name = self.of(name);
        let fits =
            |certificate: &&Arc<Certificate>| certificate.key.key.choose_scheme(schemes).is_some();
        of_name.iter().find(fits).or_else(|| of_name.first())
    }

    /// Those that some client is shown. Others are there for nothing: some with the same names go before them.
    pub(crate) fn shown(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.all.iter().enumerate().filter_map(|(n, certificate)| {
            let kind = certificate.key.key.algorithm();
            let is_first_of = |name: &String| {
                let of_name = self.of(Some(&name.replacen('*', "x", 1)));
                let first = of_name
                    .iter()
                    .find(|other| other.key.key.algorithm() == kind);
                first.is_some_and(|first| Arc::ptr_eq(first, certificate))
            };
            let is_shown = n == 0 || certificate.names.iter().any(is_first_of);
            is_shown.then_some(certificate)
        })
    }
}

/// What connections ask, while certificates come and go.
pub(super) struct Resolver(pub(super) Arc<ArcSwap<ByName>>);

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let by_name = self.0.load();
        let chosen = by_name.choose(hello.server_name(), hello.signature_schemes());
        chosen.map(|certificate| Arc::clone(&certificate.key))
    }
}

//! AUTHENTICATE: from credential to caller. The tenant comes from the key alone; a tenant header may only agree with it.
//! Works from memory; a key not seen before is fetched once, however many requests bring it.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use model::{ApiKey, KeyDigest, TenantId, Verdict};
use subtle::ConstantTimeEq as _;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::account::Whose;
use super::route::Routed;
use crate::config::TenantHeader;
use crate::keys::{Held, Lookup};
use crate::listen::Peer;
use crate::refusal::Refusal;
use crate::worker::{Settings, Worker};

/// `X-Scope-OrgID`, by which Mimir, Loki and Tempo know a tenant.
pub(crate) static TENANT: HeaderName = HeaderName::from_static("x-scope-orgid");
static API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The longest user name we decode from a Basic credential, with its key and in Base64, in bytes.
const BASIC_MAX: usize = 512;

/// Who sent a request.
pub(crate) struct Caller {
    pub(crate) key: Arc<Held>,
}

/// What the headers say about who is calling.
pub(crate) struct Credential {
    pub(crate) key: ApiKey,
    /// The user name of a Basic credential.
    pub(crate) user: Option<String>,
}

/// Finds the caller of a request that came `at` this time, and checks that it may send this signal. Whose key it is, is noted
/// in `whose` even where the request is refused.
pub(crate) async fn authenticate(
    worker: &Worker,
    settings: &Settings,
    peer: &Peer,
    routed: &Routed,
    headers: &HeaderMap,
    at: Instant,
    whose: &mut Whose,
) -> Result<Caller, Refusal> {
    let address = peer.address.ip();
    let credential = credential(headers).inspect_err(|refusal| {
        // Who sends no key guesses none.
        if *refusal != Refusal::NoCredential {
            worker.failures.charge(address);
        }
    })?;
    whose.key_id = Some(credential.key.id());
    let digest = credential.key.digest();
    let held = match worker.keys.held(&digest).await {
        Some(held) => held,
        None => look_up(worker, address, digest).await?,
    };
    whose.held = Some(Arc::clone(&held));
    let grant = &held.grant;
    let now = if grant.depends_on_time() {
        worker.clock.now()
    } else {
        OffsetDateTime::UNIX_EPOCH
    };
    let dead = || {
        worker.failures.charge(address);
        worker.failures.refused(&digest)
    };
    match grant.verdict(now, settings.suspend_grace) {
        Verdict::Valid => {
            peer.seat.shows_key();
            let user_agent = headers.get(header::USER_AGENT).map(HeaderValue::as_bytes);
            worker.uses.note(grant.key_id, user_agent, address, at);
        }
        Verdict::Revoked => {
            return Err(Refusal::RevokedKey {
                wait_seconds: dead(),
            });
        }
        Verdict::Expired => {
            return Err(Refusal::ExpiredKey {
                wait_seconds: dead(),
            });
        }
        Verdict::Suspended => return Err(Refusal::TenantSuspended { for_good: false }),
        Verdict::SuspendedForGood => return Err(Refusal::TenantSuspended { for_good: true }),
    }
    check_tenant(
        worker,
        peer,
        &grant.tenant,
        headers,
        credential.user.as_deref(),
    )
    .await?;
    let needed = routed.signal.write_scope();
    if !grant.allows(needed) {
        return Err(Refusal::Scope { needed });
    }
    Ok(Caller { key: held })
}

/// Asks the database for a key that is not in memory, unless it is known not to exist, or `address` has brought too many
/// keys that do not.
async fn look_up(
    worker: &Worker,
    address: IpAddr,
    digest: KeyDigest,
) -> Result<Arc<Held>, Refusal> {
    let (keys, failures) = (&worker.keys, &worker.failures);
    let lookup = match keys.absent(&digest) {
        Some(Lookup::Unknown) => {
            failures.charge(address);
            Lookup::Unknown
        }
        Some(known) => known,
        None => {
            let asking = failures.look_up(address);
            let asking = asking.map_err(|wait_seconds| Refusal::AuthFailures { wait_seconds })?;
            let lookup = keys.fetch(digest).await;
            if !matches!(lookup, Lookup::Unknown) {
                asking.pass();
            }
            lookup
        }
    };
    match lookup {
        Lookup::Held(held) => Ok(held),
        Lookup::Unknown => Err(Refusal::UnknownKey {
            wait_seconds: failures.refused(&digest),
        }),
        Lookup::Unavailable => Err(Refusal::KeysUnavailable),
    }
}

/// Reads the credential, in whatever of the three forms it came. The same key in two of them is one credential.
pub(crate) fn credential(headers: &HeaderMap) -> Result<Credential, Refusal> {
    let mut found: Option<Credential> = None;
    let authorizations = headers
        .get_all(header::AUTHORIZATION)
        .iter()
        .map(authorization);
    let api_keys = headers.get_all(&API_KEY).iter().map(|value| {
        Ok(Credential {
            key: parse_key(value.as_bytes())?,
            user: None,
        })
    });
    for credential in authorizations.chain(api_keys) {
        let credential = credential?;
        found = match found {
            None => Some(credential),
            Some(first) if same_key(&first.key, &credential.key) => Some(Credential {
                key: first.key,
                user: first.user.or(credential.user),
            }),
            Some(_) => return Err(Refusal::ConflictingCredentials),
        };
    }
    found.ok_or(Refusal::NoCredential)
}

fn same_key(a: &ApiKey, b: &ApiKey) -> bool {
    a.reveal().as_bytes().ct_eq(b.reveal().as_bytes()).into()
}

/// Reads `Bearer KEY` or `Basic base64(USER:KEY)`; scheme names in any case (RFC 9110 section 11.1).
fn authorization(value: &HeaderValue) -> Result<Credential, Refusal> {
    let value = value.as_bytes().trim_ascii();
    let space = value
        .iter()
        .position(|b| *b == b' ')
        .ok_or(Refusal::MalformedCredential)?;
    let (scheme, rest) = value.split_at(space);
    let rest = rest.trim_ascii_start();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        let key = parse_key(rest)?;
        return Ok(Credential { key, user: None });
    }
    if !scheme.eq_ignore_ascii_case(b"basic") || rest.len() > BASIC_MAX {
        return Err(Refusal::MalformedCredential);
    }
    let decoded = BASE64
        .decode(rest)
        .map_err(|_| Refusal::MalformedCredential)?;
    // A user name has no colon (RFC 7617 section 2), so the first one ends it.
    let colon = decoded
        .iter()
        .position(|b| *b == b':')
        .ok_or(Refusal::MalformedCredential)?;
    let (user, password) = decoded.split_at(colon);
    let key = parse_key(password.get(1..).unwrap_or_default())?;
    let user = str::from_utf8(user).map_err(|_| Refusal::MalformedCredential)?;
    Ok(Credential {
        key,
        user: (!user.is_empty()).then(|| user.to_owned()),
    })
}

/// Padding may be left out: some clients do.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn parse_key(text: &[u8]) -> Result<ApiKey, Refusal> {
    ApiKey::parse(text.trim_ascii()).map_err(|_| Refusal::MalformedCredential)
}

/// Checks that whatever else names a tenant names the key's: the tenant header, and the user name of a Basic credential
/// where that is another tenant's id.
async fn check_tenant(
    worker: &Worker,
    peer: &Peer,
    tenant: &TenantId,
    headers: &HeaderMap,
    user: Option<&str>,
) -> Result<(), Refusal> {
    let agrees = |value: &HeaderValue| value.as_bytes().trim_ascii() == tenant.as_str().as_bytes();
    if !headers.get_all(&TENANT).iter().all(agrees) {
        match peer.listener.settings().tenant_header {
            TenantHeader::Strict => return Err(Refusal::TenantMismatch),
            TenantHeader::Ignore => worker.metrics.tenant_headers_ignored.increment(1),
        }
    }
    let Some(user) = user.filter(|user| *user != tenant.as_str()) else {
        return Ok(());
    };
    let Ok(other) = TenantId::parse(user) else {
        return Ok(());
    };
    if worker.keys.tenant_exists(&other).await {
        return Err(Refusal::TenantMismatch);
    }
    Ok(())
}

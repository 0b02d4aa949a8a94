//! One certificate: the name is proven by what a connection to it is shown, then the certificate is fetched.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, NewOrder, Order, OrderStatus,
    RetryPolicy,
};

use crate::listen::tls::{ChallengeError, Challenges};

/// How an order is looked after until it is over.
const PATIENCE: RetryPolicy = RetryPolicy::new().timeout(Duration::from_mins(2));

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    /// Also what could not be sent or understood.
    #[error("{}", chain(.0))]
    Acme(#[from] instant_acme::Error),
    #[error("the authority does not prove names by TLS-ALPN-01")]
    NoChallenge,
    #[error("the authority could not prove the name: {0}")]
    NotProven(String),
    #[error("the challenge cannot be answered: {0}")]
    Challenge(#[from] ChallengeError),
}

impl OrderError {
    /// Whether the authority said no, so that asking again soon would be held against us.
    pub(super) const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Acme(instant_acme::Error::Api(_)) | Self::NoChallenge | Self::NotProven(_)
        )
    }
}

fn chain(error: &instant_acme::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// A certificate with its key, both in PEM.
pub(super) struct Obtained {
    pub(super) chain: String,
    pub(super) key: String,
}

pub(super) async fn obtain(
    account: &Account,
    name: &str,
    challenges: &Arc<Challenges>,
) -> Result<Obtained, OrderError> {
    let names = [Identifier::Dns(name.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    // Shown until the authority has looked.
    let mut answering = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
        let mut challenge = challenge.ok_or(OrderError::NoChallenge)?;
        let digest = challenge.key_authorization().digest();
        answering.push(challenges.answer(name, digest.as_ref())?);
        challenge.set_ready().await?;
    }
    if order.poll_ready(&PATIENCE).await? != OrderStatus::Ready {
        return Err(OrderError::NotProven(why(&mut order).await));
    }
    drop(answering);
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&PATIENCE).await?;
    Ok(Obtained { chain, key })
}

/// What the authority says of the challenges of an order that failed.
async fn why(order: &mut Order) -> String {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        // What was read of it is from before.
        let Ok(state) = authorization.refresh().await else {
            continue;
        };
        let problems = state.challenges.iter().filter_map(|it| it.error.as_ref());
        reasons.extend(problems.map(ToString::to_string));
    }
    if reasons.is_empty() {
        "it does not say why".to_owned()
    } else {
        reasons.join("; ")
    }
}

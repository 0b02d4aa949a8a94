//! The form of an API key, its public id and its digest. Decides whether a text is a well-formed key; whether anybody
//! was given that key is for the store to say.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// `0-9A-Za-z`, in that order, is also the order of digit values in the checksum.
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const PREFIX: &str = "obs_";
const ID_LEN: usize = 12;
const SECRET_LEN: usize = 36;
const CHECKSUM_LEN: usize = 6;
const CHECKED_LEN: usize = PREFIX.len() + ID_LEN + SECRET_LEN;

/// A well-formed API key: `obs_`, then 54 characters of base62, of which 12 are the public key id, 36 the secret (214
/// bits) and 6 the CRC-32 (IEEE) of everything before them, most significant digit first.
///
/// The checksum lets a typing error be refused without any look-up, and lets secret scanners tell a key from noise.
/// The text itself comes out by [`ApiKey::reveal`] only.
#[derive(Clone)]
pub struct ApiKey(KeyText);

/// The fixed-size text of a key.
pub type KeyText = [u8; ApiKey::LEN];

/// A text that is not a well-formed key: wrong length, prefix, alphabet or checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key: expected obs_ and 54 letters and digits with a matching checksum")]
pub struct MalformedKey;

/// A text that is not a key id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key id: expected 12 letters and digits")]
pub struct MalformedKeyId;

impl ApiKey {
    /// The length of a key's text, in bytes.
    pub const LEN: usize = CHECKED_LEN + CHECKSUM_LEN;

    /// Makes a new key out of the operating system's random source.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    #[expect(
        clippy::indexing_slicing,
        reason = "constant bounds; digits are taken modulo 62"
    )]
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut text = [0_u8; Self::LEN];
        let mut filled = PREFIX.len();
        text[..filled].copy_from_slice(PREFIX.as_bytes());
        let mut random = [0_u8; 64];
        while filled < CHECKED_LEN {
            getrandom::fill(&mut random)?;
            // 248 is the largest multiple of 62 in a byte: what lies above is thrown away, or some digits would be
            // likelier than others.
            for byte in random.into_iter().filter(|b| *b < 248) {
                if filled == CHECKED_LEN {
                    break;
                }
                text[filled] = BASE62[usize::from(byte % 62)];
                filled += 1;
            }
        }
        let sum = checksum(&text[..CHECKED_LEN]);
        text[CHECKED_LEN..].copy_from_slice(&sum);
        Ok(Self(text))
    }

    /// Checks form and checksum.
    ///
    /// # Errors
    /// [`MalformedKey`], whatever is wrong: a caller who guesses learns nothing from the difference.
    pub fn parse(text: &[u8]) -> Result<Self, MalformedKey> {
        let text: KeyText = text.try_into().map_err(|_| MalformedKey)?;
        let (checked, sum) = text.split_at(CHECKED_LEN);
        let body = checked
            .strip_prefix(PREFIX.as_bytes())
            .ok_or(MalformedKey)?;
        if !body.iter().all(u8::is_ascii_alphanumeric) || checksum(checked) != sum {
            return Err(MalformedKey);
        }
        Ok(Self(text))
    }

    /// The public part: what logs, lists and errors show.
    pub fn id(&self) -> KeyId {
        let (_, after_prefix) = self.0.split_at(PREFIX.len());
        KeyId(after_prefix.first_chunk().copied().unwrap_or_default())
    }

    /// SHA-256 of the whole text: what the database holds and what look-ups go by.
    ///
    /// A fast hash is right here: the secret is random and long, so there is nothing a slow hash would protect.
    pub fn digest(&self) -> KeyDigest {
        KeyDigest(Sha256::digest(self.0).into())
    }

    /// The key as text, for the one answer that shows it.
    pub fn reveal(&self) -> &str {
        // Every constructor checks for ASCII.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[expect(clippy::indexing_slicing, reason = "digits are taken modulo 62")]
fn checksum(checked: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut rest = crc32fast::hash(checked) as usize;
    let mut digits = [0; CHECKSUM_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[rest % 62];
        rest /= 62;
    }
    digits
}

impl FromStr for ApiKey {
    type Err = MalformedKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text.as_bytes())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}…)", self.id())
    }
}

/// The public id of a key: 12 characters of base62.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; ID_LEN]);

impl KeyId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for KeyId {
    type Err = MalformedKeyId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id: [u8; ID_LEN] = text.as_bytes().try_into().map_err(|_| MalformedKeyId)?;
        if id.iter().all(u8::is_ascii_alphanumeric) {
            Ok(Self(id))
        } else {
            Err(MalformedKeyId)
        }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// SHA-256 of a key's whole text. Equality takes the same time wherever the difference is.
#[derive(Clone, Copy, Eq)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// The 32 bytes as the database stores them.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Takes the 32 bytes of a database row; `None` for any other length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl PartialEq for KeyDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl std::hash::Hash for KeyDigest {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // The digest is uniform already; eight of its bytes spread as well as all of them.
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        state.write_u64(u64::from_le_bytes(first));
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_generated_key_parses_and_keeps_its_id() {
        for _ in 0..1000 {
            let key = ApiKey::generate().unwrap();
            let parsed: ApiKey = key.reveal().parse().unwrap();
            assert_eq!(parsed.reveal(), key.reveal());
            assert_eq!(parsed.digest(), key.digest());
            assert_eq!(&key.reveal()[4..16], key.id().as_str());
            assert_eq!(key.reveal().len(), 58);
        }
    }

    #[test]
    fn the_format_is_fixed() {
        let checked = "obs_0123456789ABabcdefghijklmnopqrstuvwxyz0123456789";
        let mut rest = u64::from(crc32fast::hash(checked.as_bytes()));
        let mut digits = String::new();
        for _ in 0..6 {
            digits.insert(0, char::from(BASE62[usize::try_from(rest % 62).unwrap()]));
            rest /= 62;
        }
        assert_eq!(
            digits, "3UmuqX",
            "the checksum of a published key must never change"
        );
        let key: ApiKey = format!("{checked}{digits}").parse().unwrap();
        assert_eq!(key.id().as_str(), "0123456789AB");
    }

    #[test]
    fn debug_shows_the_public_id_only() {
        let key = ApiKey::generate().unwrap();
        let shown = format!("{key:?} {:?}", key.digest());
        assert!(shown.contains(key.id().as_str()));
        assert!(!shown.contains(&key.reveal()[16..]));
    }

    proptest! {
        #[test]
        fn one_changed_character_is_always_noticed(at in 0..ApiKey::LEN, to in any::<u8>()) {
            let key = ApiKey::generate().unwrap();
            let mut text = *key.reveal().as_bytes().first_chunk::<{ ApiKey::LEN }>().unwrap();
            prop_assume!(text[at] != to);
            text[at] = to;
            prop_assert_eq!(ApiKey::parse(&text).err(), Some(MalformedKey));
        }

        #[test]
        fn no_text_makes_parsing_panic(text in any::<Vec<u8>>()) {
            let _ = ApiKey::parse(&text);
        }
    }
}

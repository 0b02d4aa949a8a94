//! What the arguments that several commands take mean, and what is said about one that means nothing. The API decides
//! about everything that needs more than the text itself.

use std::str::FromStr;

use clap::Args;
use model::{ApiKey, KeyId, MalformedKeyId, ScopeSet};
use serde_json::{Map, Value, json};
use store::OperatorScopes;
use time::Duration;
use ureq::http::Uri;

/// The longest life that can be asked for: what lies beyond is one without an end.
const LIFE_MAX: Duration = Duration::days(100 * 365);

/// How a new key shall be; shared by every command that makes one.
#[derive(Debug, Args)]
pub(super) struct KeyWish {
    /// What people call the key
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// What the key may do, separated by commas: metrics:write, logs:write, traces:write, profiles:write, metrics:read,
    /// logs:read, traces:read [default: all that write; in a rotation, what the old key may]
    #[arg(long)]
    scopes: Option<ScopeSet>,
    /// How long the key works: a whole number and s, m, h, d or w, such as 90d
    #[arg(long, value_parser = seconds, value_name = "TIME", conflicts_with = "expires_at")]
    expires_in: Option<u64>,
    /// When the key stops working, such as 2030-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
}

impl KeyWish {
    /// What the API reads; what was not given is null, which it takes as absent.
    pub(super) fn body(&self) -> Map<String, Value> {
        let scopes = self.scopes.map(|scopes| {
            let names = scopes.iter().map(|scope| Value::from(scope.as_str()));
            names.collect::<Value>()
        });
        let fields = [
            ("name", json!(self.name)),
            ("scopes", json!(scopes)),
            ("expires_in_seconds", json!(self.expires_in)),
            ("expires_at", json!(self.expires_at)),
        ];
        let named = fields.map(|(name, value)| (name.to_owned(), value));
        named.into_iter().collect()
    }
}

/// The arguments that the API knows by another name, so that its problems name what was typed.
const ARGUMENTS: &[(&str, &str)] = &[
    ("body_max_bytes", "--limit body_max_bytes"),
    ("expires_at", "--expires-at"),
    ("expires_in_seconds", "--expires-in"),
    ("grace_seconds", "--grace"),
    ("limits", "--limit"),
    ("limits.body_max_bytes", "--limit body_max_bytes"),
    ("scopes", "--scopes"),
];

/// What somebody typed who gets told about the API's `field`.
pub(super) fn argument(field: &str) -> &str {
    let known = ARGUMENTS.iter().find(|(name, _)| *name == field);
    known.map_or(field, |(_, argument)| argument)
}

/// A key id, also out of a whole key, or of the rest of one: that is what somebody has who found it where it should not
/// be, and its secret shall not be repeated in an error.
pub(super) fn key_id(text: &str) -> Result<KeyId, MalformedKeyId> {
    match text.strip_prefix("obs_") {
        Some(rest) => rest.get(..12).unwrap_or_default().parse(),
        None => text.parse(),
    }
}

/// An operator's id, also out of a whole token.
pub(super) fn operator_id(text: &str) -> Result<String, String> {
    let id = match text.strip_prefix("okop_") {
        Some(rest) => rest.get(..12).unwrap_or_default(),
        None => text,
    };
    if (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        Ok(id.to_owned())
    } else {
        Err("not an operator's id: okmon operator list shows them".to_owned())
    }
}

/// Scopes of an operator, at least one.
pub(super) fn operator_scopes(text: &str) -> Result<OperatorScopes, String> {
    let scopes: OperatorScopes = text
        .parse()
        .map_err(|error: store::UnknownOperatorScope| error.to_string())?;
    if scopes == OperatorScopes::default() {
        return Err("is empty: use admin or read".to_owned());
    }
    Ok(scopes)
}

/// A time with its unit, in seconds.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, _)) if text != "0" => text.split_at(at),
        _ => (text, "s"),
    };
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err("use a whole number and s, m, h, d or w, such as 90d".to_owned()),
    };
    whole_number(number)
        .ok_or_else(|| "use a whole number and s, m, h, d or w, such as 90d".to_owned())?
        .checked_mul(scale)
        .ok_or_else(|| "is longer than anything can last".to_owned())
}

/// How long something lasts that is to last at all, and not longer than anybody means.
pub(super) fn lifetime(text: &str) -> Result<Duration, String> {
    let life = seconds(text)?;
    let life = i64::try_from(life).map(Duration::seconds);
    life.ok()
        .filter(|life| (Duration::SECOND..=LIFE_MAX).contains(life))
        .ok_or_else(|| "must be more than 0, and 100 years at most".to_owned())
}

/// Digits and nothing else: a sign or a digit of another script is a mistake.
fn whole_number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

/// One `--limit`: which, and its value where the tenant has one of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) name: &'static str,
    pub(super) value: Option<u64>,
}

/// The limits that a tenant may have of its own.
const LIMITS: &[&str] = &["body_max_bytes"];

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "use NAME=VALUE, such as body_max_bytes=16MiB".to_owned();
        let (name, value) = text.split_once('=').ok_or_else(form)?;
        let known = LIMITS.iter().find(|known| **known == name);
        let name = known
            .ok_or_else(|| format!("there is no such limit: there is {}", LIMITS.join(", ")))?;
        let value = if value == "default" {
            None
        } else {
            Some(bytes(value)?)
        };
        Ok(Self { name, value })
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let with_unit = units.iter().find_map(|(unit, scale)| {
        let number = text.strip_suffix(unit)?;
        Some((number, *scale))
    });
    let (number, scale) = with_unit.unwrap_or((text, 1));
    whole_number(number)
        .ok_or("use a whole number of bytes, one with KiB, MiB or GiB such as 16MiB, or default")?
        .checked_mul(scale)
        .ok_or_else(|| "is more bytes than can be counted".to_owned())
}

/// Where senders reach the edge: `http://` or `https://`, a host, maybe a port. Gives it without a slash at the end.
pub(super) fn ingest_url(text: &str) -> Result<String, String> {
    let wrong = || {
        "use http:// or https://, a host and maybe a port, such as https://otlp.example.com"
            .to_owned()
    };
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let scheme = uri.scheme_str().unwrap_or_default();
    // It gets into lines that people paste into a shell.
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    let plain = uri.authority().is_some_and(|authority| {
        !authority.host().is_empty() && authority.as_str().chars().all(plain)
    });
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    // The parser drops a fragment without a word.
    if !matches!(scheme, "http" | "https")
        || !plain
        || !matches!(path, "" | "/")
        || text.contains('#')
    {
        return Err(wrong());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// The key in `text`, which came from where people and scripts paste: what surrounds it is dropped, and what is wrong with
/// it is said without repeating it.
pub(super) fn pasted_key(text: &[u8]) -> Result<ApiKey, &'static str> {
    let text = str::from_utf8(text)
        .map_err(|_| "standard input is not text: send the key and nothing else")?
        .trim();
    if text.is_empty() {
        return Err("standard input is empty: send the key that okmon key generate made");
    }
    if text.lines().count() > 1 {
        return Err("standard input has more than one line: send one key and nothing else");
    }
    text.parse::<ApiKey>().map_err(|_| {
        let body = text.strip_prefix("obs_").unwrap_or_default();
        if text.len() == ApiKey::LEN && body.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !body.is_empty() {
            "the key's checksum does not match: a character in it was changed, copy it again"
        } else {
            "standard input has no key: expected obs_ and 54 letters and digits, as okmon key generate makes them"
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_an_end() {
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("24h"), Ok(86_400));
        assert_eq!(seconds("2w"), Ok(1_209_600));
        assert_eq!(seconds("0"), Ok(0));
        for wrong in [
            "",
            "5",
            "d",
            "-1d",
            "+1d",
            "1.5h",
            "1 d",
            "٣d",
            "1ｄ",
            "1y",
            "99999999999999999999d",
            "9999999999999999999w",
        ] {
            assert!(seconds(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn limits_are_bytes_or_the_default() {
        let limit = |value| Limit {
            name: "body_max_bytes",
            value,
        };
        assert_eq!("body_max_bytes=0".parse(), Ok(limit(Some(0))));
        assert_eq!("body_max_bytes=1500".parse(), Ok(limit(Some(1500))));
        assert_eq!("body_max_bytes=16MiB".parse(), Ok(limit(Some(16 << 20))));
        assert_eq!("body_max_bytes=default".parse(), Ok(limit(None)));
        for wrong in [
            "",
            "body_max_bytes",
            "body_max_bytes=",
            "=1",
            "rate=1",
            "body_max_bytes=-1",
            "body_max_bytes=+1",
            "body_max_bytes=1MB",
            "body_max_bytes=MiB",
            "body_max_bytes=1.5MiB",
            "body_max_bytes= 1",
            "body_max_bytes=１",
            "body_max_bytes=99999999999GiB",
            "Body_Max_Bytes=1",
        ] {
            assert!(wrong.parse::<Limit>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_ingest_url_is_an_origin() {
        assert_eq!(
            ingest_url("https://otlp.example.com/"),
            Ok("https://otlp.example.com".to_owned())
        );
        assert_eq!(
            ingest_url("http://[::1]:8080"),
            Ok("http://[::1]:8080".to_owned())
        );
        for wrong in [
            "",
            "example.com",
            "//example.com",
            "ftp://example.com",
            "https://",
            "https://a/b",
            "https://a?b",
            "https://a#b",
            "https://u:p@a",
            "https://a b",
            "https://a\n",
            "https://a\"",
            "https://a`b",
            "https://a$b",
        ] {
            assert!(ingest_url(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_id_is_taken_out_of_a_whole_or_a_broken_key() {
        let key = ApiKey::generate().unwrap();
        assert_eq!(key_id(key.reveal()), Ok(key.id()));
        assert_eq!(key_id(&key.reveal()[..30]), Ok(key.id()));
        assert_eq!(key_id(key.id().as_str()), Ok(key.id()));
        assert!(key_id("obs_short").is_err());
        assert!(key_id("obs_aéééééééééééé").is_err());
        assert_eq!(
            operator_id("okop_0123456789abSECRET"),
            Ok("0123456789ab".to_owned())
        );
        assert!(operator_id("a/b").is_err());
        assert!(operator_id("").is_err());
    }

    #[test]
    fn what_is_wrong_with_a_pasted_key_is_said_without_repeating_it() {
        let key = ApiKey::generate().unwrap();
        let key = key.reveal();
        let pasted = |text: &str| pasted_key(text.as_bytes());
        assert_eq!(pasted(&format!("\r\n  {key}\t\n")).unwrap().reveal(), key);
        let last = if key.ends_with('0') { '1' } else { '0' };
        let changed = format!("{}{last}", &key[..57]);
        for (text, part) in [
            (" \n", "empty"),
            (&format!("{key}\n{key}"), "more than one line"),
            (&changed, "checksum"),
            (&key[..57], "no key"),
            ("okop_", "no key"),
        ] {
            let error = pasted(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert!(pasted_key(&[0xff]).unwrap_err().contains("not text"));
    }
}

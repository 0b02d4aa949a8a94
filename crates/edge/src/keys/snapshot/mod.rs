//! The format of the copy on disk: digests and what they grant, never a key. Decides whether a file can be believed; when
//! it is written and whether it is too old is for others.
//!
//! All numbers are little-endian; a time is its Unix seconds (8 bytes, signed) and nanoseconds (4).
//!
//! | part | bytes |
//! | --- | --- |
//! | magic | 8: `okm-keys` |
//! | version | 4: 1 |
//! | time of the copy | 12 |
//! | installation | 2 for the length, UTF-8 |
//! | rows | see [`put_row`] |
//! | number of rows | 8 |
//! | SHA-256 of all before | 32 |
//! | end | 8: `okm-end.` |
//!
//! A reader sees the old file or the new one, never a part: it is written beside its place and then moved there. Two
//! processes must not share one.

#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use model::{Grant, KeyDigest, Scope, TenantId, TenantStatus};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

const MAGIC: &[u8; 8] = b"okm-keys";
const VERSION: u32 = 1;
const END: &[u8; 8] = b"okm-end.";
const SUM_BYTES: usize = 32;
/// The row count, the checksum and the end.
const TAIL_BYTES: usize = 8 + SUM_BYTES + END.len();
/// A row whose tenant id is empty and whose optional parts are missing. No row is shorter.
const ROW_BYTES_MIN: usize = 32 + 12 + 4;
/// Some ten million keys. What is larger was not written by us, and would take the memory away.
const FILE_BYTES_MAX: u64 = 1 << 30;
const BUFFER_BYTES: usize = 256 << 10;

const STATUSES: [TenantStatus; 3] = [
    TenantStatus::Active,
    TenantStatus::Suspended,
    TenantStatus::Inactive,
];

// Which optional parts a row has.
const EXPIRES: u8 = 1;
const REVOKED: u8 = 1 << 1;
const SUSPENDED: u8 = 1 << 2;
const BODY_MAX: u8 = 1 << 3;
const PARTS: u8 = EXPIRES | REVOKED | SUSPENDED | BODY_MAX;

/// What a copy holds.
#[derive(Debug)]
pub(super) struct Contents {
    /// The database that the keys came from.
    pub(super) installation: String,
    /// When the database was as the copy is.
    pub(super) taken_at: OffsetDateTime,
    pub(super) grants: Vec<(KeyDigest, Grant)>,
}

/// Why a copy was not written, or is not believed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    #[error("{}: cannot be {doing}: {source}: keys.snapshot_file needs a folder that exists and that the edge may write to", file.display())]
    Io {
        file: PathBuf,
        doing: &'static str,
        source: io::Error,
    },
    #[error("{}: {problem}: {fix}", file.display())]
    Bad {
        file: PathBuf,
        problem: Problem,
        fix: &'static str,
    },
}

/// What is wrong with a file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    #[error("is not a regular file")]
    NotRegular,
    #[error("may be written by every user of this machine, so anybody may have put keys into it")]
    WritableByAll,
    #[error("has {0} bytes, more than the {FILE_BYTES_MAX} that a copy of the keys may have")]
    TooLarge(u64),
    #[error("is not a copy of the keys")]
    NotOurs,
    #[error("has version {0}, this program reads version {VERSION}")]
    Version(u32),
    #[error("is cut short")]
    Truncated,
    #[error("was damaged: its checksum is wrong")]
    Checksum,
    #[error("has a part that is not valid: {0}")]
    Invalid(String),
}

impl Problem {
    const fn fix(&self) -> &'static str {
        match self {
            Self::NotRegular => "name another file in keys.snapshot_file",
            Self::WritableByAll => "look who did that, then remove it; the edge writes a new one",
            Self::TooLarge(_)
            | Self::NotOurs
            | Self::Version(_)
            | Self::Truncated
            | Self::Checksum
            | Self::Invalid(_) => "remove it, or leave it to be replaced once the database answers",
        }
    }

    fn of(self, file: &Path) -> SnapshotError {
        SnapshotError::Bad {
            file: file.to_owned(),
            fix: self.fix(),
            problem: self,
        }
    }
}

/// Replaces `file` by a copy of `grants`; the number of its bytes.
pub(super) fn write(
    file: &Path,
    installation: &str,
    taken_at: OffsetDateTime,
    grants: impl Iterator<Item = (KeyDigest, impl Borrow<Grant>)>,
) -> Result<u64, SnapshotError> {
    let failed = |doing| {
        move |source| SnapshotError::Io {
            file: file.to_owned(),
            doing,
            source,
        }
    };
    let beside = beside(file);
    let mut to = Summed {
        to: BufWriter::with_capacity(BUFFER_BYTES, created(&beside).map_err(failed("made"))?),
        sum: Sha256::new(),
        bytes: 0,
    };
    put_all(&mut to, installation, taken_at, grants).map_err(failed("written"))?;
    if to.bytes > FILE_BYTES_MAX {
        // It could not be read again; the old one can.
        let _ = std::fs::remove_file(&beside);
        return Err(Problem::TooLarge(to.bytes).of(file));
    }
    let bytes = to.bytes;
    let written = to.to.into_inner().map_err(io::IntoInnerError::into_error);
    written
        .and_then(|written| written.sync_all())
        .map_err(failed("written"))?;
    std::fs::rename(&beside, file).map_err(failed("replaced"))?;
    // The move itself is only on disk when the folder is.
    File::open(folder(file))
        .and_then(|folder| folder.sync_all())
        .map_err(failed("replaced"))?;
    Ok(bytes)
}

/// Where a copy is written before it takes its place: in the same folder, since a move between file systems is none.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    file.with_file_name(name)
}

fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// A new file that nobody else may read, in place of what a crash left there or somebody put there.
fn created(file: &Path) -> io::Result<File> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
}

/// Counts and sums what passes.
struct Summed {
    to: BufWriter<File>,
    sum: Sha256,
    bytes: u64,
}

impl Summed {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.bytes += bytes.len() as u64;
        self.to.write_all(bytes)
    }
}

fn put_all(
    to: &mut Summed,
    installation: &str,
    taken_at: OffsetDateTime,
    grants: impl Iterator<Item = (KeyDigest, impl Borrow<Grant>)>,
) -> io::Result<()> {
    let mut head = Vec::from(MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    put_time(&mut head, taken_at);
    let length = u16::try_from(installation.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    head.extend_from_slice(&length.to_le_bytes());
    head.extend_from_slice(installation.as_bytes());
    to.put(&head)?;
    let (mut rows, mut row) = (0_u64, Vec::with_capacity(256));
    for (digest, grant) in grants {
        row.clear();
        put_row(&mut row, &digest, grant.borrow());
        to.put(&row)?;
        rows += 1;
    }
    to.put(&rows.to_le_bytes())?;
    let sum: [u8; SUM_BYTES] = to.sum.clone().finalize().into();
    to.put(&sum)?;
    to.put(END)?;
    to.to.flush()
}

/// A row: digest (32 bytes), key id (12), scopes (1; bit n is the n-th of [`Scope::ALL`]), the tenant's status (1; its place
/// in [`STATUSES`]), which optional parts there are (1), the tenant's id (1 for the length), then the parts.
fn put_row(row: &mut Vec<u8>, digest: &KeyDigest, grant: &Grant) {
    row.extend_from_slice(digest.as_bytes());
    row.extend_from_slice(grant.key_id.as_str().as_bytes());
    let scopes = Scope::ALL.iter().enumerate();
    let scopes = scopes.filter(|(_, scope)| grant.allows(**scope));
    row.push(scopes.fold(0, |bits, (n, _)| bits | 1 << n));
    let status = STATUSES
        .iter()
        .position(|status| *status == grant.tenant_status);
    row.push(byte(status.unwrap_or(usize::MAX)));
    let times = [
        (EXPIRES, grant.expires_at),
        (REVOKED, grant.revoked_at),
        (SUSPENDED, grant.suspended_at),
    ];
    let there = times.iter().filter(|(_, at)| at.is_some());
    let body_max = grant.body_max_bytes.map_or(0, |_| BODY_MAX);
    row.push(there.fold(body_max, |parts, (part, _)| parts | part));
    // At most TenantId::MAX_LEN, which fits.
    row.push(byte(grant.tenant.as_str().len()));
    row.extend_from_slice(grant.tenant.as_str().as_bytes());
    for at in times.into_iter().filter_map(|(_, at)| at) {
        put_time(row, at);
    }
    if let Some(bytes) = grant.body_max_bytes {
        row.extend_from_slice(&bytes.to_le_bytes());
    }
}

fn byte(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

fn put_time(to: &mut Vec<u8>, at: OffsetDateTime) {
    to.extend_from_slice(&at.unix_timestamp().to_le_bytes());
    to.extend_from_slice(&at.nanosecond().to_le_bytes());
}

/// Reads a copy; `None` when there is none.
pub(super) fn read(file: &Path) -> Result<Option<Contents>, SnapshotError> {
    let bytes = match bytes_of(file) {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(problem)) => return Err(problem.of(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(SnapshotError::Io {
                file: file.to_owned(),
                doing: "read",
                source,
            });
        }
    };
    match contents(&bytes) {
        Ok(contents) => Ok(Some(contents)),
        Err(problem) => Err(problem.of(file)),
    }
}

fn bytes_of(file: &Path) -> io::Result<Result<Vec<u8>, Problem>> {
    // Asked before it is opened: opening a pipe waits for somebody to write to it.
    let found = std::fs::metadata(file)?;
    if !found.is_file() {
        return Ok(Err(Problem::NotRegular));
    }
    if found.permissions().mode() & 0o002 != 0 {
        return Ok(Err(Problem::WritableByAll));
    }
    if found.len() > FILE_BYTES_MAX {
        return Ok(Err(Problem::TooLarge(found.len())));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(found.len()).unwrap_or_default());
    File::open(file)?
        .take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    Ok(Ok(bytes))
}

fn contents(bytes: &[u8]) -> Result<Contents, Problem> {
    let mut rest = Bytes(bytes);
    // Whatever is too short to say what it is, is a beginning of ours or not ours.
    let magic = rest.up_to(MAGIC.len());
    if magic != MAGIC.get(..magic.len()).unwrap_or_default() {
        return Err(Problem::NotOurs);
    }
    let version = u32::from_le_bytes(rest.array()?);
    if version != VERSION {
        return Err(Problem::Version(version));
    }
    let (body, tail) = rest
        .0
        .split_last_chunk::<TAIL_BYTES>()
        .ok_or(Problem::Truncated)?;
    let mut tail = Bytes(tail);
    let rows = u64::from_le_bytes(tail.array()?);
    let sum = tail.array::<SUM_BYTES>()?;
    if tail.0 != END {
        return Err(Problem::Truncated);
    }
    let summed = bytes.len().saturating_sub(SUM_BYTES + END.len());
    let summed = bytes.get(..summed).unwrap_or_default();
    if <[u8; SUM_BYTES]>::from(Sha256::digest(summed)) != sum {
        return Err(Problem::Checksum);
    }
    let mut body = Bytes(body);
    let taken_at = body.time()?;
    let installation = usize::from(u16::from_le_bytes(body.array()?));
    let installation = valid("installation", str::from_utf8(body.take(installation)?))?;
    // The checksum does not say that the number is sane, only that it was written.
    let rows_max = body.0.len() / ROW_BYTES_MIN;
    let capacity = usize::try_from(rows).map_or(rows_max, |rows| rows.min(rows_max));
    let mut grants = Vec::with_capacity(capacity);
    while !body.0.is_empty() {
        grants.push(body.row()?);
    }
    if grants.len() as u64 != rows {
        let found = format!("{} rows, {rows} expected", grants.len());
        return Err(Problem::Invalid(found));
    }
    Ok(Contents {
        installation: installation.to_owned(),
        taken_at,
        grants,
    })
}

fn valid<T, E: std::fmt::Display>(part: &str, parsed: Result<T, E>) -> Result<T, Problem> {
    parsed.map_err(|reason| Problem::Invalid(format!("{part}: {reason}")))
}

/// What is left to be read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn up_to(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Problem> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Problem::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Problem::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn time(&mut self) -> Result<OffsetDateTime, Problem> {
        let seconds = i64::from_le_bytes(self.array()?);
        let nanoseconds = u32::from_le_bytes(self.array()?);
        let at = valid("time", OffsetDateTime::from_unix_timestamp(seconds))?;
        valid("time", at.replace_nanosecond(nanoseconds))
    }

    /// The inverse of [`put_row`].
    fn row(&mut self) -> Result<(KeyDigest, Grant), Problem> {
        let invalid =
            |part: &str| Problem::Invalid(format!("{part} that this program does not know"));
        let digest = self.take(32)?;
        let digest = KeyDigest::from_slice(digest).ok_or(Problem::Truncated)?;
        let key_id = valid("key id", str::from_utf8(self.take(12)?))?;
        let key_id = valid("key id", key_id.parse())?;
        let [scopes, status, parts, tenant_bytes] = self.array()?;
        if scopes >> Scope::ALL.len() != 0 {
            return Err(invalid("a scope"));
        }
        if parts & !PARTS != 0 {
            return Err(invalid("a part"));
        }
        let status = STATUSES.get(usize::from(status));
        let tenant_status = *status.ok_or_else(|| invalid("a tenant's status"))?;
        let tenant = valid(
            "tenant id",
            str::from_utf8(self.take(usize::from(tenant_bytes))?),
        )?;
        let tenant = valid("tenant id", TenantId::parse(tenant))?;
        let granted = Scope::ALL.into_iter().enumerate();
        let granted = granted.filter(|(n, _)| scopes >> n & 1 == 1);
        let grant = Grant {
            tenant,
            key_id,
            scopes: granted.map(|(_, scope)| scope).collect(),
            expires_at: self.time_if(parts & EXPIRES)?,
            revoked_at: self.time_if(parts & REVOKED)?,
            tenant_status,
            suspended_at: self.time_if(parts & SUSPENDED)?,
            body_max_bytes: match parts & BODY_MAX {
                0 => None,
                _ => Some(u64::from_le_bytes(self.array()?)),
            },
        };
        Ok((digest, grant))
    }

    fn time_if(&mut self, there: u8) -> Result<Option<OffsetDateTime>, Problem> {
        (there != 0).then(|| self.time()).transpose()
    }
}

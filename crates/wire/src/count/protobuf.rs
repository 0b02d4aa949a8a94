//! Items of a protobuf body: walks the wire format as the body's frames pass, builds no message, keeps no payload.
//!
//! The number is the one a full decode would find. Repeated blocks add up; of a metric whose `data` is given more than once
//! the last kind counts, and blocks of that kind merge. Fields come in any order, varints in any length up to ten bytes, and
//! fields the schema does not name are passed over.
//!
//! A body that a full decode takes is always counted. One that it refuses is [`Uncounted`], but for two kinds of damage that
//! do not bear on the number: what stands inside an item or beside the path to it (attributes, labels, strings) is
//! not looked at, and of groups, which no schema here has, the nesting is followed but neither its depth nor the number at a
//! group's end is judged (Mimir and Loki judge neither).

use super::Uncounted;
use super::schema::{DEPTH_MAX, Format, METRIC, Step};
use super::varint::Varint;

/// Counts the items of one protobuf body, given in frames of any size.
///
/// ```
/// use wire::count::{Counter, Format};
/// let mut counter = Counter::new(Format::LokiPush);
/// counter.push(&[0x0a, 0x04, 0x12]); // streams (4 bytes): entries
/// counter.push(&[0x00, 0x12, 0x00]); // of 0 bytes; entries of 0 bytes
/// assert_eq!(counter.finish(), Ok(2));
/// ```
#[derive(Debug, Clone)]
pub struct Counter {
    format: Format,
    /// What the next byte is.
    next: Next,
    /// The number that is being read.
    varint: Varint,
    /// How many bytes came before the next one.
    at: u64,
    /// Where the innermost open message ends.
    end: u64,
    /// Where the messages around it end, outermost first; the body itself has no end that is known ahead.
    ends: [u64; DEPTH_MAX],
    /// How many messages are open.
    depth: usize,
    /// How many groups are open in the innermost message.
    groups: u64,
    counted: u64,
    /// The kind that the open metric's data has so far, and the count before it.
    kind: Option<(u32, u64)>,
    failed: Option<Uncounted>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Key,
    /// A varint that is a field's value.
    Value,
    /// The length of a field, and what to do with its content.
    Length(Step),
    /// So many bytes that do not matter.
    Skipped(u64),
}

impl Counter {
    /// A counter at the beginning of a body.
    pub const fn new(format: Format) -> Self {
        Self {
            format,
            next: Next::Key,
            varint: Varint::new(),
            at: 0,
            end: u64::MAX,
            ends: [0; DEPTH_MAX],
            depth: 0,
            groups: 0,
            counted: 0,
            kind: None,
            failed: None,
        }
    }

    /// Takes the next bytes of the body, which may be cut anywhere.
    pub fn push(&mut self, frame: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.walk(frame).err();
        }
    }

    /// Why there will be no number, if that is known already.
    pub(super) const fn failed(&self) -> Option<Uncounted> {
        self.failed
    }

    /// The number of items, once all of the body was pushed.
    ///
    /// # Errors
    /// [`Uncounted`] when the body is no message of the format.
    pub fn finish(self) -> Result<u64, Uncounted> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let between_fields = self.next == Next::Key && self.varint.is_empty();
        if !between_fields || self.depth > 0 {
            return Err(Uncounted::Truncated);
        }
        if self.groups > 0 {
            return Err(Uncounted::Group);
        }
        Ok(self.counted)
    }

    fn walk(&mut self, frame: &[u8]) -> Result<(), Uncounted> {
        let mut rest = frame;
        while !rest.is_empty() {
            if let Next::Skipped(left) = self.next {
                let here = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                rest = rest.get(here..).unwrap_or_default();
                self.at += here as u64;
                if here as u64 != left {
                    self.next = Next::Skipped(left - here as u64);
                    return Ok(());
                }
                self.field_ended()?;
                continue;
            }
            if let Some((field, length, after)) = self.whole_head(rest) {
                self.at += (rest.len() - after.len()) as u64;
                let step = self.step(field);
                if let Some(behind) = self.whole_content(step, length, after) {
                    rest = behind;
                    self.counted += u64::from(step == Step::Count);
                    self.at += length;
                    self.field_ended()?;
                } else {
                    rest = after;
                    self.content(step, length)?;
                }
                continue;
            }
            let before = rest.len();
            let number = self.varint.read(&mut rest);
            self.at += (before - rest.len()) as u64;
            if self.at > self.end {
                return Err(Uncounted::Overrun);
            }
            let Some(number) = number? else {
                return Ok(());
            };
            match self.next {
                Next::Length(step) => self.content(step, number)?,
                Next::Value => self.field_ended()?,
                Next::Key | Next::Skipped(_) => self.key(number)?,
            }
        }
        Ok(())
    }

    /// Key and length of the field that begins here, and what comes after them, where the key has one byte, the length one or
    /// two, and all of them are in `rest` and in the message. Most fields are like that, and this needs no state; whatever is
    /// not, valid or damaged, is left to the way that takes a byte at a time.
    #[inline]
    fn whole_head<'a>(&self, rest: &'a [u8]) -> Option<(u32, u64, &'a [u8])> {
        if !matches!(self.next, Next::Key) || !self.varint.is_empty() {
            return None;
        }
        let [key, first, after @ ..] = rest else {
            return None;
        };
        let (length, after) = match after {
            _ if *first < 0x80 => (u64::from(*first), after),
            [second, after @ ..] if *second < 0x80 => {
                (u64::from(first & 0x7f) | u64::from(*second) << 7, after)
            }
            _ => return None,
        };
        let is_sound = u64::from(key & 0x87) == LEN && *key > 7;
        let in_message = (rest.len() - after.len()) as u64 <= self.end - self.at;
        (is_sound && in_message).then_some((u32::from(key >> 3), length, after))
    }

    /// What comes after the content of a field that is not entered, where all of it is in `rest` and in the message.
    #[inline]
    fn whole_content<'a>(&self, step: Step, length: u64, rest: &'a [u8]) -> Option<&'a [u8]> {
        let is_entered = !matches!(step, Step::Skip | Step::Count);
        if is_entered || length > self.end - self.at {
            return None;
        }
        rest.get(usize::try_from(length).ok()?..)
    }

    /// What to do with a field here.
    #[inline]
    fn step(&self, field: u32) -> Step {
        if self.groups > 0 {
            Step::Skip
        } else {
            self.format.step(self.depth, field)
        }
    }

    /// A field begins.
    fn key(&mut self, key: u64) -> Result<(), Uncounted> {
        let field = match u32::try_from(key) {
            Ok(key) if key >> 3 > 0 => key >> 3,
            _ => return Err(Uncounted::FieldNumber),
        };
        let step = self.step(field);
        let wire_type = key & 7;
        if step != Step::Skip && wire_type != LEN {
            return Err(Uncounted::WireType);
        }
        match wire_type {
            LEN => self.next = Next::Length(step),
            VARINT => self.next = Next::Value,
            I64 => return self.skip(8),
            I32 => return self.skip(4),
            GROUP => {
                self.groups += 1;
                return self.still_open();
            }
            GROUP_END => {
                self.groups = self.groups.checked_sub(1).ok_or(Uncounted::Group)?;
                return self.field_ended();
            }
            _ => return Err(Uncounted::WireType),
        }
        self.still_open()
    }

    /// A field's content of `length` bytes begins.
    fn content(&mut self, step: Step, length: u64) -> Result<(), Uncounted> {
        match step {
            Step::Skip => self.skip(length),
            Step::Count => {
                self.counted += 1;
                self.skip(length)
            }
            Step::Enter => self.enter(length),
            Step::EnterKind(kind) => {
                match self.kind {
                    // The same again: the two are merged.
                    Some((known, _)) if known == kind => {}
                    // Another kind takes the place of the one before.
                    Some((_, before)) => {
                        self.counted = before;
                        self.kind = Some((kind, before));
                    }
                    None => self.kind = Some((kind, self.counted)),
                }
                self.enter(length)
            }
        }
    }

    fn enter(&mut self, length: u64) -> Result<(), Uncounted> {
        let end = self.reach(length)?;
        if let Some(around) = self.ends.get_mut(self.depth) {
            *around = self.end;
        }
        self.depth += 1;
        self.end = end;
        self.field_ended()
    }

    fn skip(&mut self, length: u64) -> Result<(), Uncounted> {
        self.reach(length)?;
        if length == 0 {
            return self.field_ended();
        }
        self.next = Next::Skipped(length);
        Ok(())
    }

    /// Where the next `length` bytes end, which must be within the message.
    fn reach(&self, length: u64) -> Result<u64, Uncounted> {
        self.at
            .checked_add(length)
            .filter(|end| *end <= self.end)
            .ok_or(Uncounted::Overrun)
    }

    /// A field is over; so are the messages that end with it.
    fn field_ended(&mut self) -> Result<(), Uncounted> {
        self.next = Next::Key;
        while self.at == self.end && self.depth > 0 {
            if self.groups > 0 {
                return Err(Uncounted::Group);
            }
            self.depth -= 1;
            self.end = self.ends.get(self.depth).copied().unwrap_or(u64::MAX);
            if self.depth < METRIC {
                self.kind = None;
            }
        }
        Ok(())
    }

    /// A field has begun, so the message around it cannot be over.
    fn still_open(&self) -> Result<(), Uncounted> {
        if self.at == self.end && self.depth > 0 {
            return Err(Uncounted::Overrun);
        }
        Ok(())
    }
}

// Wire types.
const VARINT: u64 = 0;
const I64: u64 = 1;
const LEN: u64 = 2;
const GROUP: u64 = 3;
const GROUP_END: u64 = 4;
const I32: u64 = 5;

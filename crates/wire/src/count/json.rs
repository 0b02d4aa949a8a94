//! Items of a JSON body: reads its tokens as the body's frames pass, keeps the names on the way to the items and nothing else.
//!
//! A body that is JSON (RFC 8259) is counted, whatever is in it beside the items: names may be escaped, members come in any
//! order, and a member that is given twice adds up, as its arrays do in the Collector. Of a metric with several kinds of data the last
//! one counts. Where an array is expected and something else stands, there are no items. What is no JSON is [`Uncounted`];
//! what stands inside strings is not judged, and deeper than [`DEPTH_MAX`] nothing is followed.

use memchr::memchr2;

use super::Uncounted;

/// The most objects and arrays inside each other; Go's own decoder gives up at 10,000, serde's at 128.
const DEPTH_MAX: usize = 1024;
/// The longest name on the way to items is `exponential_histogram`.
const NAME_MAX: usize = 24;

/// What a JSON body is, by its route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonFormat {
    /// OTLP traces; the items are spans.
    Traces,
    /// OTLP metrics; the items are data points.
    Metrics,
    /// OTLP logs; the items are log records.
    Logs,
    /// OTLP profiles as of the development schema; the items are samples.
    Profiles,
    /// Loki push; the items are the `values` of streams.
    LokiPush,
    /// Loki's first API; the items are the `entries` of streams.
    LokiLegacyPush,
}

/// An object or array on the way to the items.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// An object; the way goes on in members of these names.
    Object(&'static [&'static str]),
    /// Likewise, and of several such members the last is in effect.
    OneOf(&'static [&'static str]),
    /// An array; the way goes on in its elements.
    Array,
    /// An array whose elements are the items.
    Items,
}

use Place::{Array, Items, Object, OneOf};

const TRACES: &[Place] = &[
    Object(&["resourceSpans", "resource_spans"]),
    Array,
    Object(&["scopeSpans", "scope_spans"]),
    Array,
    Object(&["spans"]),
    Items,
];
const METRICS: &[Place] = &[
    Object(&["resourceMetrics", "resource_metrics"]),
    Array,
    Object(&["scopeMetrics", "scope_metrics"]),
    Array,
    Object(&["metrics"]),
    Array,
    OneOf(&[
        "gauge",
        "sum",
        "histogram",
        "exponentialHistogram",
        "exponential_histogram",
        "summary",
    ]),
    Object(&["dataPoints", "data_points"]),
    Items,
];
const LOGS: &[Place] = &[
    Object(&["resourceLogs", "resource_logs"]),
    Array,
    Object(&["scopeLogs", "scope_logs"]),
    Array,
    Object(&["logRecords", "log_records"]),
    Items,
];
const PROFILES: &[Place] = &[
    Object(&["resourceProfiles", "resource_profiles"]),
    Array,
    Object(&["scopeProfiles", "scope_profiles"]),
    Array,
    Object(&["profiles"]),
    Array,
    Object(&["samples", "sample"]),
    Items,
];
const LOKI_PUSH: &[Place] = &[Object(&["streams"]), Array, Object(&["values"]), Items];
const LOKI_LEGACY_PUSH: &[Place] = &[Object(&["streams"]), Array, Object(&["entries"]), Items];

impl JsonFormat {
    /// Every format.
    pub const ALL: [Self; 6] = [
        Self::Traces,
        Self::Metrics,
        Self::Logs,
        Self::Profiles,
        Self::LokiPush,
        Self::LokiLegacyPush,
    ];

    /// The way to the items: the places that are open inside each other above an item, outermost first.
    const fn way(self) -> &'static [Place] {
        match self {
            Self::Traces => TRACES,
            Self::Metrics => METRICS,
            Self::Logs => LOGS,
            Self::Profiles => PROFILES,
            Self::LokiPush => LOKI_PUSH,
            Self::LokiLegacyPush => LOKI_LEGACY_PUSH,
        }
    }
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Value,
    /// A value or, of an empty array, the end.
    FirstElement,
    /// A name or, of an empty object, the end.
    FirstName,
    Name,
    Colon,
    /// A comma or the end of what is open; nothing once all is closed.
    CommaOrEnd,
    Text(Text),
    /// What follows a backslash.
    Escape(Text),
    /// So many hexadecimal digits are still to come; those that came.
    Unicode(Text, u8, u16),
    Number(Number),
    /// The rest of `true`, `false` or `null`.
    Word(&'static [u8]),
}

/// What a string is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Value,
    /// A member's name; whether it may be on the way.
    Name(bool),
}

/// Where in a number (RFC 8259 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Minus,
    /// A leading zero, after which no digit may come.
    Zero,
    Digits,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

impl Number {
    /// Where `byte` leads; `None` when it does not belong to the number.
    const fn then(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Digits, b'0'..=b'9') => Self::Digits,
            (Self::Zero | Self::Digits, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Digits | Self::Fraction, b'e' | b'E') => Self::E,
            (Self::E, b'+' | b'-') => Self::Sign,
            (Self::E | Self::Sign | Self::Exponent, b'0'..=b'9') => Self::Exponent,
            _ => return None,
        })
    }

    const fn may_end(self) -> bool {
        matches!(
            self,
            Self::Zero | Self::Digits | Self::Fraction | Self::Exponent
        )
    }
}

/// Counts the items of one JSON body, given in frames of any size.
///
/// ```
/// use wire::count::{JsonCounter, JsonFormat};
/// let mut counter = JsonCounter::new(JsonFormat::LokiPush);
/// counter.push(br#"{"streams": [{"values": [["1", "a"], ["2", "#);
/// counter.push(br#""b"]]}]}"#);
/// assert_eq!(counter.finish(), Ok(2));
/// ```
#[derive(Debug, Clone)]
pub struct JsonCounter {
    way: &'static [Place],
    next: Next,
    /// A bit for each open object or array, set for an object.
    objects: [u64; DEPTH_MAX / 64],
    /// How many are open.
    depth: usize,
    /// How many of them, from the outermost on, are on the way.
    on_way: usize,
    /// Whether the member whose name was read last is on the way.
    name_matches: bool,
    name: [u8; NAME_MAX],
    name_len: usize,
    counted: u64,
    /// What was counted before the open metric.
    before_one_of: u64,
    failed: Option<Uncounted>,
}

impl JsonCounter {
    /// A counter at the beginning of a body.
    pub const fn new(format: JsonFormat) -> Self {
        Self {
            way: format.way(),
            next: Next::Value,
            objects: [0; DEPTH_MAX / 64],
            depth: 0,
            on_way: 0,
            name_matches: false,
            name: [0; NAME_MAX],
            name_len: 0,
            counted: 0,
            before_one_of: 0,
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
    /// [`Uncounted`] when the body is no JSON.
    pub fn finish(self) -> Result<u64, Uncounted> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let is_over = match self.next {
            Next::CommaOrEnd => true,
            Next::Number(number) => number.may_end(),
            _ => false,
        };
        if !is_over || self.depth > 0 {
            return Err(Uncounted::Truncated);
        }
        Ok(self.counted)
    }

    fn walk(&mut self, frame: &[u8]) -> Result<(), Uncounted> {
        let mut rest = frame;
        while let Some((byte, after)) = rest.split_first() {
            match self.next {
                Next::Text(text) => {
                    let Some(at) = memchr2(b'"', b'\\', rest) else {
                        self.name_part(text, rest);
                        return Ok(());
                    };
                    let (part, behind) = rest.split_at_checked(at).unwrap_or((rest, &[]));
                    self.name_part(text, part);
                    match behind.split_first() {
                        Some((b'"', behind)) => {
                            rest = behind;
                            self.text_ended(text);
                        }
                        Some((_, behind)) => {
                            rest = behind;
                            self.next = Next::Escape(text);
                        }
                        None => return Ok(()),
                    }
                    continue;
                }
                Next::Number(number) => match number.then(*byte) {
                    Some(then) => self.next = Next::Number(then),
                    None if number.may_end() => {
                        // The byte belongs to what comes after.
                        self.next = Next::CommaOrEnd;
                        continue;
                    }
                    None => return Err(Uncounted::Json),
                },
                Next::Word(word) => match word.split_first() {
                    Some((expected, [])) if expected == byte => self.next = Next::CommaOrEnd,
                    Some((expected, left)) if expected == byte => self.next = Next::Word(left),
                    _ => return Err(Uncounted::Json),
                },
                Next::Escape(text) => self.escaped(text, *byte)?,
                Next::Unicode(text, left, value) => self.unicode(text, left, value, *byte)?,
                _ if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') => {}
                _ => self.token(*byte)?,
            }
            rest = after;
        }
        Ok(())
    }

    /// A byte that is neither inside a string, number or word nor white space.
    #[inline]
    fn token(&mut self, byte: u8) -> Result<(), Uncounted> {
        match (self.next, byte) {
            (Next::FirstElement, b']') | (Next::FirstName, b'}') => self.close(),
            (Next::CommaOrEnd, b']') if self.depth > 0 && !self.in_object() => self.close(),
            (Next::CommaOrEnd, b'}') if self.depth > 0 && self.in_object() => self.close(),
            (Next::CommaOrEnd, b',') if self.depth > 0 => {
                self.next = if self.in_object() {
                    Next::Name
                } else {
                    Next::Value
                };
            }
            (Next::FirstName | Next::Name, b'"') => {
                let may_match = matches!(self.place(), Some(Object(_) | OneOf(_)));
                self.name_len = 0;
                self.next = Next::Text(Text::Name(may_match));
            }
            (Next::Colon, b':') => self.next = Next::Value,
            (Next::Value | Next::FirstElement, _) => return self.value(byte),
            _ => return Err(Uncounted::Json),
        }
        Ok(())
    }

    /// A value begins.
    #[inline]
    fn value(&mut self, byte: u8) -> Result<(), Uncounted> {
        match self.place() {
            Some(Items) => self.counted += 1,
            Some(OneOf(_)) if self.name_matches => self.counted = self.before_one_of,
            _ => {}
        }
        self.next = match byte {
            b'"' => Next::Text(Text::Value),
            b'{' => return self.open(true),
            b'[' => return self.open(false),
            b'-' => Next::Number(Number::Minus),
            b'0' => Next::Number(Number::Zero),
            b'1'..=b'9' => Next::Number(Number::Digits),
            b't' => Next::Word(b"rue"),
            b'f' => Next::Word(b"alse"),
            b'n' => Next::Word(b"ull"),
            _ => return Err(Uncounted::Json),
        };
        Ok(())
    }

    fn open(&mut self, is_object: bool) -> Result<(), Uncounted> {
        if self.depth >= DEPTH_MAX {
            return Err(Uncounted::Depth);
        }
        let leads_on = match self.place() {
            Some(Object(_) | OneOf(_)) => self.name_matches,
            Some(Array) => true,
            Some(Items) => false,
            None => self.depth == 0,
        };
        if leads_on {
            match self.way.get(self.on_way) {
                Some(OneOf(_)) if is_object => {
                    self.before_one_of = self.counted;
                    self.on_way += 1;
                }
                Some(Object(_)) if is_object => self.on_way += 1,
                Some(Array | Items) if !is_object => self.on_way += 1,
                _ => {}
            }
        }
        let bit = 1 << (self.depth % 64);
        if let Some(word) = self.objects.get_mut(self.depth / 64) {
            *word = if is_object { *word | bit } else { *word & !bit };
        }
        self.depth += 1;
        self.next = if is_object {
            Next::FirstName
        } else {
            Next::FirstElement
        };
        Ok(())
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.on_way = self.on_way.min(self.depth);
        self.next = Next::CommaOrEnd;
    }

    /// The innermost open object or array, if it is on the way.
    #[inline]
    fn place(&self) -> Option<Place> {
        let innermost = self.depth.checked_sub(1)?;
        if self.on_way == self.depth {
            self.way.get(innermost).copied()
        } else {
            None
        }
    }

    #[inline]
    fn in_object(&self) -> bool {
        let innermost = self.depth.saturating_sub(1);
        let word = self.objects.get(innermost / 64).copied();
        word.unwrap_or_default() & (1 << (innermost % 64)) != 0
    }

    /// A string is over.
    fn text_ended(&mut self, text: Text) {
        self.next = match text {
            Text::Value => Next::CommaOrEnd,
            Text::Name(may_match) => {
                self.name_matches = may_match && self.name_is_on_way();
                Next::Colon
            }
        };
    }

    fn name_is_on_way(&self) -> bool {
        let Some(name) = self.name.get(..self.name_len) else {
            return false;
        };
        match self.place() {
            Some(Object(names) | OneOf(names)) => {
                names.iter().any(|known| known.as_bytes() == name)
            }
            _ => false,
        }
    }

    /// Keeps a part of a name; one that is too long matches nothing.
    fn name_part(&mut self, text: Text, part: &[u8]) {
        if text != Text::Name(true) || part.is_empty() {
            return;
        }
        let end = self.name_len.saturating_add(part.len());
        if let Some(place) = self.name.get_mut(self.name_len..end) {
            place.copy_from_slice(part);
            self.name_len = end;
        } else {
            self.name_len = usize::MAX;
        }
    }

    fn escaped(&mut self, text: Text, byte: u8) -> Result<(), Uncounted> {
        let plain = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                self.next = Next::Unicode(text, 4, 0);
                return Ok(());
            }
            _ => return Err(Uncounted::Json),
        };
        self.name_part(text, &[plain]);
        self.next = Next::Text(text);
        Ok(())
    }

    fn unicode(&mut self, text: Text, left: u8, value: u16, byte: u8) -> Result<(), Uncounted> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => return Err(Uncounted::Json),
        };
        let value = value << 4 | u16::from(digit);
        if left > 1 {
            self.next = Next::Unicode(text, left - 1, value);
            return Ok(());
        }
        // Names on the way are ASCII; any other character makes a name none of them.
        let plain = u8::try_from(value).ok().filter(u8::is_ascii);
        self.name_part(text, &[plain.unwrap_or(0x80)]);
        self.next = Next::Text(text);
        Ok(())
    }
}

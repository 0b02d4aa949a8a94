//! How many items a body holds: spans, data points, log records, samples, log lines. Reads the body as its frames pass and
//! keeps nothing of it but what its compression needs. Decides the number, or that there is none; what follows from either
//! is for the caller to say.
//!
//! | module | what it knows |
//! | --- | --- |
//! | `body` | a whole body: gRPC's prefix, its compression, its encoding, and the bounds on all of it |
//! | `inflate` | gzip, deflate, zstd and snappy, a step at a time |
//! | `protobuf`, `schema`, `varint` | protobuf's wire format, and where the items are in it |
//! | `json` | likewise for JSON |

mod body;
mod inflate;
mod json;
mod protobuf;
mod schema;
mod varint;

pub use self::body::{BodyCounter, Bounds, Framing, Scratch, Written};
pub use self::inflate::Coding;
pub use self::json::{JsonCounter, JsonFormat};
pub use self::protobuf::Counter;
pub use self::schema::Format;

/// Why a body has no number of items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Uncounted {
    /// A number of more than ten bytes or 64 bits.
    #[error("a varint is longer than 64 bits")]
    Varint,
    /// A field number of 0, or a key of more than 32 bits.
    #[error("a field has a number that no field can have")]
    FieldNumber,
    /// A wire type of 6 or 7, or another one than a message's where the schema has a message.
    #[error("a field has a wire type that it cannot have")]
    WireType,
    /// A field reaches beyond the end of the message that it is in.
    #[error("a field is longer than the message around it")]
    Overrun,
    /// A group ends that did not begin, or does not end within its message.
    #[error("a group does not begin and end in the same message")]
    Group,
    /// What is no JSON.
    #[error("the body is not valid JSON")]
    Json,
    /// JSON that is nested deeper than this module follows.
    #[error("the JSON is nested too deeply")]
    Depth,
    /// The body ends within a field, a value, or what its compression needs.
    #[error("the body ends early")]
    Truncated,
    /// Not what the encoding says.
    #[error("the body is not compressed as its encoding says")]
    Compression,
    /// An encoding that this module does not inflate.
    #[error("bodies of this encoding are not inflated")]
    Encoding,
    /// More of what was inflated is needed to go on than is kept.
    #[error("the compression looks further back than is kept")]
    Window,
    /// gRPC's prefix is none, or there is more or less than its one message.
    #[error("the body is not one gRPC message")]
    Framing,
    /// It inflates, or says that it does, to more than the bound.
    #[error("the body inflates to more than is looked at")]
    TooLarge,
    /// It inflates to many times its size.
    #[error("the body inflates to too many times its size")]
    Ratio,
    /// There was no memory to inflate it.
    #[error("too many bodies are being inflated")]
    Memory,
}

impl Uncounted {
    /// Every value of [`Uncounted::reason`].
    pub const REASONS: [&'static str; 5] = ["damaged", "encoding", "memory", "ratio", "too_large"];

    /// The few kinds that a metric tells apart.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Varint
            | Self::FieldNumber
            | Self::WireType
            | Self::Overrun
            | Self::Group
            | Self::Json
            | Self::Truncated
            | Self::Compression
            | Self::Framing => "damaged",
            Self::Encoding => "encoding",
            Self::Memory => "memory",
            Self::Ratio => "ratio",
            Self::Depth | Self::Window | Self::TooLarge => "too_large",
        }
    }
}

#[cfg(test)]
mod tests;

//! The wire formats as pure functions and plain data: no I/O, no clock, nothing of ours.
//!
//! | module | what it knows |
//! | --- | --- |
//! | [`grpc`] | message prefix, status text, deadline header |
//! | [`chunked`] | HTTP/1.1's chunked coding |

pub mod chunked;
pub mod grpc;

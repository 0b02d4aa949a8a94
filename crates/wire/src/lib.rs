//! The wire formats as pure functions and plain data: no I/O, no clock, nothing of ours.
//!
//! | module | what it knows |
//! | --- | --- |
//! | [`grpc`] | message prefix, status text, deadline header |
//! | [`chunked`] | HTTP/1.1's chunked coding |
//! | [`count`] | how many items a body holds, without decoding it |
//! | [`proxy_protocol`] | whom a proxy's connection is from |
//! | [`rpc`] | `google.rpc.Status`, the error body of OTLP, in protobuf and JSON |
//! | [`prometheus`] | remote-write messages, 1.0 and 2.0 |
//! | [`loki`] | Loki push messages |

pub mod chunked;
pub mod count;
pub mod grpc;
pub mod loki;
pub mod prometheus;
pub mod proxy_protocol;
pub mod rpc;

//! What the binary is made of, as a library so that tests reach it.

pub mod cli;
pub mod dev;
pub mod edge;
pub mod migrate;
pub mod probe;
pub mod sink;
mod snippets;

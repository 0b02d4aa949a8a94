//! HTTP: routes, the objects they speak, and the problems they answer with. Decides nothing about tenants and keys.

mod input;
mod keys;
mod objects;
mod operators;
pub(crate) mod problem;
pub(crate) mod router;
mod tenants;

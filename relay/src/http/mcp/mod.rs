//! The Model Context Protocol, stateless over HTTP (`relay-protocol` 2.20): any call, on any instance, without a
//! session.
//!
//! `tools` is what can be called, `describe` how it is described; here is the transport.

mod describe;
mod follow;
mod tools;
mod transport;

pub(super) use transport::{health, info, serve};

//! The relay as its peers see it: real sockets on a port of its own, a store of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod callbacks;
mod client;
mod http;
mod leases;
mod limits;
mod mcp;
mod measure;
mod old;
mod outages;
mod receiver;
mod recordings;
mod redis_server;
mod restart;
mod several;
mod shared;
mod stream;
mod support;
mod versions;

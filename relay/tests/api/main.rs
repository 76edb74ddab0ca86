//! The relay as its peers see it: real sockets on a port of its own, a store of its own.

mod client;
mod http;
mod leases;
mod restart;
mod support;

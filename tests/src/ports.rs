//! Free ports of the loopback interface.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context as _;

/// An address that nobody listens on. It is free again when this returns: a program that is restarted on one port
/// must be given it from outside. The kernel hands a port out again only after all others, so neighbours do not
/// get the same one.
///
/// # Errors
/// No port is left.
pub fn free() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?)
}

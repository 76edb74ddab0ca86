//! Names, resolved for whoever may go to the public internet alone.

use std::io;
use std::net::SocketAddr;

use dockframe_shared::net::is_public;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

pub(super) const PRIVATE: &str = "the name leads to a private network";

/// Resolves names, and refuses those that lead anywhere private.
#[derive(Debug, Clone, Copy)]
pub(super) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move { Ok(Box::new(public_addresses(name.as_str()).await?.into_iter()) as Addrs) })
    }
}

/// Where a name leads, if that is public throughout.
pub(super) async fn public_addresses(name: &str) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = tokio::net::lookup_host((name, 0)).await?.collect();
    match found.iter().all(|address| is_public(address.ip())) {
        true => Ok(found),
        false => Err(io::Error::other(PRIVATE)),
    }
}

//! Containers on a Docker Engine. The only place that names the Engine's client library.
//!
//! [`connect`] finds an Engine and learns what it can do, [`client`] makes the calls, [`network`] and [`firewall`] keep
//! the jobs' network, [`image`], [`build`], [`sources`] and [`ledger`] make images available, and [`tidy`] removes them again, [`container`]
//! turns a [`ContainerSpec`](super::ContainerSpec) into the Engine's words, [`logs`] reads what a container writes,
//! [`paths`] and [`copy`] bring files in and out, [`credentials`] knows what registries want to hear, [`raw`] makes the
//! one call that the client library cannot.

mod build;
mod buildkit;
mod client;
mod connect;
mod container;
mod copy;
mod credentials;
mod firewall;
mod image;
mod ledger;
mod logs;
mod network;
mod paths;
mod progress;
mod raw;
mod sources;
mod tidy;

pub(crate) use client::Docker;
pub use connect::ConnectError;
pub(crate) use connect::{Examined, Settings, examine};
pub(crate) use firewall::NetworkRules;

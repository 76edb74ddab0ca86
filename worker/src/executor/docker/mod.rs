//! Containers on a Docker Engine. The only place that names the Engine's client library.
//!
//! [`client`] finds and negotiates, [`image`] makes images available, [`container`] turns a
//! [`ContainerSpec`](super::ContainerSpec) into the Engine's words, [`logs`] reads what a container writes,
//! [`paths`] knows what the host calls our directories, [`credentials`] what registries want to hear.

mod build;
mod client;
mod container;
mod credentials;
mod image;
mod logs;
mod paths;

pub use client::ConnectError;
pub(crate) use client::{Docker, Settings};

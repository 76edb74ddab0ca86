//! HTTP: the route table (`router`), and handlers that parse, call one method of the service, and shape the answer.

mod blobs;
mod extract;
mod files;
mod jobs;
mod logs;
mod mcp;
mod pace;
mod queues;
pub(crate) mod router;
mod site;
mod stream;

pub(crate) use blobs::origin;

use std::sync::Arc;

use dockframe_shared::QueueKey;
use tokio::sync::Semaphore;
use url::Url;

use crate::origins::Origins;
use crate::page::Page;
use crate::queue::service::Service;

/// What handlers have at hand.
#[derive(Debug)]
pub(crate) struct App {
    pub service: Arc<Service>,
    pub page: Page,
    pub public_url: Option<Url>,
    pub origins: Origins,
    pub local_queue: Option<QueueKey>,
    /// Places for long bodies that are read into memory.
    pub long_bodies: Semaphore,
    /// Places for uploads.
    pub uploads: Semaphore,
}

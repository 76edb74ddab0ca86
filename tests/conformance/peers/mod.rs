//! The programs that the tests play: an HTTP client, and the peers of the sockets. Each keeps all it saw.

pub(crate) mod client;
pub(crate) mod http;
pub(crate) mod lease_worker;
pub(crate) mod raw;
pub(crate) mod receiver;
pub(crate) mod socket;
pub(crate) mod table;
pub(crate) mod watcher;
pub(crate) mod worker;

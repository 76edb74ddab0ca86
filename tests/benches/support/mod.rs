//! What the measuring programs share: clients that cost little, since they share the processors with what they measure,
//! and a table that can be read as it stands.

// Each program uses a part.
#![allow(dead_code, reason = "included by several programs")]

pub(crate) mod http;
pub(crate) mod process;
pub(crate) mod socket;
pub(crate) mod table;
pub(crate) mod times;

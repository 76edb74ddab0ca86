//! The network: [`http`] for contents and results, [`socket`] for everything that moves.

pub mod http;
pub mod socket;

//! Amounts as people write them: time spans ([`duration`]), sizes ([`bytes`]), GPUs ([`gpus`]).

pub mod bytes;
pub mod duration;
pub mod gpus;

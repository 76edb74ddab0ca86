//! What a job is ([`definition`]), what names it ([`digest`]), what state it is in ([`state`]), which of two
//! states wins between old peers ([`resolve`]), and what came of it ([`result`]).

pub mod canonical;
pub mod definition;
pub mod digest;
pub mod resolve;
pub mod result;
pub mod state;

pub use definition::{Control, Definition, Enqueued, Requirements, Rerun};
pub use result::{JobResult, LogLine};
pub use state::{FinishReason, Finished, JobObject, ResultReason, StateName};

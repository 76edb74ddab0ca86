//! The page's side of a metaframe that needs no browser: hash parameters, data references, how an address and the
//! host's inputs become a job, how a result becomes outputs (`metaframe` 3 to 5).
//!
//! The way of a page: [`hash_params`] takes the address apart, [`settings`] reads what the parameters mean, each
//! input is staged by [`inputs`] when it arrives, [`job_url`] puts the job together, [`outputs`] says what its
//! result gives to the host.

pub mod data_ref;
pub mod data_url;
pub mod hash_params;
pub mod inputs;
pub mod job_input;
pub mod job_url;
pub mod outputs;
pub mod queue;
pub mod settings;

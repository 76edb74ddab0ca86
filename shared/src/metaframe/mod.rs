//! The page's side of a metaframe that needs no browser: hash parameters, data references, how an address and the
//! host's inputs become a job, how a result becomes outputs (`metaframe` 3 to 5).

pub mod data_ref;
pub mod hash_params;

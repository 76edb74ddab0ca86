//! A job's files: what they are called ([`names`]), what is in them ([`content`]), how they come ([`inputs`]) and
//! how they go ([`outputs`]).
//!
//! Every path here begins at a directory handle and cannot leave it, whatever a job calls its files.

pub(crate) mod cache;
pub(crate) mod content;
pub(crate) mod context;
pub(crate) mod fetch;
pub(crate) mod git;
pub(crate) mod inputs;
pub(crate) mod names;
pub(crate) mod outputs;
pub(crate) mod secret_files;

//! What JavaScript does with texts, numbers and bytes, for the places where our answer must be byte-equal to a
//! browser's: job ids, hash parameters, data URLs, the outputs that downstream frames read.
//!
//! One file per piece of the language: [`text`] (UTF-16 order and length, white space), [`number`], [`json`]
//! (`JSON.stringify`), [`uri`] (`encodeURIComponent` and back), [`url`] (`new URL`), [`base64`] (`btoa`, `atob`). Nothing here knows
//! what a job is.

pub mod base64;
pub mod json;
pub mod number;
pub mod text;
pub mod uri;
pub mod url;

//! The tests, one file a subject of the checklist (`metaframe` 9).

pub(super) mod handshake;

//! The page: a metaframe that runs containers, in a host's frame or on its own.
//!
//! [`state`] thinks (plain types, tested natively), [`view`] puts it into words, [`live`] joins both to the
//! browser, `components` draw. Only `browser`, `net` and `host` touch the browser's interfaces.

pub mod browser;
pub mod components;
pub mod host;
pub mod live;
pub mod net;
pub mod screen;
pub mod state;
pub mod text;
pub mod ui;
pub mod view;

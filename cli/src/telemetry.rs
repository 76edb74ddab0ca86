//! Log lines go to stderr; stdout is for what a command is asked to give.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging, at the level of `DOCKFRAME_LOG` (a filter such as `info` or `dockframe_relay=debug`), else at
/// `default`.
pub(crate) fn init(default: &str) {
    let filter = EnvFilter::try_from_env("DOCKFRAME_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

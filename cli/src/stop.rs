//! The signals that end a command.

use tokio_util::sync::CancellationToken;

/// SIGINT and SIGTERM as tokens.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    /// The first one: end in order.
    pub(crate) stop: CancellationToken,
    /// The second one: end at once.
    pub(crate) now: CancellationToken,
}

/// Listens for signals from now on. The third one ends the process whatever it is doing.
pub(crate) fn on_signal() -> std::io::Result<Signals> {
    use tokio::signal::unix::{SignalKind, signal};

    let signals = Signals { stop: CancellationToken::new(), now: CancellationToken::new() };
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let tokens = [signals.stop.clone(), signals.now.clone()];
    tokio::spawn(async move {
        for token in tokens {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            token.cancel();
        }
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        std::process::exit(130);
    });
    Ok(signals)
}

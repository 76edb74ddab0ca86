//! What a container writes, as the Engine frames it.

use bollard::container::LogOutput;
use bollard::errors::Error;
use futures_util::stream::{BoxStream, Stream as AsyncStream, StreamExt as _};

use crate::executor::Chunk;
use crate::logs::Stream;

/// Chunks until the stream ends or breaks: which of the two, the container's exit tells.
pub(super) fn chunks(
    output: impl AsyncStream<Item = Result<LogOutput, Error>> + Send + 'static,
) -> BoxStream<'static, Chunk> {
    output
        .take_while(|frame| std::future::ready(frame.is_ok()))
        .filter_map(|frame| {
            let chunk = frame.ok().and_then(|frame| match frame {
                LogOutput::StdErr { message } => Some(Chunk { stream: Stream::Stderr, bytes: message }),
                LogOutput::StdOut { message } | LogOutput::Console { message } => {
                    Some(Chunk { stream: Stream::Stdout, bytes: message })
                }
                LogOutput::StdIn { .. } => None,
            });
            std::future::ready(chunk)
        })
        .boxed()
}

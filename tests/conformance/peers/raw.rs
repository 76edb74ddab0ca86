//! One HTTP/1.1 request written byte by byte, for what a correct client would never send.

use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::test::skip;

const ANSWER: Duration = Duration::from_secs(10);
/// More than any head of an answer.
const KEPT_BYTES: u64 = 64 * 1024;

/// Sends a request line and headers (without `Host`) and gives status and all that came, up to the end of the head.
///
/// # Errors
/// No answer. An address with TLS skips the test.
pub(crate) async fn request(base: &str, line: &str, headers: &[&str]) -> anyhow::Result<(u16, String)> {
    let Some(authority) = base.strip_prefix("http://") else {
        return skip("needs an address without TLS");
    };
    let authority = authority.split('/').next().unwrap_or(authority);
    let host = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let work = async {
        let mut stream = TcpStream::connect(&host).await?;
        let mut text = format!("{line} HTTP/1.1\r\nHost: {authority}\r\n");
        for header in headers {
            text.push_str(header);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        stream.write_all(text.as_bytes()).await?;
        let mut came = Vec::new();
        let mut reader = stream.take(KEPT_BYTES);
        let mut chunk = [0; 4096];
        while !came.windows(4).any(|window| window == b"\r\n\r\n") {
            match reader.read(&mut chunk).await? {
                0 => break,
                n => came.extend_from_slice(&chunk[..n]),
            }
        }
        anyhow::Ok(String::from_utf8_lossy(&came).into_owned())
    };
    let came = tokio::time::timeout(ANSWER, work).await.with_context(|| format!("{line}: no answer"))??;
    let status = came.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok((status.with_context(|| format!("{line}: expected a status line; came {came:?}"))?, came))
}

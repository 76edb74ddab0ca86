//! HTTP/1.1 over one kept connection, by hand: a whole client would take as long as the server that is measured.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    address: SocketAddr,
    buffer: Vec<u8>,
    request: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, address, buffer: Vec::with_capacity(4096), request: Vec::new() })
    }

    /// Sends a request and reads the whole answer, which must be a 200 with its length.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<&[u8]> {
        use std::io::Write as _;
        self.request.clear();
        write!(
            self.request,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )?;
        self.stream.write_all(&self.request).await?;
        self.buffer.clear();
        let (mut from, mut to) = (0, usize::MAX);
        while self.buffer.len() < to {
            anyhow::ensure!(
                self.stream.read_buf(&mut self.buffer).await? > 0,
                "the server closed the connection"
            );
            if from == 0
                && let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n")
            {
                from = end + 4;
                to = from + length(&self.buffer[..end])?;
            }
        }
        anyhow::ensure!(
            self.buffer.starts_with(b"HTTP/1.1 200"),
            "{method} {path} is answered by {}",
            String::from_utf8_lossy(&self.buffer[..to.min(400)])
        );
        Ok(&self.buffer[from..to])
    }

    /// Uploads so many bytes from `content`, repeated; reads the answer.
    pub(crate) async fn put(&mut self, path: &str, content: &[u8], times: usize) -> anyhow::Result<()> {
        let length = content.len() * times;
        let head =
            format!("PUT {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n", self.address);
        self.stream.write_all(head.as_bytes()).await?;
        for _ in 0..times {
            self.stream.write_all(content).await?;
        }
        self.buffer.clear();
        while !self.buffer.windows(4).any(|four| four == b"\r\n\r\n") {
            anyhow::ensure!(
                self.stream.read_buf(&mut self.buffer).await? > 0,
                "the server closed the connection"
            );
        }
        let text = String::from_utf8_lossy(&self.buffer);
        anyhow::ensure!(text.starts_with("HTTP/1.1 200"), "the upload is answered by {text}");
        Ok(())
    }

    /// Downloads and drops what comes; how many bytes it was.
    pub(crate) async fn drain(&mut self, path: &str) -> anyhow::Result<usize> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        self.stream.write_all(head.as_bytes()).await?;
        let mut buffer = vec![0; 256 << 10];
        let mut got = 0;
        let (whole, mut rest) = loop {
            got += self.stream.read(&mut buffer[got..]).await?;
            if let Some(end) = buffer[..got].windows(4).position(|four| four == b"\r\n\r\n") {
                let whole = length(&buffer[..end])?;
                break (whole, whole - (got - end - 4));
            }
        };
        while rest > 0 {
            let read = self.stream.read(&mut buffer).await?;
            anyhow::ensure!(read > 0, "the server closed the connection");
            rest -= read;
        }
        Ok(whole)
    }
}

fn length(head: &[u8]) -> anyhow::Result<usize> {
    let head = std::str::from_utf8(head)?;
    let mut lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
    let found = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let (_, value) = found.with_context(|| format!("an answer without its length: {head}"))?;
    Ok(value.trim().parse()?)
}

//! A TCP link that can be cut or fall silent: sits between two parts and passes bytes on until told otherwise.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    /// Open connections are closed and new ones are dropped as they come.
    Cut,
    /// Everything stays open and nothing comes through, as when a cable is pulled.
    Silent,
}

/// Listens at an address of its own and connects on to `target`.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    link: watch::Sender<Link>,
    _task: Arc<JoinSet<()>>,
}

impl Proxy {
    /// # Errors
    /// No port is free.
    pub async fn start(target: SocketAddr) -> anyhow::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), target).await
    }

    /// As [`Proxy::start`], on another of this machine's addresses.
    ///
    /// # Errors
    /// It cannot listen there.
    pub async fn start_at(listen: SocketAddr, target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let (link, state) = watch::channel(Link::Up);
        let mut task = JoinSet::new();
        task.spawn(accept(listener, target, state));
        Ok(Self { address, link, _task: Arc::new(task) })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base address for HTTP.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends all connections and lets no new one through.
    pub fn cut(&self) {
        self.link.send_replace(Link::Cut);
    }

    /// Holds back everything that is sent, and says nothing about it.
    pub fn silence(&self) {
        self.link.send_replace(Link::Silent);
    }

    /// Lets everything through again, what was held back too.
    pub fn mend(&self) {
        self.link.send_replace(Link::Up);
    }
}

/// Owns the connections: all end with this task.
async fn accept(listener: TcpListener, target: SocketAddr, link: watch::Receiver<Link>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if *link.borrow() == Link::Cut {
            continue;
        }
        connections.spawn(carry(near, target, link.clone()));
    }
}

async fn carry(near: TcpStream, target: SocketAddr, mut link: watch::Receiver<Link>) {
    let mut opened = link.clone();
    if opened.wait_for(|now| *now != Link::Silent).await.is_err() {
        return;
    }
    let Ok(far) = TcpStream::connect(target).await else { return };
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    tokio::select! {
        // Bytes in flight are lost by a cut: that is what a cut is.
        _ = pump(near_in, far_out, link.clone()) => {}
        _ = pump(far_in, near_out, link.clone()) => {}
        _ = link.wait_for(|now| *now == Link::Cut) => {}
    }
}

/// Passes bytes on, until either end closes.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut link: watch::Receiver<Link>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        if link.wait_for(|now| *now != Link::Silent).await.is_err() {
            return Ok(());
        }
        to.write_all(&buffer[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_cut_ends_connections_and_a_mend_allows_new_ones() {
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = echo.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            while let Ok((mut stream, _)) = echo.accept().await {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            }
        });
        let proxy = Proxy::start(target).await.unwrap();

        let mut first = TcpStream::connect(proxy.address()).await.unwrap();
        first.write_all(b"hi").await.unwrap();
        let mut answer = [0; 2];
        first.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"hi");

        proxy.cut();
        assert_eq!(first.read(&mut answer).await.unwrap_or(0), 0);

        proxy.mend();
        let mut quiet = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.silence();
        quiet.write_all(b"he").await.unwrap();
        let silent = quiet.read(&mut answer);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(100), silent).await.is_err());
        proxy.mend();
        quiet.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"he");
        // The other end talks to one at a time.
        drop(quiet);
        let mut second = TcpStream::connect(proxy.address()).await.unwrap();
        second.write_all(b"ho").await.unwrap();
        second.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ho");
    }
}

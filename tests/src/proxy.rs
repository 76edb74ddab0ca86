//! A TCP link that can be cut: sits between two parts and passes bytes on until told otherwise.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    /// Open connections are closed and new ones are dropped as they come.
    Cut,
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
        let listener = TcpListener::bind("127.0.0.1:0").await?;
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

    /// Lets new connections through again.
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

async fn carry(mut near: TcpStream, target: SocketAddr, mut link: watch::Receiver<Link>) {
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    tokio::select! {
        // Bytes in flight are lost by a cut: that is what a cut is.
        _ = copy_bidirectional(&mut near, &mut far) => {}
        _ = link.wait_for(|now| *now == Link::Cut) => {}
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
        let mut second = TcpStream::connect(proxy.address()).await.unwrap();
        second.write_all(b"ho").await.unwrap();
        second.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ho");
    }
}

//! Sockets to a relay, as clients and as workers with leases.

use std::net::SocketAddr;

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

#[derive(Debug)]
pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
}

impl Socket {
    /// A client that watches.
    pub(crate) async fn client(address: SocketAddr, queue: &str) -> anyhow::Result<Self> {
        Self::open(address, &format!("/q/{queue}/client?protocol=watch/1"), false).await
    }

    /// A worker with leases, registered with so many processors.
    pub(crate) async fn worker(
        address: SocketAddr,
        queue: &str,
        id: &str,
        cpus: u32,
    ) -> anyhow::Result<Self> {
        let mut socket = Self::open(address, &format!("/q/{queue}/worker"), true).await?;
        let registration = format!(
            r#"{{"type":"WorkerRegistration","payload":{{"time":0,"version":"1.0.0","id":"{id}","instance":"i-{id}","cpus":{cpus},"gpus":0,"maxJobDuration":"20m","memoryBytes":34359738368,"draining":false,"executor":"docker","leases":[]}}}}"#
        );
        socket.send(registration).await?;
        while !socket.next().await?.contains("\"Hello\"") {}
        Ok(socket)
    }

    async fn open(address: SocketAddr, path: &str, leases: bool) -> anyhow::Result<Self> {
        let mut request = format!("ws://{address}{path}").into_client_request()?;
        if leases {
            request.headers_mut().insert("dockframe-protocol", "lease/1".parse()?);
        }
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        // Small buffers: thousands of these are open at once.
        let config = WebSocketConfig::default().read_buffer_size(2 << 10).write_buffer_size(0);
        let (stream, _) = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?;
        Ok(Self { stream })
    }

    pub(crate) async fn send(&mut self, text: String) -> anyhow::Result<()> {
        Ok(self.stream.send(Message::text(text)).await?)
    }

    /// Several frames with one flush.
    pub(crate) async fn send_all(&mut self, texts: impl IntoIterator<Item = String>) -> anyhow::Result<()> {
        for text in texts {
            self.stream.feed(Message::text(text)).await?;
        }
        Ok(self.stream.flush().await?)
    }

    /// The next text frame.
    pub(crate) async fn next(&mut self) -> anyhow::Result<String> {
        loop {
            match self.stream.next().await.context("the relay closed the socket")?? {
                Message::Text(text) => return Ok(text.as_str().to_owned()),
                Message::Close(frame) => anyhow::bail!("the relay closed the socket: {frame:?}"),
                _ => {}
            }
        }
    }
}

/// The value of a text field that stands in a frame, without reading all of it.
pub(crate) fn field<'a>(frame: &'a str, name: &str) -> Option<&'a str> {
    let at = frame.find(&format!("\"{name}\":\""))? + name.len() + 4;
    frame[at..].split('"').next()
}

/// A submission over a socket; its id is of the sender's own.
pub(crate) fn submission(id: &str, command: &str) -> String {
    format!(
        r#"{{"type":"StateChange","payload":{{"job":"{id}","tag":"","state":"Queued","ref":"{id}","value":{{"type":"Queued","time":0,"enqueued":{{"id":"{id}","definition":{{"image":"a","command":"{command}"}}}}}}}}}}"#
    )
}

pub(crate) fn accept(lease: &str) -> String {
    format!(r#"{{"type":"LeaseAccept","payload":{{"leaseId":"{lease}"}}}}"#)
}

/// A small result, as a job without output has it.
pub(crate) fn finish(lease: &str, worker: &str) -> String {
    format!(
        r#"{{"type":"LeaseFinish","payload":{{"leaseId":"{lease}","value":{{"type":"Finished","reason":"Success","worker":"{worker}","time":1795461440000,"result":{{"logs":[["hi\n",1795461440000]],"isTimedOut":false,"StatusCode":0,"duration":184,"outputs":{{}}}}}}}}}}"#
    )
}

//! A Redis server for one test: its own process, port and folder, gone with the test.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A server answers within this, on the busiest machine.
const START: Duration = Duration::from_secs(20);

pub(crate) struct RedisServer {
    port: u16,
    folder: TempDir,
    appendfsync: &'static str,
    process: Option<Child>,
}

impl RedisServer {
    /// Acknowledges what is synced.
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), "always")
    }

    /// With data that is put into its folder first.
    #[allow(dead_code, reason = "not every test has some")]
    pub(crate) fn start_from(fill: impl FnOnce(&std::path::Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path());
        Self::start_in(folder, "always")
    }

    fn start_in(folder: TempDir, appendfsync: &'static str) -> Self {
        let mut server = Self { port: 0, folder, appendfsync, process: None };
        // Another process may take the port before the server has it.
        for _ in 0..10 {
            server.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if server.launch() {
                return server;
            }
        }
        panic!("no redis-server could be started: is it installed?");
    }

    fn launch(&mut self) -> bool {
        let mut process = Command::new("redis-server")
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "yes",
            ])
            .args(["--appendfsync", self.appendfsync, "--dir"])
            .arg(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server runs");
        let begun = Instant::now();
        while begun.elapsed() < START {
            if process.try_wait().unwrap().is_some() {
                return false;
            }
            if self.answers() {
                self.process = Some(process);
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        process.kill().unwrap();
        process.wait().unwrap();
        false
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let mut answer = [0; 7];
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        stream.write_all(b"PING\r\n").is_ok()
            && stream.read_exact(&mut answer).is_ok()
            && answer == *b"+PONG\r\n"
    }

    pub(crate) fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// All that it holds goes.
    #[allow(dead_code, reason = "not every test does that")]
    pub(crate) fn empty(&self) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(b"FLUSHALL\r\n").unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"+OK\r\n");
    }

    #[allow(dead_code, reason = "not every test looks into it")]
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// As a crash: nothing is written that was not yet.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn start_again(&mut self) {
        assert!(self.launch(), "the server does not start again");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

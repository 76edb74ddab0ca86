//! Git repositories behind a server on loopback: git's own, as every host runs it.

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri, header};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

/// Serves the repositories of a directory. Those below `/private` want `me` with the password `s3cret-token`, and what
/// is below `/moved` has moved away from there. What is below `/page` is no repository.
pub(crate) struct GitServer {
    pub(crate) address: String,
    root: Arc<TempDir>,
    asked: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
struct Served {
    root: Arc<TempDir>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl GitServer {
    pub(crate) async fn start() -> Self {
        let (root, asked) = (Arc::new(tempfile::tempdir().unwrap()), Arc::default());
        let served = Served { root: Arc::clone(&root), asked: Arc::clone(&asked) };
        let router = Router::new().fallback(serve).layer(DefaultBodyLimit::disable()).with_state(served);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, root, asked }
    }

    /// Commits files to a branch of a repository. The result is the commit.
    pub(crate) fn commit(&self, repository: &str, branch: &str, files: &[(&str, &str)]) -> String {
        let place = self.root.path().join(repository);
        if !place.exists() {
            git(&self.root, &["init", "--quiet", "--initial-branch", branch, repository]);
        }
        for (name, content) in files {
            let path = place.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let at = ["-C", repository];
        let call = |arguments: &[&str]| git(&self.root, &[&at[..], arguments].concat());
        call(&["checkout", "--quiet", "-B", branch]);
        call(&["add", "--all", "--force"]);
        call(&["-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message", "x"]);
        call(&["rev-parse", "HEAD"])
    }

    /// A tag with a message, of what was committed last.
    pub(crate) fn tag(&self, repository: &str, name: &str) {
        let who = ["-C", repository, "-c", "user.name=t", "-c", "user.email=t@t"];
        git(&self.root, &[&who[..], &["tag", "--annotate", "--message", "x", name]].concat());
    }

    /// A link for the next commit.
    pub(crate) fn link(&self, repository: &str, name: &str, target: &str) {
        std::os::unix::fs::symlink(target, self.root.path().join(repository).join(name)).unwrap();
    }

    /// How many requests had this in their first line.
    pub(crate) fn n_asked(&self, what: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| asked.contains(what)).count()
    }
}

fn git(root: &TempDir, arguments: &[&str]) -> String {
    let output = Command::new("git").args(arguments).current_dir(root.path()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn serve(
    State(served): State<Served>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    served.asked.lock().unwrap().push(format!("{method} {uri}"));
    let answer = |status: StatusCode| Response::builder().status(status);
    if let Some(rest) = uri.to_string().strip_prefix("/moved") {
        return answer(StatusCode::FOUND).header(header::LOCATION, rest).body(Body::empty()).unwrap();
    }
    if uri.path().starts_with("/page") {
        return answer(StatusCode::OK)
            .header(header::CONTENT_TYPE, "text/html")
            .body("hello".into())
            .unwrap();
    }
    // `me:s3cret-token`
    if uri.path().starts_with("/private") && said("authorization") != "Basic bWU6czNjcmV0LXRva2Vu" {
        let refusal = answer(StatusCode::UNAUTHORIZED).header(header::WWW_AUTHENTICATE, "Basic realm=\"x\"");
        return refusal.body(Body::empty()).unwrap();
    }
    let mut backend = tokio::process::Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", served.root.path())
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", uri.path())
        .env("QUERY_STRING", uri.query().unwrap_or_default())
        .env("REQUEST_METHOD", method.as_str())
        .env("CONTENT_TYPE", said("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", said("content-encoding"))
        .env("GIT_PROTOCOL", said("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = backend.stdin.take().unwrap().write_all(&body).await;
    let output = backend.wait_with_output().await.unwrap().stdout;
    let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let mut response = Response::builder();
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        response = match name {
            "Status" => response.status(value[..3].parse::<u16>().unwrap()),
            _ => response.header(name, value),
        };
    }
    response.body(Body::from(output[end + 4..].to_vec())).unwrap()
}

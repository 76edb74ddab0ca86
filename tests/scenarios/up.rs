//! `dockframe up` as a newcomer uses it: one process, a job from the terminal, and the link that it prints.

use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::pages::JobPage;
use dockframe_tests::relay::Relay;
use dockframe_tests::scenario;
use reqwest::StatusCode;
use serde_json::json;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;

#[test]
fn one_process_runs_a_job_and_shows_it_in_the_page() {
    scenario::run("one_process_runs_a_job_and_shows_it_in_the_page", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let up = Relay::start_up(&scenario).await?;
        let url = up.url();
        let job = [
            "--api-address",
            &url,
            "--queue",
            "local",
            BUSYBOX,
            "--",
            "sh",
            "-c",
            "echo hello; echo x > /outputs/a",
        ];

        let run = scenario.dockframe_output(&[&["job", "run"], &job[..]].concat()).await?;
        assert_eq!((run.code, run.stdout.as_str()), (Some(0), "hello\n"), "{}", run.stderr);

        let link = scenario.dockframe_output(&[&["job", "link"], &job[..]].concat()).await?;
        assert_eq!(link.code, Some(0), "{}", link.stderr);
        let browser = scenario.browser().await?;
        browser.open(link.stdout.trim()).await?;
        let page = JobPage::new(browser.page());
        page.logs("hello").await?;
        // It ran before the page was there.
        page.shows("Stored result").await?;

        up.stop().await
    });
}

/// The queue's name is known to all, so only the page's origin tells who may run containers on this computer.
#[test]
fn a_foreign_page_runs_nothing_on_this_computer() {
    scenario::run("a_foreign_page_runs_nothing_on_this_computer", async |scenario| {
        let up = Relay::start_up(&scenario).await?;
        let http = reqwest::Client::new();
        let submit = async |origin: &str| {
            let job = json!({ "definition": { "image": BUSYBOX, "command": "true" } });
            let request = http.post(format!("{}/q/local", up.url())).header("Origin", origin).json(&job);
            anyhow::Ok(request.send().await?.status())
        };
        assert_eq!(submit("https://evil.example").await?, StatusCode::FORBIDDEN);
        assert_eq!(submit("null").await?, StatusCode::FORBIDDEN);
        assert_eq!(submit(&up.url()).await?, StatusCode::OK);

        let connect = async |origin: &'static str| {
            let mut request =
                format!("{}/q/local/client", up.url()).replacen("http", "ws", 1).into_client_request()?;
            request.headers_mut().insert("origin", HeaderValue::from_static(origin));
            anyhow::Ok(tokio_tungstenite::connect_async(request).await.is_ok())
        };
        assert!(!connect("https://evil.example").await?);
        assert!(connect("http://localhost:3000").await?);

        up.stop().await
    });
}

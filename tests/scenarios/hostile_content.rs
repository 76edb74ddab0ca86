//! Whatever a job, a host, a relay or an address says: nothing of it is run, nothing becomes HTML, nothing leaves.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use dockframe_tests::browser::Frame;
use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::metapage::Metapage;
use dockframe_tests::pages::JobPage;
use dockframe_tests::relay::Relay;
use dockframe_tests::worker::Worker;
use dockframe_tests::{hash, scenario, wait};
use serde_json::{Value, json};

/// Leaves a mark when it is run, and an element when it is taken for HTML.
const ATTACK: &str = "<img src=x onerror=\"top.hit=self.hit=1\"><svg onload=\"self.hit=2\"></svg><script>self.hit=3</script>\
    <hostile-element></hostile-element>";

/// The same as a file's name, which holds no slash.
const HOSTILE_NAME: &str = "<img src=x onerror=hit=1><hostile-element onclick=hit=1>.txt";

/// Runs in a document before the page: remembers violations of its policy.
const VIOLATIONS: &str = "window.__violations = []; document.addEventListener('securitypolicyviolation', \
    (event) => window.__violations.push(event.violatedDirective + ' ' + event.blockedURI));";

/// Marks, foreign elements, handlers, addresses that run something, and requests to other origins.
const TRACES: &str = r"
    const found = [];
    if (window.hit) found.push('a script ran: ' + window.hit);
    for (const e of document.querySelectorAll('hostile-element, iframe, object, embed, base, form[action]')) {
      found.push('an element: ' + e.outerHTML.slice(0, 200));
    }
    for (const e of document.querySelectorAll('*')) {
      for (const { name, value } of e.attributes) {
        if (name.startsWith('on')) found.push('a handler: ' + name);
        if (/^(href|src|action|formaction|xlink:href)$/.test(name) && /^\s*(javascript|data:text|vbscript)/i.test(value)) {
          found.push(name + '=' + value.slice(0, 100));
        }
      }
    }
    for (const e of document.querySelectorAll('script')) if (!e.src) found.push('an inline script');
    for (const { name } of performance.getEntriesByType('resource')) {
      const url = new URL(name);
      const own = url.origin === location.origin || url.protocol === 'data:' || url.protocol === 'blob:';
      if (!own) found.push('a request to ' + url.origin);
    }
    return found;
";

async fn stays_clean(what: &str, frame: &Frame) -> anyhow::Result<()> {
    wait::stays(&format!("the page with {what}"), Duration::from_millis(600), async || {
        match frame.run(TRACES, &[]).await {
            Ok(Value::Array(found)) if found.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Opens each panel in turn: what is not drawn cannot fail.
async fn look_everywhere(what: &str, page: &JobPage) -> anyhow::Result<()> {
    for panel in ["Job", "Inputs", "Outputs", "Settings"] {
        page.open_panel(panel).await?;
        stays_clean(&format!("{what}, at {panel}"), page.frame()).await?;
    }
    page.frame().click("footer .queue-button").await?;
    stays_clean(&format!("{what}, at the queue"), page.frame()).await
}

#[test]
fn hostile_content_is_shown_and_nothing_else() {
    scenario::run("hostile_content_is_shown_and_nothing_else", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let relay = Relay::start(&scenario).await?;
        let _worker = Worker::start(&scenario, &relay.url()).await?;
        let metapage = Metapage::open(&scenario).await?;
        metapage
            .host()
            .chromium("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": VIOLATIONS }))
            .await?;

        // A job whose every field is hostile, its log and its outputs too.
        let script = format!(
            "printf '%s\\n' '{ATTACK}' 'javascript:alert(1) https://example.org/\"onmouseover=\"hit=1' >&2; \
             printf '%s' '{ATTACK}' > '/outputs/<hostile-element onclick=hit=1>.html'; \
             printf '%s' '<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"top.hit=4\"><script>top.hit=5</script></svg>' > /outputs/a.svg"
        );
        let job = json!({
            "image": BUSYBOX, "command": ["sh", "-c", script], "env": { "HOSTILE": ATTACK },
            "workdir": "/",
        });
        let definition = json!({ "version": "2", "metadata": { "name": ATTACK }, "inputs": { (ATTACK): { "type": ATTACK } } });
        let attack = hash::json(&json!(ATTACK));
        let parameters = [
            ("autostart", "true"),
            ("X", &*attack),
            ("Y", "javascript:hit=6"),
            ("control", &hash::json(&json!({ "namespace": "<hostile-element>" }))),
            ("definition", &hash::json(&definition)),
            ("inputs", &hash::json(&json!({ (HOSTILE_NAME): ATTACK, "a.html": ATTACK }))),
            ("job", &hash::json(&job)),
            ("queue", scenario.queue()),
        ];
        let url = format!("{}/{}", relay.url(), hash::hash(&parameters));
        metapage.load(&json!({ "ours": { "url": url } })).await?;
        let page = JobPage::new(metapage.frame("ours"));
        metapage
            .set_inputs(&json!({ "ours": {
                (format!("up {HOSTILE_NAME}")): ATTACK, "job": { "image": ATTACK }, "x.json": { (ATTACK): [ATTACK] },
                "d": format!("data:text/html,{ATTACK}"), "constructor": ATTACK,
            }}))
            .await?;
        page.logs_containing("<hostile-element>").await?;
        metapage.says("ours", "OutputsUpdate").await?;
        page.shows_one(&["Finished", "exit 0"]).await?;
        look_everywhere("a hostile job", &page).await?;
        stays_clean("a hostile frame", &metapage.host()).await.or_else(|error| {
            // The host has a script and a frame of its own; it must not be run into.
            if error.to_string().contains("a script ran") { Err(error) } else { Ok(()) }
        })?;
        let violations = page.frame().run("return window.__violations", &[]).await?;
        assert_eq!(violations, json!([]), "the page keeps to its own policy");

        // Messages that are no host's, and ones of hosts with hostile content.
        let strange = json!([ATTACK, { "jsonrpc": "2.0", "method": ATTACK, "params": { "x": ATTACK } },
            { "jsonrpc": "2.0", "method": "SetupIframeServerResponse", "params": { "parentId": ATTACK } }]);
        let post = "for (const data of arguments[0]) for (const frame of document.querySelectorAll('iframe')) \
            frame.contentWindow.postMessage(data, '*')";
        metapage.host().run(post, &[strange]).await?;
        stays_clean("hostile messages", page.frame()).await
    });
}

#[test]
fn a_hostile_address_or_relay_is_told_of_in_words() {
    scenario::run("a_hostile_address_or_relay_is_told_of_in_words", async |scenario| {
        let relay = Relay::start(&scenario).await?;
        let browser = scenario.browser().await?;
        let page = JobPage::new(browser.page());
        let job = hash::json(&json!({ "image": "alpine", "command": "ls" }));
        let encoded = hash::json(&json!({ "image": ATTACK, "command": ATTACK, "error": ATTACK }));
        let hashes = [
            // A queue's name, a job, a whole hash, parameters that cannot be read.
            format!("#?queue={ATTACK}&job={job}&autostart=true"),
            format!("#?queue=javascript:hit=1&job={job}"),
            format!("#?queue={}/<hostile-element>&job={job}", relay.url()),
            format!("#?queue=q&job={encoded}"),
            format!("#{ATTACK}"),
            format!("#?{ATTACK}={ATTACK}&job={ATTACK}&inputs={ATTACK}&definition={ATTACK}"),
        ];
        for hash in hashes {
            browser.open("about:blank").await?;
            browser.open(&format!("{}/{hash}", relay.url())).await?;
            wait::until("words", wait::SOON, async || match page.words().await {
                Ok(words) if !words.trim().is_empty() => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .await?;
            stays_clean(&hash, page.frame()).await?;
        }

        // A relay whose every text is hostile.
        let hostile = HostileRelay::start().await?;
        browser.open("about:blank").await?;
        let hash = format!("#?autostart=true&job={job}&queue={}/q1", hostile.url);
        browser.open(&format!("{}/{hash}", relay.url())).await?;
        page.shows("hostile-element").await?;
        // The only other origin is that of the queue in the address.
        let found = page.frame().run(TRACES, &[]).await?;
        let other = found
            .as_array()
            .into_iter()
            .flatten()
            .find(|found| **found != json!(format!("a request to {}", hostile.url)));
        assert_eq!(other, None, "{found}");
        // The key of the queue is in no header.
        assert_eq!(hostile.referers().await, Vec::<String>::new());
        Ok(())
    });
}

type Referers = std::sync::Arc<tokio::sync::Mutex<Vec<String>>>;

/// Refuses every submission and answers every request, each with hostile words; remembers what headers name the page.
struct HostileRelay {
    url: String,
    referers: Referers,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for HostileRelay {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn remember(State(referers): State<Referers>, request: Request, next: Next) -> Response {
    let referer = request.headers().get("referer").and_then(|value| value.to_str().ok());
    if let Some(referer) = referer.map(str::to_owned) {
        referers.lock().await.push(referer);
    }
    next.run(request).await
}

impl HostileRelay {
    async fn start() -> anyhow::Result<Self> {
        use axum::extract::WebSocketUpgrade;
        use axum::extract::ws::Message;
        use axum::routing::get;

        let referers = Referers::default();
        let say = |kind: &str, payload: Value| {
            Message::text(json!({ "type": kind, "payload": payload }).to_string())
        };
        let socket = async move |upgrade: WebSocketUpgrade| {
            upgrade.on_upgrade(async move |mut socket| {
                let hello = json!({ "relay": ATTACK, "epoch": ATTACK, "maxWatched": 256, "maxFrameBytes": 4096 });
                let _ = socket.send(say("Hello", hello)).await;
                while let Some(Ok(Message::Text(text))) = socket.recv().await {
                    let frame: Value = serde_json::from_str(&text).unwrap_or_default();
                    if frame["type"] == "StateChange" {
                        let error = json!({ "code": ATTACK, "title": ATTACK, "detail": ATTACK });
                        let done = json!({ "ref": frame["payload"]["ref"], "error": error });
                        let _ = socket.send(say("Done", done)).await;
                    }
                    let workers = json!({ "workers": [{ "id": ATTACK, "version": ATTACK, "cpus": 1, "gpus": 0, "time": 1 }] });
                    let _ = socket.send(say("Workers", workers)).await;
                }
            })
        };
        let router = axum::Router::new()
            .route("/q/q1/client", get(socket))
            .fallback(async || (axum::http::StatusCode::BAD_GATEWAY, ATTACK))
            .layer(axum::middleware::from_fn_with_state(referers.clone(), remember))
            .layer(tower_http::cors::CorsLayer::permissive());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let server = tokio::spawn(async move {
            // Ends with the scenario, which drops it.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { url, referers, server })
    }

    async fn referers(&self) -> Vec<String> {
        self.referers.lock().await.clone()
    }
}

#[test]
fn the_page_is_served_with_a_policy_that_runs_nothing_foreign() {
    scenario::run("the_page_is_served_with_a_policy_that_runs_nothing_foreign", async |scenario| {
        let relay = Relay::start(&scenario).await?;
        for path in ["/", "/j/0000000000000000000000000000000000000000000000000000000000000000"] {
            let answer = relay.client()?.get(path).await?;
            let header = |name: &str| {
                answer
                    .headers()
                    .get(name)
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or_default()
                    .to_owned()
            };
            let policy = header("content-security-policy");
            let directive = |name: &str| {
                let found = policy.split(';').map(str::trim).find_map(|part| part.strip_prefix(name));
                found.unwrap_or_default().trim().to_owned()
            };
            assert_eq!(directive("default-src"), "'none'", "{path}: {policy}");
            assert_eq!(directive("script-src"), "'self' 'wasm-unsafe-eval'", "{path}: {policy}");
            assert_eq!(directive("form-action"), "'none'", "{path}: {policy}");
            assert!(!policy.contains("unsafe-inline"), "{path}: {policy}");
            // The address holds the key of the queue.
            assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
            assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        }
        Ok(())
    });
}

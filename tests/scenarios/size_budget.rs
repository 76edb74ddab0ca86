//! What a visitor has to load stays small, and comes compressed and cached.

use std::time::Instant;

use anyhow::Context as _;
use dockframe_tests::relay::Relay;
use dockframe_tests::scenario;
use serde_json::Value;

/// All of the page as it is after decoding: wasm, JavaScript, style, document.
const RAW_BUDGET: u64 = 980_000;
/// The same as it travels from a release, in the best brotli. Debug builds, such as this test's, pack less well.
const BROTLI_BUDGET: u64 = 320_000;

/// The addresses of scripts, styles and modules that the browser loaded, and when the page could be used.
const LOADED: &str = r"
    return performance.getEntriesByType('resource')
        .filter((entry) => entry.name.startsWith(location.origin) && /\.(wasm|js|css)$/.test(entry.name))
        .map((entry) => new URL(entry.name).pathname);
";

/// Bytes that a release sends for this file.
fn as_released(file: &[u8]) -> anyhow::Result<u64> {
    let parameters = brotli::enc::BrotliEncoderParams { quality: 11, ..Default::default() };
    let mut packed = Vec::new();
    brotli::BrotliCompress(&mut &*file, &mut packed, &parameters)?;
    Ok(packed.len() as u64)
}

#[test]
fn the_page_stays_within_its_size() {
    scenario::run("the_page_stays_within_its_size", async |scenario| {
        let relay = Relay::start(&scenario).await?;
        let browser = scenario.browser().await?;
        let begin = Instant::now();
        browser.open(&format!("{}/", relay.url())).await?;
        let page = browser.page();
        dockframe_tests::wait::until("the page's first words", dockframe_tests::wait::SOON, async || {
            match page.text("main, [role=main]").await {
                Ok(Some(words)) if !words.is_empty() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        let usable = begin.elapsed();

        let loaded: Vec<String> = serde_json::from_value(page.run(LOADED, &[]).await?)?;
        assert!(loaded.iter().any(|path| path.ends_with(".wasm")), "{loaded:?}");
        let http = reqwest::Client::builder().build()?;
        let (mut raw, mut brotli) = (0, 0);
        for path in ["/".to_owned()].iter().chain(&loaded) {
            let url = format!("{}{path}", relay.url());
            let plain = http.get(&url).header("accept-encoding", "identity").send().await?;
            let plain = plain.bytes().await?;
            raw += plain.len() as u64;
            brotli += as_released(&plain)?;
            let packed = http.get(&url).header("accept-encoding", "br, gzip").send().await?;
            assert_eq!(
                packed.headers().get("content-encoding").map(|e| e.as_bytes()),
                Some(&b"br"[..]),
                "{path}"
            );
            if path != "/" {
                let caching =
                    packed.headers().get("cache-control").context("no caching")?.to_str()?.to_owned();
                assert!(caching.contains("immutable"), "{path}: {caching}");
            }
        }
        println!("page: {raw} bytes raw, {brotli} in brotli, usable after {usable:?}");
        assert!(raw <= RAW_BUDGET, "{raw} bytes raw, {RAW_BUDGET} allowed");
        assert!(brotli <= BROTLI_BUDGET, "{brotli} bytes in brotli, {BROTLI_BUDGET} allowed");
        Ok(())
    });
}

#[test]
fn any_page_may_frame_ours_and_nothing_foreign_runs_in_it() {
    scenario::run("any_page_may_frame_ours_and_nothing_foreign_runs_in_it", async |scenario| {
        let relay = Relay::start(&scenario).await?;
        let answer = relay.client()?.get("/").await?;
        let header =
            |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert_eq!(header("x-frame-options"), "");
        let policy = header("content-security-policy");
        assert!(
            policy.contains("script-src")
                && !policy.contains("'unsafe-inline'")
                && !policy.contains("'unsafe-eval'"),
            "{policy}"
        );
        assert!(
            !policy.contains("frame-ancestors 'none'") && !policy.contains("frame-ancestors 'self'"),
            "{policy}"
        );

        let definition = relay.client()?.get("/metaframe.json").await?;
        let origin =
            definition.headers().get("access-control-allow-origin").map(|value| value.as_bytes().to_vec());
        assert_eq!(origin.as_deref(), Some(&b"*"[..]), "hosts read it across origins");
        let definition: Value = definition.json().await?;
        assert_eq!(definition["version"], "2");
        assert_eq!(definition["allow"], "clipboard-write");
        Ok(())
    });
}

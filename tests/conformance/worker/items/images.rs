//! 40 to 44: images that are pulled, found and built.

use std::time::Duration;

use dockframe_tests::wait;
use serde_json::{Value, json};
use tokio::process::Command;

use super::Item;
use crate::check::{same, that};
use crate::registry::{item, unseen};
use crate::worker::bench::PATIENT;
use crate::worker::engine;
use crate::worker::relay::{Page, Way};
use crate::worker::setup::Test;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!("40a", Compat, "An image that no registry has is an Error that says so.", missing_image),
        item!("40b", Dockframe, "An image that is only here runs.", local_image),
        item!("40c", Dockframe, "An empty build block hides no image.", empty_build),
        unseen!(
            "40d",
            Dockframe,
            "Pull policies, credentials, one pull for many jobs, a registry that stalls.",
            "needs a registry: the scenarios registry show it"
        ),
        item!(
            "41a",
            Compat,
            "A Dockerfile in the job is built once; its lines are streamed, and not in the result.",
            inline_dockerfile
        ),
        item!(
            "41b",
            Compat,
            "A context in a tar.gz is built, with its wrapper directory and target.",
            archive_context
        ),
        item!("41c", Dockframe, "buildArgs take effect, and .dockerignore is heeded.", build_arguments),
        item!(
            "41d",
            Dockframe,
            "A Dockerfile in the job is found beside a buildContext, and so is one inside it.",
            build_context
        ),
        item!("41e", Dockframe, "Nothing is pushed: the image's name has no registry.", nothing_pushed),
        unseen!(
            "42",
            Dockframe,
            "Contexts of GitHub are tried in their order, and a moved branch is built again.",
            "needs github.com: the worker's own tests hold the addresses"
        ),
        item!(
            "43",
            Dockframe,
            "An archive that leads out of its directory is refused, and nothing written there.",
            hostile_archive
        ),
        item!("44", Dockframe, "A cancel during a build stops the build within seconds.", cancel_build),
    ]
}

/// A Dockerfile whose image is removed with the test.
fn dockerfile(t: &Test, more: &str) -> String {
    format!("FROM {}\nLABEL {}\n{more}\n", t.image(), t.image_label())
}

async fn missing_image(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let unknown = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
    bench.relay.page("/v2/", vec![Page::ok("{}")]);
    let page = Page {
        status: 404,
        headers: vec![("content-type", "application/json".to_owned())],
        ..Page::ok(unknown)
    };
    bench.relay.page("/v2/no/such/manifests/1", vec![page]);
    let image = format!("{}/no/such:1", bench.relay.url().trim_start_matches("http://"));
    let ended = bench.run(json!({ "image": image, "command": "true" })).await?.failed()?;
    that("no exit code", ended.code().is_none(), &ended.value)?;
    that(
        "a line about it",
        ended.text().contains("Failure to pull or build the docker image"),
        &ended.value,
    )?;
    let run: Vec<_> =
        bench.relay.logs(&ended.job).into_iter().filter(|logs| logs.step == "Running").collect();
    that("an empty run log", run.is_empty(), &run)
}

async fn local_image(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    // A name of a registry that nobody answers for.
    let name = format!("127.0.0.1:9/only-here-{}:1", t.nonce());
    engine::docker(&["tag", t.image(), &name]).await?;
    let ended = bench.run(json!({ "image": name, "command": "echo here" })).await;
    engine::docker(&["rmi", &name]).await?;
    same("its text", &ended?.good()?.stdout().as_str(), &"here\n")
}

async fn empty_build(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    for build in [json!({}), json!({ "dockerfile": "" }), Value::Null] {
        let ended = bench.run(t.job(json!({ "command": "echo here", "build": build }))).await?.good()?;
        same("its text", &ended.stdout().as_str(), &"here\n")?;
    }
    Ok(())
}

async fn inline_dockerfile(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let build = json!({ "dockerfile": dockerfile(&t, "RUN echo built-here > /built") });
    let definition = json!({ "build": build, "command": "cat /built" });
    let ended = bench.run(definition.clone()).await?.good()?;
    same("the program's first text", &ended.logs()[0].text.as_str(), &"built-here\n")?;
    let steps: Vec<String> = bench.relay.logs(&ended.job).into_iter().map(|logs| logs.step).collect();
    that("lines of the build", steps.iter().any(|step| step == "docker build"), &steps)?;
    let known = ["cloning repo", "docker build", "docker image pull", "docker image push", "Running"];
    that("no step of another name", steps.iter().all(|step| known.contains(&&**step)), &steps)?;
    let again = bench.run(definition).await?.good()?;
    let lines = bench.relay.build_text(&again.job);
    that("no second build", !lines.contains("RUN") && !lines.contains("built-here"), &lines)
}

/// A tar.gz of a folder that is made by a shell script, as the relay serves it.
async fn archive(t: &Test, name: &str, script: &str) -> anyhow::Result<Vec<u8>> {
    let folder = t.folder()?.join(format!("context-{name}"));
    std::fs::create_dir_all(&folder)?;
    let script = format!("set -e; {script}");
    let made = Command::new("sh").args(["-c", &script]).current_dir(&folder).output().await?;
    anyhow::ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(made.stdout)
}

async fn archive_context(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let text = format!(
        "FROM {image} AS wanted\nLABEL {label}\nCOPY hello /hello\nFROM {image} AS other\nRUN false\n",
        image = t.image(),
        label = t.image_label()
    );
    std::fs::write(t.folder()?.join("Dockerfile.stages"), text)?;
    let from = t.folder()?.join("Dockerfile.stages");
    let script = format!(
        "mkdir -p wrapper-1.0; cp {} wrapper-1.0/Dockerfile; echo from-archive > wrapper-1.0/hello; tar -czf - wrapper-1.0",
        from.display()
    );
    let bytes = archive(&t, "wrapped", &script).await?;
    let url = bench.relay.page("/archives/context.tar.gz", vec![Page::ok(bytes)]);
    let definition = json!({ "build": { "context": url, "target": "wanted" }, "command": "cat /hello" });
    let ended = bench.run(definition).await?.good()?;
    same("its text", &ended.stdout().as_str(), &"from-archive\n")
}

async fn build_arguments(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let script = "mkdir keep; echo a > keep/a; echo b > drop; echo drop > .dockerignore; tar -czf - .dockerignore keep drop";
    let bytes = archive(&t, "ignored", script).await?;
    let url = bench.relay.page("/archives/args.tar.gz", vec![Page::ok(bytes)]);
    let text = dockerfile(&t, "ARG WHO=nobody\nCOPY . /context/\nRUN echo hello $WHO > /hello");
    for arguments in [json!(["WHO=list"]), json!({ "WHO": "object" })] {
        let definition = json!({
            "build": { "context": url, "dockerfile": text, "buildArgs": arguments },
            "command": ["sh", "-c", "cat /hello; ls /context"],
        });
        let ended = bench.run(definition).await?.good()?;
        let who = if arguments.is_array() { "list" } else { "object" };
        let text = ended.stdout();
        that("the argument", text.starts_with(&format!("hello {who}\n")), &text)?;
        that("nothing that is ignored", text.contains("keep") && !text.contains("drop"), &text)?;
    }
    Ok(())
}

async fn build_context(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let inside = dockerfile(&t, "COPY hello /hello\nRUN echo inside >> /hello");
    std::fs::write(t.folder()?.join("Dockerfile.inside"), inside)?;
    let script = format!(
        "mkdir -p top/sub; echo in-sub > top/sub/hello; cp {} top/sub/Inside; tar -czf - top",
        t.folder()?.join("Dockerfile.inside").display()
    );
    let bytes = archive(&t, "sub", &script).await?;
    let url = bench.relay.page("/archives/sub.tar.gz", vec![Page::ok(bytes)]);
    let text = dockerfile(&t, "COPY hello /hello");
    for (build, wanted) in [
        (json!({ "context": url, "buildContext": "sub", "dockerfile": text }), "in-sub\n"),
        (json!({ "context": url, "buildContext": "sub", "filename": "Inside" }), "in-sub\ninside\n"),
        (json!({ "context": url, "buildContext": "sub", "filename": "sub/Inside" }), "in-sub\ninside\n"),
    ] {
        let ended = bench.run(json!({ "build": build, "command": "cat /hello" })).await?.good()?;
        same(&build.to_string(), &ended.stdout().as_str(), &wanted)?;
    }
    Ok(())
}

async fn nothing_pushed(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let build = json!({ "dockerfile": dockerfile(&t, "RUN true") });
    let ended = bench.run(json!({ "build": build, "command": "true" })).await?.good()?;
    let steps: Vec<String> = bench.relay.logs(&ended.job).into_iter().map(|logs| logs.step).collect();
    that("no step of pushing", !steps.iter().any(|step| step == "docker image push"), &steps)?;
    let filter = format!("label={}", t.image_label());
    let names = engine::docker(&["images", "--filter", &filter, "--format", "{{.Repository}}"]).await?;
    let named: Vec<&str> = names.lines().filter(|name| *name != "<none>").collect();
    that("a name without registry", !named.is_empty() && named.iter().all(|name| !name.contains('.')), &named)
}

async fn hostile_archive(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let mark = format!("escaped-{}", t.nonce());
    let cases = [
        (
            "up",
            format!("echo x > f; tar -czf - --absolute-names --transform 's,^f,../../../../tmp/{mark},' f"),
        ),
        ("absolute", format!("echo x > f; tar -czf - --absolute-names --transform 's,^f,/tmp/{mark},' f")),
        (
            "link",
            format!(
                "ln -s /tmp out; tar -cf a.tar out; rm out; mkdir out; echo x > out/{mark}; tar -rf a.tar out/{mark}; gzip -c a.tar"
            ),
        ),
        ("bomb", "head -c 300000000 /dev/zero > zeros; tar -czf - zeros; rm zeros".to_owned()),
    ];
    for (name, script) in cases {
        let bytes = archive(&t, name, &script).await?;
        let url = bench.relay.page(&format!("/archives/{name}.tar.gz"), vec![Page::ok(bytes)]);
        let build = json!({ "context": url, "dockerfile": dockerfile(&t, "RUN true") });
        let ended = bench.run(json!({ "build": build, "command": "true" })).await?;
        that(&format!("a refusal of {name}"), ended.reason() == "Error", &ended.value)?;
        let escaped = std::path::Path::new("/tmp").join(&mark).exists();
        that("nothing outside", !escaped, &name)?;
    }
    Ok(())
}

async fn cancel_build(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &[]).await?;
    let seconds = format!(
        "1{}",
        t.nonce().bytes().map(|byte| char::from(b'0' + byte % 10)).take(6).collect::<String>()
    );
    let build = json!({ "dockerfile": dockerfile(&t, &format!("RUN sleep {seconds}")) });
    let job = bench.submit(json!({ "build": build, "command": "true" }))?;
    // The classic builder's steps are containers; BuildKit's are processes that only the host's list shows.
    let building = async || {
        let all = engine::docker(&["ps", "--no-trunc", "--format", "{{.Command}}"]).await;
        let in_container = all.map(|all| all.contains(&seconds)).map_err(|error| error.to_string())?;
        Ok::<_, String>(in_container || is_process(&seconds))
    };
    wait::until("a build", PATIENT, async || if building().await? { Ok(()) } else { Err("none".to_owned()) })
        .await?;
    bench.relay.revoke(&job, 1, "cancelled", 1000)?;
    wait::until("the end of the build", Duration::from_secs(5), async || {
        if building().await? { Err("it runs".to_owned()) } else { Ok(()) }
    })
    .await?;
    bench.relay.never("report", Duration::from_secs(2), |relay| relay.finish(&job)).await
}

/// Whether a process of this machine has this number in its command line.
fn is_process(word: &str) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(word))
}

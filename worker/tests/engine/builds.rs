//! Images that are built for a job: from a Dockerfile's text, from archives, once for the same sources.

use dockframe_shared::job::{FinishReason, JobResult};
use dockframe_shared::protocol::{LogKind, LogStep, RevokeWhy};
use serde_json::{Value, json};

use super::bench::{Bench, docker};
use super::git::GitServer;

fn text(result: &JobResult) -> String {
    result.logs.iter().map(|line| line.text.as_str()).collect()
}

fn build_lines(bench: &Bench, lease: &str) -> Vec<String> {
    let logs = bench.relay.logs(lease).into_iter().filter(|logs| logs.step.kind() == LogKind::Build);
    logs.flat_map(|logs| logs.logs).map(|line| line.text).collect()
}

/// Removes what a test has built.
struct Built(Vec<String>);

impl Drop for Built {
    fn drop(&mut self) {
        for image in &self.0 {
            docker(&["rmi", "--force", image]);
        }
    }
}

fn built_by(bench: &Bench) -> Built {
    let listed =
        docker(&["images", "--filter", "reference=dockframe-build", "--format", "{{.Repository}}:{{.Tag}}"]);
    // Not by age: an image of cached steps is as old as they are. Each test labels what it builds.
    let marker = &bench.worker_id;
    let ours = String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .filter(|image| {
            let inspected = docker(&["inspect", "--format", "{{json .Config.Labels}}", image]);
            String::from_utf8_lossy(&inspected.stdout).contains(marker.as_str())
        })
        .map(str::to_owned)
        .collect();
    Built(ours)
}

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive =
        tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

async fn run(bench: &Bench, lease: &str, build: Value) -> (FinishReason, JobResult) {
    bench.relay.grant(lease, lease, json!({"build": build, "command": "cat /made"}));
    let (finished, result) = bench.relay.finished(lease).await;
    (finished.reason, result)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfiles_text_is_built_once_with_its_arguments_and_target() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    let dockerfile = format!(
        "FROM {} AS first\nLABEL made-by={}\nARG WHO=nobody\nRUN echo hello $WHO > /made\nFROM first\nRUN echo last > /made\n",
        bench.image, bench.worker_id
    );
    let build = json!({"dockerfile": dockerfile, "buildArgs": ["WHO=you"], "target": "first"});
    let (reason, result) = run(&bench, "l1", build.clone()).await;
    let _built = built_by(&bench);
    assert_eq!(
        (reason, text(&result).as_str()),
        (FinishReason::Success, "hello you\n"),
        "{:?}",
        build_lines(&bench, "l1")
    );
    assert!(build_lines(&bench, "l1").iter().any(|line| line.contains("RUN echo hello")));
    let (_, result) = run(&bench, "l2", build).await;
    assert_eq!(text(&result), "hello you\n");
    assert_eq!(build_lines(&bench, "l2"), Vec::<String>::new(), "no build, no lines");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_the_context_and_a_moved_one_builds_anew() {
    let bench = Bench::new().await;
    let dockerfile = format!("FROM {}\nLABEL made-by={}\nCOPY . /\n", bench.image, bench.worker_id);
    let context = archive(&[
        ("tool-1/sub/Dockerfile", &dockerfile),
        ("tool-1/sub/.dockerignore", "secret\n"),
        ("tool-1/sub/made", "first\n"),
        ("tool-1/sub/secret", "x"),
    ]);
    bench.relay.put_blob("context.tar.gz", &context);
    let address = format!("{}/f/context.tar.gz", bench.relay.address);
    let build = json!({"context": address, "buildContext": "sub"});
    let worker = bench.worker(&[]).await;
    let (reason, result) = run(&bench, "l1", build.clone()).await;
    let _built = built_by(&bench);
    assert_eq!(
        (reason, text(&result).as_str()),
        (FinishReason::Success, "first\n"),
        "{:?}",
        build_lines(&bench, "l1")
    );
    bench.relay.grant("l2", "l2", json!({"build": build, "command": "ls /"}));
    let (_, result) = bench.relay.finished("l2").await;
    assert!(!text(&result).contains("secret"), "{}", text(&result));
    worker.stop().await;

    // Another process knows nothing of when it looked last: same sources, no build; others, another image.
    let worker = bench.worker(&[]).await;
    let (_, _) = run(&bench, "l3", build.clone()).await;
    assert!(
        !build_lines(&bench, "l3").iter().any(|line| line.contains("COPY")),
        "{:?}",
        build_lines(&bench, "l3")
    );
    worker.stop().await;
    bench.relay.put_blob("context.tar.gz", &archive(&[("Dockerfile", &dockerfile), ("made", "second\n")]));
    let worker = bench.worker(&[]).await;
    let (_, result) = run(&bench, "l4", json!({"context": address, "buildContext": "."})).await;
    assert_eq!(text(&result), "second\n");
    let _built = built_by(&bench);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_repository_is_the_context_and_a_moved_branch_builds_anew() {
    let bench = Bench::new().await;
    let server = GitServer::start().await;
    let dockerfile = format!(
        "FROM {} AS first\nLABEL made-by={}\nARG WHO=nobody\nCOPY . /\nRUN echo $WHO >> /made\nFROM first\nRUN echo last > /made\n",
        bench.image, bench.worker_id
    );
    let files = [
        ("sub/Dockerfile", dockerfile.as_str()),
        ("sub/made", "first\n"),
        // No attribute takes anything out, or fills anything in.
        (".gitattributes", "* export-ignore filter=lfs text eol=crlf\n"),
        ("elsewhere", "x"),
    ];
    let first = server.commit("private/repo.git", "main", &files);
    let address = format!("git+http://me:s3cret-token@{}/private/repo.git", server.address);
    let block = |rest: &str| json!({"context": format!("{address}{rest}"), "buildArgs": ["WHO=you"], "target": "first"});
    let worker = bench.worker(&[]).await;
    let (reason, result) = run(&bench, "l1", block("#main:sub")).await;
    let _built = built_by(&bench);
    assert_eq!(
        (reason, text(&result).as_str()),
        (FinishReason::Success, "first\nyou\n"),
        "{:?} {:?}",
        result.error,
        build_lines(&bench, "l1")
    );
    let steps: Vec<LogStep> = bench.relay.logs("l1").into_iter().map(|logs| logs.step).collect();
    assert_eq!(steps.first(), Some(&LogStep::CloningRepo));
    bench.relay.grant("l2", "l2", json!({"build": block("#main:sub"), "command": "ls /"}));
    let (_, result) = bench.relay.finished("l2").await;
    assert!(!text(&result).contains("elsewhere"), "{}", text(&result));
    assert_eq!(build_lines(&bench, "l2"), Vec::<String>::new(), "not asked again so soon");
    worker.stop().await;

    // Another process knows nothing of when it looked last.
    let n_fetched = || server.n_asked("POST /private/repo.git/git-upload-pack");
    let fetched = n_fetched();
    let worker = bench.worker(&[]).await;
    run(&bench, "l3", block("#main:sub")).await;
    assert_eq!(n_fetched(), fetched + 1, "the refs are listed, and nothing is fetched");
    worker.stop().await;
    server.tag("private/repo.git", "v1");
    server.commit("private/repo.git", "main", &[("sub/made", "second\n")]);
    let worker = bench.worker(&[]).await;
    let (_, result) = run(&bench, "l4", block("#main:sub")).await;
    assert_eq!(text(&result), "second\nyou\n");
    let _built = built_by(&bench);
    for (lease, what, made) in [("tag", "#v1:sub", "first\nyou\n"), ("head", "#:sub", "second\nyou\n")] {
        let (_, result) = run(&bench, lease, block(what)).await;
        assert_eq!(text(&result), made, "{lease}: {:?}", result.error);
    }
    // A commit stays what it is, and may be asked for by its id. What has moved away is followed.
    let moved = format!("git+http://{}/moved/private/repo.git#{first}:sub", server.address);
    let moved = moved.replace("http://", "http://me:s3cret-token@");
    let (_, result) = run(&bench, "l5", json!({"context": moved, "target": "first"})).await;
    assert_eq!(text(&result), "first\nnobody\n", "{:?}", result.error);
    let _built = built_by(&bench);

    let heard = format!("{:?}", bench.relay.heard());
    for secret in ["s3cret-token", "bWU6czNjcmV0LXRva2Vu"] {
        assert!(!heard.contains(secret), "{heard}");
        for image in &built_by(&bench).0 {
            let shown = [docker(&["inspect", image]), docker(&["history", "--no-trunc", image])];
            assert!(shown.iter().all(|shown| !String::from_utf8_lossy(&shown.stdout).contains(secret)));
        }
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_repository_that_cannot_be_had_is_an_error_in_words() {
    let bench = Bench::new().await;
    let server = GitServer::start().await;
    let dockerfile = "FROM x\n";
    server.commit("repo.git", "main", &[("Dockerfile", dockerfile)]);
    server.commit("private/repo.git", "main", &[("Dockerfile", dockerfile)]);
    server.link("repo.git", "link", "../../etc/passwd");
    server.commit("repo.git", "link", &[]);
    let worker = bench.worker(&[]).await;
    let here = &server.address;
    for (lease, address, part) in [
        ("ref", format!("http://{here}/repo.git#none"), "the repository has no branch or tag"),
        ("commit", format!("http://{here}/repo.git#{}", "a".repeat(40)), "git cannot fetch the repository: "),
        ("directory", format!("http://{here}/repo.git#main:nowhere"), "there is no directory nowhere in it"),
        ("file", format!("http://{here}/repo.git#main:Dockerfile"), "there is no directory Dockerfile in it"),
        ("link", format!("http://{here}/repo.git#link"), "is a link to somewhere else"),
        ("gone", format!("http://{here}/gone.git"), "the server answered 404"),
        ("closed", format!("http://me:s3cret-wrong@{here}/private/repo.git"), "the server answered 401"),
        ("page", format!("git+http://{here}/page"), "no git repository is served there"),
        ("option", format!("http://{here}/repo.git#--upload-pack=x"), "no ref begins with `-`"),
        ("ssh", format!("ssh://git@{here}/repo.git"), "use https"),
        ("short", "git@git.example:repo.git".to_owned(), "use https"),
    ] {
        let (reason, result) = run(&bench, lease, json!({"context": address})).await;
        assert_eq!(reason, FinishReason::Error);
        let error = result.error.unwrap().to_string();
        assert!(error.contains(part), "{lease}: {error}");
    }
    assert!(!format!("{:?}", bench.relay.heard()).contains("s3cret"));
    bench.clean().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_build_is_an_error_with_its_output_and_an_empty_run_log() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    let dockerfile = format!("FROM {}\nRUN echo before && exit 7\n", bench.image);
    let (reason, result) = run(&bench, "l1", json!({"dockerfile": dockerfile})).await;
    assert_eq!((reason, result.status_code), (FinishReason::Error, None));
    let text = text(&result);
    assert!(text.contains("before") && text.contains("Failure to build the docker image"), "{text}");
    assert!(bench.relay.run_lines("l1").is_empty());
    for (lease, build, part) in [
        ("nothing", json!({"filename": "x"}), "Missing Dockerfile or context"),
        (
            "gone",
            json!({"context": format!("{}/f/none.tar.gz", bench.relay.address)}),
            "the server answered 404",
        ),
        ("github", json!({"context": "https://github.com/only"}), "Invalid GitHub URL"),
        ("escape", json!({"dockerfile": "FROM x", "buildContext": "../.."}), "build.buildContext"),
    ] {
        let (reason, result) = run(&bench, lease, build).await;
        assert_eq!(reason, FinishReason::Error);
        let error = result.error.unwrap().to_string();
        assert!(error.contains(part), "{lease}: {error}");
    }
    let steps: Vec<LogStep> = bench.relay.logs("gone").into_iter().map(|logs| logs.step).collect();
    assert_eq!(steps, [LogStep::CloningRepo]);
    bench.clean().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfile_may_use_what_only_buildkit_knows() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    let dockerfile = format!(
        "FROM {}\nLABEL made-by={}\nRUN --mount=type=cache,target=/kept echo from the cache mount > /kept/x && cp /kept/x /made\n",
        bench.image, bench.worker_id
    );
    let (reason, result) = run(&bench, "l1", json!({"dockerfile": dockerfile})).await;
    let _built = built_by(&bench);
    assert_eq!(
        (reason, text(&result).as_str()),
        (FinishReason::Success, "from the cache mount\n"),
        "{:?}",
        build_lines(&bench, "l1")
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_build_stops() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    let dockerfile = format!("FROM {}\nRUN echo begun {} && sleep 54321\n", bench.image, bench.worker_id);
    bench.relay.grant("l1", "l1", json!({"build": {"dockerfile": dockerfile}, "command": "true"}));
    let sleeps = || {
        let found = std::process::Command::new("pgrep").args(["-f", "sleep 5432[1]"]).output().unwrap();
        found.status.success()
    };
    super::bench::eventually("the build runs", sleeps).await;
    bench.relay.revoke("l1", RevokeWhy::Cancelled, 0);
    super::bench::eventually("the build is stopped", || !sleeps()).await;
    bench.clean().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_job_takes_the_image_that_was_built_for_it_along() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    let dockerfile = format!("FROM {}\nLABEL made-by={}\nRUN echo x > /made\n", bench.image, bench.worker_id);
    bench.relay.grant(
        "l1",
        "l1",
        json!({"build": {"dockerfile": dockerfile}, "command": ["sh", "-c", "echo up; sleep 100"]}),
    );
    bench.relay.log_with("l1", "up").await;
    let built = built_by(&bench);
    assert_eq!(built.0.len(), 1);
    bench.relay.revoke("l1", RevokeWhy::Deleted, 0);
    super::bench::eventually("the image is gone", || built_by(&bench).0.is_empty()).await;
    bench.clean().await;
    worker.stop().await;
}

//! What a newcomer runs into is said in one line that tells what to do.

use std::net::TcpListener;

use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::relay::Relay;
use dockframe_tests::scenario::{self, Finished};
use dockframe_tests::worker::Worker;

/// The one line of a failed command that is for people; lines of the log may stand before it.
fn complaint(finished: &Finished) -> &str {
    let line = finished.stderr.lines().last().unwrap_or_default();
    line.strip_prefix("dockframe: ")
        .unwrap_or_else(|| panic!("no complaint at the end of: {}", finished.stderr))
}

#[test]
fn a_port_in_use_is_named_with_a_way_out() {
    scenario::run("a_port_in_use_is_named_with_a_way_out", async |scenario| {
        let taken = TcpListener::bind("127.0.0.1:0")?;
        let address = taken.local_addr()?.to_string();
        let data = scenario.folder().join("data").display().to_string();
        let run = scenario.dockframe_output(&["up", "--listen", &address, "--data-dir", &data]).await?;
        assert_eq!(run.code, Some(1), "{}", run.stderr);
        let line = complaint(&run);
        assert!(line.contains(&taken.local_addr()?.port().to_string()), "{line}");
        assert!(line.contains("in use") && line.contains("--listen"), "{line}");
        Ok(())
    });
}

#[test]
fn a_missing_docker_engine_is_said_with_a_way_out() {
    scenario::run("a_missing_docker_engine_is_said_with_a_way_out", async |scenario| {
        let data = scenario.folder().join("data").display().to_string();
        let mut command = scenario.dockframe(&["up", "--listen", "127.0.0.1:0", "--data-dir", &data])?;
        command.env("DOCKER_HOST", format!("unix://{}", scenario.folder().join("no.sock").display()));
        let run = scenario.output(command).await?;
        assert_eq!(run.code, Some(1), "{}", run.stderr);
        let line = complaint(&run);
        assert!(line.contains("Docker") && line.contains("no.sock"), "{line}");
        Ok(())
    });
}

#[test]
fn a_missing_image_is_said_with_its_name() {
    scenario::run("a_missing_image_is_said_with_its_name", async |scenario| {
        docker::engine().await?;
        let relay = Relay::start(&scenario).await?;
        let _worker = Worker::start(&scenario, &relay.url()).await?;
        let (url, queue) = (relay.url(), scenario.queue());
        // On no registry, and where there is no network not to be asked for either.
        let image = "dockframe.test/no-such-image:1";
        let run = scenario
            .dockframe_output(&["job", "run", "--api-address", &url, "-q", queue, image, "--", "true"])
            .await?;
        assert_eq!(run.code, Some(125), "as `docker run` says it: {}", run.stderr);
        assert!(run.stderr.contains(image), "{}", run.stderr);
        Ok(())
    });
}

#[test]
fn a_relay_that_is_not_there_is_said_with_its_address() {
    scenario::run("a_relay_that_is_not_there_is_said_with_its_address", async |scenario| {
        let nobody = format!("http://{}", dockframe_tests::ports::free()?);
        let run = scenario
            .dockframe_output(&["job", "run", "--api-address", &nobody, BUSYBOX, "--", "true"])
            .await?;
        assert_eq!(run.code, Some(1), "{}", run.stderr);
        let line = complaint(&run);
        assert!(line.contains(&nobody), "{line}");
        Ok(())
    });
}

#[test]
fn a_program_that_the_image_lacks_is_said() {
    scenario::run("a_program_that_the_image_lacks_is_said", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let relay = Relay::start(&scenario).await?;
        let _worker = Worker::start(&scenario, &relay.url()).await?;
        let (url, queue) = (relay.url(), scenario.queue());
        let run = scenario
            .dockframe_output(&[
                "job",
                "run",
                "--api-address",
                &url,
                "-q",
                queue,
                BUSYBOX,
                "--",
                "no-such-program",
            ])
            .await?;
        assert_eq!(run.code, Some(125), "{}", run.stderr);
        assert!(run.stderr.contains("no-such-program"), "{}", run.stderr);
        Ok(())
    });
}

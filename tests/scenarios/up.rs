//! `dockframe up` as a newcomer uses it: one process, a job from the terminal, and the link that it prints.

use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::pages::JobPage;
use dockframe_tests::relay::Relay;
use dockframe_tests::scenario;

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
        page.shows("Finished").await?;

        up.stop().await
    });
}

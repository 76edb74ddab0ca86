//! 45 to 49: the program's text, live and in the result.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Item;
use crate::check::{same, that};
use crate::registry::item;
use crate::worker::bench::PATIENT;
use crate::worker::engine;
use crate::worker::relay::{Line, Way};
use crate::worker::setup::Test;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "45",
            Dockframe,
            "20 MB of text: head and tail are kept, what was left out is said, and nothing stalls.",
            flood
        )
        .long(),
        item!("46", Dockframe, "1 MiB on both streams loses nothing.", both_streams),
        item!(
            "47a",
            Compat,
            "Newlines and the stderr mark are kept, and a last line without newline arrives.",
            plain_lines
        ),
        item!(
            "47b",
            Dockframe,
            "A character that was cut by the pipe arrives whole, and tuples hold whole lines.",
            cut_characters
        ),
        item!("48a", Compat, "A line is streamed while the program runs.", live_line),
        item!("48b", Dockframe, "Many lines make few messages.", few_messages),
        item!(
            "49",
            Dockframe,
            "Lines of a time without connection arrive after the registration.",
            lines_of_a_cut
        )
        .long(),
    ]
}

fn text_of(lines: &[Line], is_stderr: bool) -> String {
    lines.iter().filter(|line| line.is_stderr == is_stderr).map(|line| line.text.as_str()).collect()
}

async fn flood(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let script = "echo the first line; yes 0123456789012345678901234567890123456789012345678 | head -n 400000; echo the last line";
    let ended = bench.run(t.sh(script)).await?.good()?;
    let logs = ended.logs();
    let size: usize = logs.iter().map(|line| line.text.len()).sum();
    that("at most 3 MiB and a little", size < (3 << 20) + 4096, &size)?;
    that("more than 2 MiB", size > 2 << 20, &size)?;
    that("the head", logs[0].text.starts_with("the first line\n"), &logs[0].text.get(..40))?;
    that("the tail", logs.last().is_some_and(|line| line.text.ends_with("the last line\n")), &logs.len())?;
    let marker = logs.iter().find(|line| line.is_stderr && line.text.contains("omitted"));
    that("a mark of what was left out", marker.is_some(), &logs.len())
}

async fn both_streams(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let script = "yes out456789012345 | head -n 65536 & yes err456789012345 | head -n 65536 >&2; wait";
    let ended = bench.run(t.sh(script)).await?.good()?;
    let logs = ended.logs();
    for (is_stderr, line) in [(false, "out456789012345\n"), (true, "err456789012345\n")] {
        let text = text_of(&logs, is_stderr);
        same("bytes in the result", &text.len(), &(1 << 20))?;
        that("whole lines", text == line.repeat(65536), &text.get(..64))?;
        let streamed: Vec<Line> = bench
            .relay
            .logs(&ended.job)
            .into_iter()
            .filter(|logs| logs.step == "Running")
            .flat_map(|logs| logs.lines)
            .collect();
        same("bytes in the stream", &text_of(&streamed, is_stderr).len(), &(1 << 20))?;
    }
    Ok(())
}

async fn plain_lines(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let ended = bench.run(t.sh("echo out; echo err >&2; printf last")).await?.good()?;
    let logs = ended.logs();
    same("stdout", &text_of(&logs, false).as_str(), &"out\nlast")?;
    same("stderr", &text_of(&logs, true).as_str(), &"err\n")?;
    let streamed: Vec<Line> = bench.relay.logs(&ended.job).into_iter().flat_map(|logs| logs.lines).collect();
    same("streamed stdout", &text_of(&streamed, false).as_str(), &"out\nlast")?;
    same("streamed stderr", &text_of(&streamed, true).as_str(), &"err\n")
}

async fn cut_characters(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let script = "printf 'caf\\303'; sleep 0.05; printf '\\251\\n'; for n in 1 2 3 4 5 6 7 8 9; do printf 'part '; printf 'rest\\n'; done; printf 'bad \\377 byte\\n'";
    let ended = bench.run(t.sh(script)).await?.good()?;
    let wanted = format!("café\n{}bad \u{fffd} byte\n", "part rest\n".repeat(9));
    same("the text", &ended.stdout(), &wanted)?;
    let logs = ended.logs();
    that("whole lines in each tuple", logs.iter().all(|line| line.text.ends_with('\n')), &logs)
}

async fn live_line(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let job = bench.submit(t.sh("echo early; sleep 600"))?;
    bench.relay.prints(&job, "early", PATIENT).await?;
    that("no end yet", bench.relay.finish(&job).is_none(), &job)
}

async fn few_messages(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let ended = bench
        .run(t.sh("n=0; while [ $n -lt 3000 ]; do echo line $n; n=$((n+1)); usleep 500; done"))
        .await?
        .good()?;
    let frames = bench.relay.logs(&ended.job);
    let (Some(first), Some(last)) = (frames.first(), frames.last()) else { anyhow::bail!("no frames") };
    let seconds = last.at.duration_since(first.at).as_secs_f64().max(1.0);
    let rate = frames.len() as f64 / seconds;
    that("at most 20 messages a second", rate <= 22.0, &(frames.len(), seconds))?;
    same("lines", &bench.relay.text(&ended.job).lines().count(), &3000)
}

async fn lines_of_a_cut(t: Test) -> anyhow::Result<()> {
    let mut bench = t.bench(Way::Old, &[]).await?;
    let job = bench.submit(
        t.sh("n=0; until [ -e /tmp/go ]; do echo line $n; n=$((n+1)); sleep 0.1; done; echo count $n"),
    )?;
    bench.relay.prints(&job, "line 5\n", PATIENT).await?;
    let container = bench.container(&job).await?;
    bench.relay.go_down();
    let begin = Instant::now();
    // The strength of the test: so many lines have nowhere to go.
    while begin.elapsed() < Duration::from_secs(12) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let links = bench.relay.n_links();
    bench.relay.come_up().await?;
    let back = bench.relay.registered_on(links, PATIENT).await?;
    engine::docker(&["exec", &container, "touch", "/tmp/go"]).await?;
    let ended = bench.ended(&job).await?.good()?;
    let first = bench.relay.logs(&job).into_iter().find(|logs| logs.link >= links);
    that("lines after the registration", first.is_some_and(|logs| logs.at >= back.at), &links)?;
    let text = ended.stdout();
    let count: usize =
        text.lines().last().and_then(|line| line.strip_prefix("count ")?.parse().ok()).unwrap_or(0);
    let wanted: String =
        (0..count).map(|n| format!("line {n}\n")).chain([format!("count {count}\n")]).collect();
    same("the result", &text, &wanted)?;
    let streamed = bench.relay.text(&job);
    for n in 0..count {
        that("each line in the stream", streamed.contains(&format!("line {n}\n")), &(n, count))?;
    }
    same("the whole job", &ended.result()["isTimedOut"], &json!(false))
}

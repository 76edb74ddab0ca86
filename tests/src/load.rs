//! Jobs that count themselves, for scenarios that break things meanwhile: how many were lost, how many results came
//! twice, and what was left behind.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Client;
use crate::docker::{self, BUSYBOX};
use crate::wait;
use crate::worker::Worker;

/// Number of rounds that `make test` takes the time for. `DOCKFRAME_FAULT_ROUNDS=20` is a real trial.
const FEW_ROUNDS: usize = 2;

/// What an Engine that was away could not remove, the worker removes once two looks have seen it, and one look every
/// 30 s may find the Engine away again.
const CLEARED_WITHIN: Duration = Duration::from_secs(120);

/// How many rounds to go.
#[must_use]
pub fn rounds() -> usize {
    let wanted = std::env::var("DOCKFRAME_FAULT_ROUNDS").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(FEW_ROUNDS)
}

/// Whether a real trial is wanted.
#[must_use]
pub fn is_full() -> bool {
    rounds() > FEW_ROUNDS
}

/// Jobs of one queue, by id, with the first result that was seen of each.
#[derive(Debug)]
pub struct Load {
    client: Client,
    queue: String,
    jobs: BTreeMap<String, Option<Value>>,
}

impl Load {
    #[must_use]
    pub fn new(client: Client, queue: &str) -> Self {
        Self { client, queue: queue.to_owned(), jobs: BTreeMap::new() }
    }

    /// Submits jobs that run between 0 and `longest` and leave text and a file. A relay that is away is asked again:
    /// what it has acknowledged is what counts.
    ///
    /// # Errors
    /// The relay refuses.
    pub async fn submit(&mut self, n: usize, longest: Duration) -> anyhow::Result<()> {
        for _ in 0..n {
            let number = self.jobs.len();
            let seconds = rand::random_range(0.0..longest.as_secs_f64());
            let script = format!(
                "echo start >> /job-cache/{queue}-{number}; echo begin {number}; sleep {seconds:.2}; \
                 echo {number} > /outputs/number; echo end {number}",
                queue = self.queue
            );
            let definition = json!({ "image": BUSYBOX, "command": ["sh", "-c", script] });
            let id = wait::until("an acknowledged job", wait::PATIENT, async || {
                self.client.submit(&self.queue, &definition).await.map_err(|error| error.to_string())
            })
            .await?;
            self.jobs.insert(id, None);
        }
        Ok(())
    }

    /// Waits until every job has its whole result.
    ///
    /// # Errors
    /// One is lost: it has none within the limit, or a wrong one.
    pub async fn all_finish(&mut self, limit: Duration) -> anyhow::Result<()> {
        let (client, queue) = (&self.client, &self.queue);
        let numbers: Vec<String> = self.jobs.keys().cloned().collect();
        wait::until("the end of all jobs", limit, async || {
            let mut open = Vec::new();
            for id in &numbers {
                let seen = self.jobs.get_mut(id).ok_or("a job")?;
                if seen.is_some() {
                    continue;
                }
                match client.result(queue, id).await {
                    Ok(Some(result)) => *seen = Some(result),
                    Ok(None) => open.push(id.clone()),
                    Err(error) => return Err(error.to_string()),
                }
            }
            if open.is_empty() { Ok(()) } else { Err(format!("{} open: {open:?}", open.len())) }
        })
        .await?;
        for (id, job) in &self.jobs {
            let result = job.as_ref().map(|job| &job["finished"]["result"]);
            let Some(result) = result else { continue };
            let logs = result["logs"].as_array().into_iter().flatten().filter_map(|line| line[0].as_str());
            let text: String = logs.collect();
            let all_lines =
                text.starts_with("begin ") && text.contains("\nend ") && text.lines().count() == 2;
            // An Engine that is killed loses what it has read and not written; then the result has to say so.
            let says_what_is_missing = text.contains("the Docker Engine was restarted meanwhile");
            let is_whole = result["StatusCode"] == 0
                && (all_lines || says_what_is_missing)
                && result["outputs"]["number"]["value"].is_string();
            anyhow::ensure!(is_whole, "{id} has no whole result: {job:?}");
        }
        Ok(())
    }

    /// That no result was replaced by another one after it was seen.
    ///
    /// # Errors
    /// One was.
    pub async fn none_changed(&self) -> anyhow::Result<()> {
        for (id, seen) in &self.jobs {
            let now = self.client.result(&self.queue, id).await?;
            anyhow::ensure!(now == *seen, "{id} was finished twice: {seen:?}, then {now:?}");
        }
        Ok(())
    }

    /// How often each job was started, by its own mark in the cache that all jobs of an Engine share.
    ///
    /// # Errors
    /// The Engine does not answer.
    pub async fn starts(&self, engine: Option<&str>) -> anyhow::Result<Vec<usize>> {
        let script = format!(
            "cd /c; n=0; while [ $n -lt {} ]; do wc -l < {queue}-$n 2>/dev/null || echo 0; n=$((n+1)); done; rm -f {queue}-*",
            self.jobs.len(),
            queue = self.queue
        );
        let volume = "metaframe-container-worker-cache:/c";
        let words = ["run", "--rm", "--network=none", "-v", volume, BUSYBOX, "sh", "-c", &script];
        let text = docker::run_at(engine, &words).await?;
        Ok(text.lines().filter_map(|line| line.trim().parse().ok()).collect())
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }
}

/// That a worker has left neither containers nor files of runs, once the relay has all it sent.
///
/// # Errors
/// Something is left.
pub async fn nothing_left(worker: &Worker, engine: Option<&str>) -> anyhow::Result<()> {
    wait::until("no container and no run", CLEARED_WITHIN, async || {
        let left = docker::containers_at(engine, worker.id()).await.map_err(|error| error.to_string())?;
        let runs = runs(worker.data());
        if left.is_empty() && runs.is_empty() { Ok(()) } else { Err(format!("{left:?}, {runs:?}")) }
    })
    .await
}

/// Directories of runs below a data directory.
fn runs(data: &Path) -> Vec<String> {
    let jobs = std::fs::read_dir(data.join("remote/j")).into_iter().flatten().flatten();
    let runs = jobs.flat_map(|job| std::fs::read_dir(job.path()).into_iter().flatten().flatten());
    runs.map(|run| run.path().display().to_string()).collect()
}

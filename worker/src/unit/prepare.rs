//! The first half of a job: inputs and image side by side, and what the container is told.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use dockframe_shared::command::TakenWhole;
use dockframe_shared::job::LogLine;
use dockframe_shared::protocol::{LeaseGrant, LogKind, LogStep, Phase};
use tokio::sync::mpsc;

use super::{Break, Run, Shared, Unit, ordered};
use crate::clock;
use crate::config::Network;
use crate::executor::{ContainerSpec, EngineError, Executor, Exit, StartError};
use crate::files::content::Content;
use crate::files::inputs;
use crate::files::names::job_label;
use crate::journal::Position;
use crate::plan::{ImageSource, JobPlan, MountedFile};
use crate::result::{Ending, millis};
use crate::secrets::SecretForm;

/// Beginning of the labels by which containers are known, also to other programs.
const LABEL: &str = "container.mtfm.io";

impl<E: Executor> Unit<E> {
    /// Inputs and image, side by side.
    pub(super) async fn prepare(
        &mut self,
        name: &str,
        mut plan: JobPlan,
        source: ImageSource,
    ) -> Result<ContainerSpec, Break> {
        let secrets = self.write_secrets(name, &mut plan).await?;
        let (lines, mut build_lines) = mpsc::channel(256);
        let shared = Arc::clone(&self.shared);
        let directory = self.run.directory.clone();
        let targets: Vec<String> = plan.mounted.iter().map(|file| file.target.clone()).collect();
        let input_limit = self.shrunk(self.shared.limits.inputs);
        let image_limit = self.shrunk(match source {
            ImageSource::Reference(_) => self.shared.limits.pull,
            ImageSource::Build(_) => self.shared.limits.build,
        });
        let (inputs, mounted, platform) = (plan.inputs.clone(), plan.mounted.clone(), plan.platform.clone());

        self.phase(Phase::Inputs).await;
        let begun = Instant::now();
        let writing = async {
            let all = inputs::write_all(&shared.sources, &directory, inputs, mounted, shared.owner);
            let written = match tokio::time::timeout(input_limit, all).await {
                Ok(written) => written.map_err(|error| Ending::InputFailed { error: error.to_string() }),
                Err(_) => Err(Ending::PhaseTimedOut { phase: "fetching inputs", limit: input_limit }),
            };
            written.map(|()| begun.elapsed())
        };
        let obtaining = async {
            let image = shared.executor.image(&source, platform.as_deref(), &lines);
            match tokio::time::timeout(image_limit, image).await {
                Ok(image) => {
                    image.map(|image| (image, begun.elapsed())).map_err(|error| Ending::ImageFailed { error })
                }
                Err(_) => {
                    Err(Ending::PhaseTimedOut { phase: "pulling or building the image", limit: image_limit })
                }
            }
        };
        tokio::pin!(writing, obtaining);
        let (mut written, mut obtained) = (None, None);
        while written.is_none() || obtained.is_none() {
            tokio::select! {
                biased;
                order = ordered(&mut self.stop) => return Err(Break::Stopped(order)),
                Some(first) = build_lines.recv() => {
                    let mut batch = vec![first];
                    while let Ok(more) = build_lines.try_recv() {
                        batch.push(more);
                    }
                    self.tell_build_lines(batch).await;
                }
                result = &mut writing, if written.is_none() => {
                    written = Some(result?);
                    if obtained.is_none() {
                        self.phase(Phase::Image).await;
                    }
                }
                result = &mut obtaining, if obtained.is_none() => {
                    // What was said before a failure belongs to it.
                    let mut batch = Vec::new();
                    while let Ok(more) = build_lines.try_recv() {
                        batch.push(more);
                    }
                    self.tell_build_lines(batch).await;
                    obtained = Some(result?);
                }
            }
        }
        self.phases.insert("inputs".to_owned(), millis(written.unwrap_or_default()));
        if let Some((image, took)) = obtained {
            self.phases.insert("image".to_owned(), millis(took));
            self.image = image;
        }
        let mut spec = self.spec(name, plan, targets);
        spec.mounted.extend(secrets);
        Ok(spec)
    }

    /// Secrets that are wanted as files: written to memory where that is shared with the Engine's host, else left to
    /// the plan, to be written with the other files. Which files in memory are to be mounted where.
    async fn write_secrets(&self, name: &str, plan: &mut JobPlan) -> Result<Vec<(PathBuf, String)>, Break> {
        let wanted = self.shared.secrets.of(&plan.secrets).filter(|(wish, _)| wish.form == SecretForm::File);
        let secrets: Vec<(String, String)> =
            wanted.map(|(wish, value)| (format!("/run/secrets/{}", wish.name), value.to_owned())).collect();
        if secrets.is_empty() {
            return Ok(Vec::new());
        }
        let Some(files) = self.shared.secret_files.clone() else {
            plan.mounted.extend(
                secrets
                    .into_iter()
                    .map(|(target, value)| MountedFile { target, content: Content::Bytes(value.into()) }),
            );
            return Ok(Vec::new());
        };
        let (name, owner) = (name.to_owned(), self.shared.owner);
        let writing = move || {
            // Of an earlier try.
            files.remove(&name);
            let paths = files.write(&name, &secrets, owner)?;
            let targets = secrets.into_iter().map(|(target, _)| target);
            std::io::Result::Ok(paths.into_iter().zip(targets).collect())
        };
        match tokio::task::spawn_blocking(writing).await {
            Ok(Ok(mounted)) => Ok(mounted),
            Ok(Err(error)) => Err(Break::machine(format!("secrets cannot be written to memory: {error}"))),
            Err(error) => Err(Break::machine(format!("secrets cannot be written to memory: {error}"))),
        }
    }

    fn spec(&self, name: &str, plan: JobPlan, targets: Vec<String>) -> ContainerSpec {
        let run = &self.run;
        let shared = &self.shared;
        let mounted = run.directory.mounted();
        let memory_bytes = plan.wishes.memory_bytes.or(shared.default_memory_bytes);
        let network = if plan.network_none { Network::None } else { shared.network };
        ContainerSpec {
            name: name.to_owned(),
            image: self.image.clone(),
            env: environment(&plan, run, shared, memory_bytes),
            labels: labels(run, shared, self.deadline),
            command: plan.command,
            entrypoint: plan.entrypoint,
            workdir: plan.workdir,
            shm_bytes: plan.shm_bytes,
            cpus: run.share.slots,
            memory_bytes,
            gpus: run.share.gpus.clone(),
            network,
            inputs: run.directory.inputs(),
            outputs: run.directory.outputs(),
            mounted: targets
                .into_iter()
                .enumerate()
                .map(|(number, target)| (mounted.join(number.to_string()), target))
                .collect(),
            cache_volume: run.cache_volume.clone(),
        }
    }

    /// Lines of one step go together.
    async fn tell_build_lines(&mut self, batch: Vec<(LogStep, LogLine)>) {
        let mut batch = batch.into_iter().peekable();
        while let Some((step, line)) = batch.next() {
            debug_assert_eq!(step.kind(), LogKind::Build);
            let mut lines = vec![line];
            while let Some((_, line)) = batch.next_if(|(next, _)| *next == step) {
                lines.push(line);
            }
            for line in &lines {
                self.build_log.push(line.clone());
            }
            self.tell_logs(step, lines, Position::default()).await;
        }
    }
}

/// In the order of `worker` 8.3; of a repeated name the later wins.
fn environment<E>(
    plan: &JobPlan,
    run: &Run,
    shared: &Shared<E>,
    memory_bytes: Option<u64>,
) -> Vec<(String, String)> {
    let id = run.grant.job_id.as_str();
    let base = format!("{}/j/{id}", shared.relay);
    let mut env = plan.env.clone();
    for (wish, value) in shared.secrets.of(&plan.secrets) {
        if wish.form == SecretForm::Variable {
            env.push((wish.name.clone(), value.to_owned()));
        }
    }
    let mut set = |name: &str, value: String| env.push((name.to_owned(), value));
    set("JOB_ID", id.to_owned());
    set("JOB_INPUTS", "/inputs".to_owned());
    set("JOB_OUTPUTS", "/outputs".to_owned());
    set("JOB_CACHE", "/job-cache".to_owned());
    set("JOB_URL_PREFIX", base.clone());
    set("JOB_OUTPUTS_URL_PREFIX", format!("{base}/outputs/"));
    set("JOB_INPUTS_URL_PREFIX", format!("{base}/inputs/"));
    if run.share.gpus.is_empty() {
        // Images made for GPUs ask for all of them; a job that asked for none must see none.
        set("NVIDIA_VISIBLE_DEVICES", "void".to_owned());
    } else {
        let indices: Vec<String> = (0..run.share.gpus.len()).map(|index| index.to_string()).collect();
        set("CUDA_VISIBLE_DEVICES", indices.join(","));
    }
    let extras = [
        ("JOB_ATTEMPT", Some(run.grant.attempt.to_string())),
        ("JOB_CPUS", Some(run.share.slots.to_string())),
        (
            "JOB_MEMORY_BYTES",
            memory_bytes.or(Some(run.share.memory_bytes).filter(|b| *b > 0)).map(|b| b.to_string()),
        ),
        // Programs that count the host's cores would fight over the few that the job may use.
        ("OMP_NUM_THREADS", shared.enforce_cpus.then(|| run.share.slots.ceil().max(1.0).to_string())),
    ];
    for (name, value) in extras {
        if let Some(value) = value
            && !plan.env.iter().any(|(known, _)| known == name)
        {
            env.push((name.to_owned(), value));
        }
    }
    env
}

fn labels<E>(run: &Run, shared: &Shared<E>, deadline: Instant) -> Vec<(String, String)> {
    let queue = if shared.hide_queue { run.queue.digest().to_hex() } else { run.queue.reveal().to_owned() };
    let left =
        i64::try_from(deadline.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(i64::MAX);
    let label = |name: &str, value: String| (format!("{LABEL}/{name}"), value);
    let lock = shared.host_lock.as_ref().map(|lock| label("host-lock", lock.display().to_string()));
    let mut labels = vec![
        (LABEL.to_owned(), "true".to_owned()),
        label("id", job_label(&run.grant.job_id)),
        label("queue", queue),
        label("worker", shared.worker().to_string()),
        label("instance", shared.instance.to_string()),
        label("deadline", clock::now().plus_millis(left).as_millis().to_string()),
        label("attempt", run.grant.attempt.to_string()),
    ];
    labels.extend(lock);
    labels
}

/// A start that failed although the Engine says that it did not: its init found no program (`worker` 12.2).
pub(super) fn failed_exec(exit: Exit, logs: &[LogLine]) -> Option<StartError> {
    let [only] = logs else { return None };
    let line = only.text.trim_end();
    let is_init = matches!(exit.code, 126 | 127) && line.starts_with("[FATAL tini (") && !line.contains('\n');
    let (_, message) = line.split_once(")] ").filter(|_| is_init && line.contains(" failed: "))?;
    let error = EngineError::Refused { status: 400, message: message.to_owned() };
    Some(StartError { error, exit_code: Some(exit.code), is_worth_another: false })
}

/// Whether the Engine found no program to start.
pub(super) fn is_missing_program(error: &StartError) -> bool {
    let message = error.error.to_string().to_lowercase();
    ["executable file not found", "no such file or directory", "permission denied"]
        .iter()
        .any(|text| message.contains(text))
}

/// A command that needs a shell and did not get one: say so, and how to.
pub(super) fn start_hint(
    error: &StartError,
    taken_whole: Option<TakenWhole>,
    grant: &LeaseGrant,
) -> Option<String> {
    let message = error.error.to_string();
    if message.contains("exec format error") {
        return Some("🔍 The image is made for another kind of processor than this worker's.".to_owned());
    }
    let what = match taken_whole? {
        TakenWhole::Operator(operator) => format!("`{operator}`"),
        TakenWhole::Glob => "`*` or `?`".to_owned(),
        TakenWhole::Comment => "`#`".to_owned(),
    };
    let command = grant.definition.text("command").filter(|_| is_missing_program(error))?;
    let quoted: String = command.chars().take(500).collect::<String>().replace('\'', "'\\''");
    Some(format!(
        "🔍 No shell runs a command, so {what} outside of quotes makes all of it one word. Write: sh -c '{quoted}'"
    ))
}

#[cfg(test)]
mod tests {
    use dockframe_shared::Timestamp;

    use super::*;

    fn said(texts: &[&str]) -> Vec<LogLine> {
        let line = |text: &&str| LogLine {
            text: (*text).to_owned(),
            time: Timestamp::from_millis(1),
            is_stderr: true,
        };
        texts.iter().map(line).collect()
    }

    #[test]
    fn an_init_that_finds_no_program_is_a_failed_start_and_a_program_that_says_so_is_not() {
        let exit = |code| Exit { code, ..Exit::default() };
        let fatal = "[FATAL tini (7)] exec no-such-program failed: No such file or directory\n";
        let failed = failed_exec(exit(127), &said(&[fatal])).unwrap();
        assert!(failed.error.to_string().ends_with("exec no-such-program failed: No such file or directory"));
        assert!(is_missing_program(&failed));
        assert_eq!(failed.exit_code, Some(127));
        for (code, texts) in [
            (1, &[fatal][..]),
            (127, &["sh: x: not found\n"]),
            (127, &["before\n", fatal]),
            (127, &["[FATAL tini (7)] exec a failed: x\nand more\n"]),
            (127, &[]),
        ] {
            assert_eq!(failed_exec(exit(code), &said(texts)), None, "{texts:?}");
        }
    }
}

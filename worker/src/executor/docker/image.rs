//! Making an image available: which policy, one pull for many jobs, progress in words (`worker` 10.2).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bollard::Docker as Engine;
use bollard::errors::Error;
use bollard::models::{CreateImageInfo, ImageInspect};
use bollard::query_parameters::CreateImageOptionsBuilder;
use dockframe_shared::job::LogLine;
use dockframe_shared::protocol::LogStep;
use futures_util::StreamExt as _;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::{sleep, timeout};

use super::client::{engine_error, reason};
use super::credentials::Credentials;
use crate::clock;
use crate::config::PullPolicy;
use crate::executor::{BuildLines, EngineError, Image, ImageError};
use crate::files::fetch::Http;
use crate::plan::ImageSource;

/// Pulls at a time: more would only share the same line.
const PULLS_AT_ONCE: usize = 3;
/// How long a tag that was compared with its registry counts as fresh.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// How long the comparison may take when there is a local copy to fall back on.
const COMPARE_LIMIT: Duration = Duration::from_secs(10);
/// A pull that says nothing for so long hangs.
const SILENCE_LIMIT: Duration = Duration::from_secs(5 * 60);
/// Pauses before another try.
const RETRIES: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(8), Duration::from_secs(30)];
/// At most one line of progress in this time.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// The images of one Engine.
#[derive(Debug)]
pub(super) struct Images {
    pub(super) engine: Engine,
    pub(super) http: Http,
    /// Where sources are unpacked.
    pub(super) scratch: PathBuf,
    policy: PullPolicy,
    credentials: Credentials,
    pulls: Semaphore,
    /// One lock a reference: the second job of an image waits for the first one's pull.
    locks: Mutex<HashMap<String, Arc<AsyncMutex<()>>>>,
    checked: Mutex<HashMap<String, Instant>>,
}

impl Images {
    pub(super) fn new(
        engine: Engine,
        http: Http,
        scratch: PathBuf,
        policy: PullPolicy,
        credentials: Credentials,
    ) -> Self {
        Self {
            engine,
            http,
            scratch,
            policy,
            credentials,
            pulls: Semaphore::new(PULLS_AT_ONCE),
            locks: Mutex::default(),
            checked: Mutex::default(),
        }
    }

    pub(super) async fn obtain(
        &self,
        source: &ImageSource,
        platform: Option<&str>,
        lines: &BuildLines,
    ) -> Result<Image, ImageError> {
        match source {
            ImageSource::Reference(reference) => {
                let reference = with_tag(reference);
                let lock = self.lock(&reference);
                let _held = lock.lock().await;
                self.ensure(&reference, platform, lines).await
            }
            ImageSource::Build(block) => self.build(block, lines).await,
        }
    }

    pub(super) fn lock(&self, reference: &str) -> Arc<AsyncMutex<()>> {
        let Ok(mut locks) = self.locks.lock() else { return Arc::default() };
        // Locks that nobody holds are of no use any more.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks.entry(reference.to_owned()).or_default().clone()
    }

    async fn ensure(
        &self,
        reference: &str,
        platform: Option<&str>,
        lines: &BuildLines,
    ) -> Result<Image, ImageError> {
        let local = self.local(reference, platform).await?;
        let pull = match (&local, self.policy) {
            (None, PullPolicy::Never) => {
                return Err(ImageError::Pull(format!(
                    "the image {reference} is not on this worker, whose policy is to pull none"
                )));
            }
            (None, _) | (Some(_), PullPolicy::Always) => true,
            (Some(_), PullPolicy::IfNotPresent | PullPolicy::Never) => false,
            (Some(local), PullPolicy::Default) => self.is_outdated(reference, local, lines).await,
        };
        if pull {
            match self.pull(reference, platform, lines).await {
                Ok(()) => {}
                // An old copy is better than none when the registry is away; a refusal is the truth.
                Err(failure) if local.is_some() && failure.is_transient => {
                    say(lines, format!("{}; the local copy is used", failure.text)).await;
                }
                Err(failure) => return Err(ImageError::Pull(failure.text)),
            }
        }
        self.mark_checked(reference);
        let found = self.local(reference, platform).await?;
        let image =
            found.ok_or_else(|| ImageError::Pull(format!("the image {reference} was pulled and is gone")))?;
        Ok(describe(reference, &image))
    }

    pub(super) async fn local(
        &self,
        reference: &str,
        platform: Option<&str>,
    ) -> Result<Option<ImageInspect>, ImageError> {
        match self.engine.inspect_image(reference).await {
            Ok(image) => {
                let fits = platform
                    .is_none_or(|wanted| describe(reference, &image).platform.as_deref() == Some(wanted));
                Ok(fits.then_some(image))
            }
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(Error::DockerResponseServerError { status_code: 400, message }) => {
                Err(ImageError::Pull(message))
            }
            Err(error) => Err(ImageError::Engine(engine_error(&error))),
        }
    }

    pub(super) fn describe_built(&self, tag: &str, image: &ImageInspect) -> Image {
        describe(tag, image)
    }

    /// Whether the registry has another image under this tag than we have.
    async fn is_outdated(&self, reference: &str, local: &ImageInspect, lines: &BuildLines) -> bool {
        if reference.contains('@') || self.is_fresh(reference) {
            return false;
        }
        let digests = local.repo_digests.as_deref().unwrap_or_default();
        if digests.is_empty() {
            // Made here and never pulled: no registry knows it.
            return false;
        }
        let credentials = self.credentials.of(reference).await;
        let answer = timeout(COMPARE_LIMIT, self.engine.inspect_registry_image(reference, credentials)).await;
        match answer {
            Ok(Ok(remote)) => {
                let digest = remote.descriptor.digest.unwrap_or_default();
                !digests.iter().any(|known| known.ends_with(&digest))
            }
            Ok(Err(error)) => {
                let why = reason(&error);
                say(
                    lines,
                    format!("cannot ask the registry about {reference} ({why}), the local copy is used"),
                )
                .await;
                false
            }
            Err(_) => {
                say(lines, format!("the registry of {reference} does not answer, the local copy is used"))
                    .await;
                false
            }
        }
    }

    pub(super) fn is_fresh(&self, reference: &str) -> bool {
        let Ok(checked) = self.checked.lock() else { return false };
        checked.get(reference).is_some_and(|at| at.elapsed() < FRESH)
    }

    pub(super) fn mark_checked(&self, reference: &str) {
        if let Ok(mut checked) = self.checked.lock() {
            checked.retain(|_, at| at.elapsed() < FRESH);
            checked.entry(reference.to_owned()).or_insert_with(Instant::now);
        }
    }

    async fn pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        lines: &BuildLines,
    ) -> Result<(), PullFailure> {
        let _turn = self.pulls.acquire().await;
        let mut retries = RETRIES.iter();
        loop {
            let failure = match self.pull_once(reference, platform, lines).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            let pause = retries.next().filter(|_| failure.is_transient);
            let Some(pause) = pause.filter(|pause| !failure.is_name_fault || pause.as_secs() <= 2) else {
                return Err(failure);
            };
            say(lines, format!("{}; trying again in {} s", failure.text, pause.as_secs())).await;
            sleep(*pause).await;
        }
    }

    async fn pull_once(
        &self,
        reference: &str,
        platform: Option<&str>,
        lines: &BuildLines,
    ) -> Result<(), PullFailure> {
        let mut options = CreateImageOptionsBuilder::default().from_image(reference);
        if let Some(platform) = platform {
            options = options.platform(platform);
        }
        let credentials = self.credentials.of(reference).await;
        let events = self.engine.create_image(Some(options.build()), None, credentials);
        tokio::pin!(events);
        let mut progress = Progress::new(reference);
        loop {
            match timeout(SILENCE_LIMIT, events.next()).await {
                Err(_) => {
                    let text = format!("pulling {reference}: nothing came for {} s", SILENCE_LIMIT.as_secs());
                    return Err(PullFailure { text, is_transient: true, is_name_fault: false });
                }
                Ok(None) => break,
                Ok(Some(Ok(event))) => {
                    if let Some(message) =
                        event.error_detail.as_ref().and_then(|detail| detail.message.clone())
                    {
                        return Err(PullFailure::of(reference, None, &message));
                    }
                    if let Some(line) = progress.note(&event, Instant::now()) {
                        say(lines, line).await;
                    }
                }
                Ok(Some(Err(error))) => {
                    let failure = match engine_error(&error) {
                        EngineError::Refused { status, message } => {
                            PullFailure::of(reference, Some(status), &message)
                        }
                        EngineError::Unreachable(why) => PullFailure::of(reference, None, &why),
                    };
                    return Err(failure);
                }
            }
        }
        say(lines, progress.last_status.unwrap_or_else(|| format!("Status: pulled {reference}"))).await;
        Ok(())
    }
}

struct PullFailure {
    text: String,
    is_transient: bool,
    /// The registry's name does not resolve: seldom a matter of seconds.
    is_name_fault: bool,
}

impl PullFailure {
    fn of(reference: &str, status: Option<u16>, message: &str) -> Self {
        let lower = message.to_lowercase();
        let says = |texts: &[&str]| texts.iter().any(|text| lower.contains(text));
        let is_name_fault = says(&["no such host", "name resolution", "server misbehaving"]);
        // "Access denied" first: registries say it of what does not exist, too, and in the same breath.
        let refusal = if says(&["denied", "unauthorized"]) {
            Some(
                " (no such image, or a private one: check its name, or log in with 'docker login' on the worker)",
            )
        } else if says(&["no matching manifest"]) {
            Some(" (the image is not made for this worker's kind of processor)")
        } else if says(&["manifest unknown", "repository does not exist", "not found"]) {
            Some(" (check the image's name and tag)")
        } else if says(&["invalid reference"])
            || status.is_some_and(|status| matches!(status, 400..=407 | 409..=428))
        {
            Some("")
        } else {
            None
        };
        let no_network = " (no network? images that are on this machine need none)";
        let hint = refusal.unwrap_or(if is_name_fault { no_network } else { "" });
        Self {
            text: format!("pulling {reference}: {message}{hint}"),
            is_transient: refusal.is_none(),
            is_name_fault,
        }
    }
}

/// Sums up what an Engine tells of a pull, layer by layer.
struct Progress<'a> {
    reference: &'a str,
    layers: HashMap<String, Layer>,
    last_line: Option<Instant>,
    started: Instant,
    last_status: Option<String>,
}

#[derive(Default)]
struct Layer {
    current: i64,
    total: i64,
    is_done: bool,
}

impl<'a> Progress<'a> {
    fn new(reference: &'a str) -> Self {
        Self {
            reference,
            layers: HashMap::new(),
            last_line: None,
            started: Instant::now(),
            last_status: None,
        }
    }

    /// A line, if one is due.
    fn note(&mut self, event: &CreateImageInfo, now: Instant) -> Option<String> {
        let status = event.status.as_deref().unwrap_or_default();
        if status.starts_with("Status: ") {
            self.last_status = Some(status.to_owned());
            return None;
        }
        let id = event.id.as_ref()?;
        if status.starts_with("Pulling from") {
            return None;
        }
        let layer = self.layers.entry(id.clone()).or_default();
        match status {
            "Downloading" => {
                if let Some(detail) = &event.progress_detail {
                    layer.current = detail.current.unwrap_or(layer.current);
                    layer.total = detail.total.unwrap_or(layer.total);
                }
            }
            "Download complete" | "Pull complete" | "Already exists" => {
                layer.current = layer.total;
                layer.is_done = status != "Download complete";
            }
            _ => {}
        }
        if self.last_line.is_some_and(|last| now.duration_since(last) < PROGRESS_EVERY) {
            return None;
        }
        self.last_line = Some(now);
        let done = self.layers.values().filter(|layer| layer.is_done).count();
        let current: i64 = self.layers.values().map(|layer| layer.current).sum();
        let total: i64 = self.layers.values().map(|layer| layer.total).sum();
        let mut line = format!("pulling {}: {done}/{} layers", self.reference, self.layers.len());
        if total > 0 {
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            let rate = current as f64 / 1e6 / now.duration_since(self.started).as_secs_f64().max(0.001);
            line.push_str(&format!(", {} %, {rate:.0} MB/s", current * 100 / total));
        }
        Some(line)
    }
}

/// Without a tag the Engine would pull all of them.
fn with_tag(reference: &str) -> String {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    if name.contains(':') || reference.contains('@') {
        reference.to_owned()
    } else {
        format!("{reference}:latest")
    }
}

fn describe(reference: &str, image: &ImageInspect) -> Image {
    let manifest = image.repo_digests.iter().flatten().find_map(|digest| digest.split_once('@'));
    let platform = match (image.os.as_deref(), image.architecture.as_deref()) {
        (Some(os), Some(architecture)) if !os.is_empty() && !architecture.is_empty() => {
            let variant = image.variant.as_deref().filter(|variant| !variant.is_empty());
            Some(format!("{os}/{architecture}{}", variant.map(|v| format!("/{v}")).unwrap_or_default()))
        }
        _ => None,
    };
    Image {
        reference: reference.to_owned(),
        digest: manifest.map(|(_, digest)| digest.to_owned()).or_else(|| image.id.clone()),
        platform,
    }
}

async fn say(lines: &BuildLines, text: String) {
    let line = LogLine { text, time: clock::now(), is_stderr: false };
    // Nobody listens any more when the job was stopped.
    let _ = lines.send((LogStep::ImagePull, line)).await;
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    #[test]
    fn a_reference_without_a_tag_means_latest() {
        assert_eq!(with_tag("python"), "python:latest");
        assert_eq!(with_tag("localhost:5000/python"), "localhost:5000/python:latest");
        assert_eq!(with_tag("python:3.12"), "python:3.12");
        assert_eq!(with_tag("python@sha256:00"), "python@sha256:00");
    }

    #[test]
    fn progress_is_one_line_a_second() {
        let start = Instant::now();
        let mut progress = Progress::new("a:1");
        let event = |id: &str, status: &str, current, total| CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(total) }),
            ..CreateImageInfo::default()
        };
        let first = progress.note(&event("l1", "Downloading", 50, 100), start).unwrap();
        assert!(first.starts_with("pulling a:1: 0/1 layers, 50 %"), "{first}");
        for _ in 0..100 {
            let soon = start + Duration::from_millis(900);
            assert_eq!(progress.note(&event("l1", "Downloading", 60, 100), soon), None);
        }
        let later = start + Duration::from_secs(1);
        let line = progress.note(&event("l1", "Pull complete", 0, 0), later).unwrap();
        assert!(line.starts_with("pulling a:1: 1/1 layers, 100 %"), "{line}");
        let last =
            CreateImageInfo { status: Some("Status: Downloaded".into()), ..CreateImageInfo::default() };
        assert_eq!(progress.note(&last, later), None);
        assert_eq!(progress.last_status.as_deref(), Some("Status: Downloaded"));
    }

    #[test]
    fn refusals_are_told_from_faults_that_pass() {
        let missing = "pull access denied for nope, repository does not exist or may require 'docker login'";
        assert!(PullFailure::of("nope", Some(404), missing).text.ends_with("'docker login' on the worker)"));
        assert!(!PullFailure::of("nope", Some(404), missing).is_transient);
        assert!(
            !PullFailure::of("a:9", Some(404), "manifest for a:9 not found: manifest unknown").is_transient
        );
        assert!(PullFailure::of("a", Some(500), "net/http: TLS handshake timeout").is_transient);
        assert!(PullFailure::of("a", Some(429), "toomanyrequests").is_transient);
        let offline =
            PullFailure::of("a", Some(500), "dial tcp: lookup registry on 127.0.0.1:53: no such host");
        assert!(offline.is_transient && offline.is_name_fault);
    }
}

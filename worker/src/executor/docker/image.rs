//! Making an image available: which policy, one pull for many jobs, progress in words (`worker` 10.2).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bollard::Docker as Engine;
use bollard::errors::Error;
use bollard::models::ImageInspect;
use bollard::query_parameters::CreateImageOptionsBuilder;
use dockframe_shared::job::LogLine;
use dockframe_shared::protocol::LogStep;
use futures_util::StreamExt as _;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::build::Builder;
use super::client::{engine_error, reason};
use super::credentials::Credentials;
use super::ledger::Ledger;
use super::progress::{Progress, PullFailure};
use crate::clock;
use crate::config::PullPolicy;
use crate::executor::{BuildLines, EngineError, Image, ImageError};
use crate::plan::ImageSource;

/// Pulls at a time: more would only share the same line.
const PULLS_AT_ONCE: usize = 3;
/// How long a tag that was compared with its registry counts as fresh.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// How long the comparison may take when there is a local copy to fall back on.
const COMPARE_LIMIT: Duration = Duration::from_secs(10);
/// A pull that says nothing for so long hangs.
const SILENCE_LIMIT: Duration = Duration::from_secs(5 * 60);
/// Images by digest that are remembered.
const MAX_KNOWN: usize = 1000;
/// Pauses before another try.
const RETRIES: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(8), Duration::from_secs(30)];

/// The images of one Engine.
#[derive(Debug)]
pub(super) struct Images {
    pub(super) engine: Engine,
    pub(super) builder: Builder,
    pub(super) ledger: Ledger,
    policy: PullPolicy,
    /// References that never go to make room.
    pub(super) pinned: HashSet<String>,
    pub(super) credentials: Credentials,
    pulls: Semaphore,
    /// One lock a reference: the second job of an image waits for the first one's pull.
    locks: Mutex<HashMap<String, Arc<AsyncMutex<()>>>>,
    checked: Mutex<HashMap<String, Instant>>,
    /// What was found under a digest, which never means anything else: by reference and platform.
    known: Mutex<HashMap<(String, Option<String>), Image>>,
}

impl Images {
    pub(super) fn new(
        engine: Engine,
        builder: Builder,
        policy: PullPolicy,
        pinned: &[String],
        credentials: Credentials,
        ledger: Ledger,
    ) -> Self {
        Self {
            engine,
            builder,
            ledger,
            policy,
            pinned: pinned.iter().map(|reference| with_tag(reference)).collect(),
            credentials,
            pulls: Semaphore::new(PULLS_AT_ONCE),
            locks: Mutex::default(),
            checked: Mutex::default(),
            known: Mutex::default(),
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
                self.ledger.used(&reference, clock::now().as_millis());
                if let Some(known) = self.known(&reference, platform) {
                    return Ok(known);
                }
                let image = self.ensure_once(&reference, platform, lines).await?;
                if reference.contains('@')
                    && let Ok(mut all) = self.known.lock()
                {
                    if all.len() > MAX_KNOWN {
                        all.clear();
                    }
                    all.insert((reference, platform.map(str::to_owned)), image.clone());
                }
                Ok(image)
            }
            ImageSource::Build(block) => self.build(block, lines).await,
        }
    }

    /// One pull for all jobs that wait for the image.
    pub(super) async fn ensure_once(
        &self,
        reference: &str,
        platform: Option<&str>,
        lines: &BuildLines,
    ) -> Result<Image, ImageError> {
        let lock = self.lock(reference);
        let _held = lock.lock().await;
        self.ensure(reference, platform, lines).await
    }

    fn known(&self, reference: &str, platform: Option<&str>) -> Option<Image> {
        if self.policy == PullPolicy::Always {
            return None;
        }
        let key = (reference.to_owned(), platform.map(str::to_owned));
        self.known.lock().ok()?.get(&key).cloned()
    }

    /// Nothing is taken as known any more: the Engine has lost an image.
    pub(super) fn doubt(&self) {
        if let Ok(mut known) = self.known.lock() {
            known.clear();
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
        let mut found = local;
        if pull {
            match self.pull(reference, platform, lines).await {
                Ok(()) => {
                    self.note_brought(reference);
                    found = self.local(reference, platform).await?;
                }
                // An old copy is better than none when the registry is away; a refusal is the truth.
                Err(failure) if found.is_some() && failure.is_transient => {
                    say(lines, format!("{}; the local copy is used", failure.text)).await;
                }
                Err(failure) => return Err(ImageError::Pull(failure.text)),
            }
        }
        self.mark_checked(reference);
        let image =
            found.ok_or_else(|| ImageError::Pull(format!("the image {reference} was pulled and is gone")))?;
        Ok(describe(reference, &image))
    }

    /// It may be removed again to make room.
    pub(super) fn note_brought(&self, reference: &str) {
        if let Err(error) = self.ledger.brought(reference, clock::now().as_millis()) {
            warn!("it cannot be written down which images were brought here: {error}");
        }
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

/// Without a tag the Engine would pull all of them.
pub(super) fn with_tag(reference: &str) -> String {
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
        is_local: manifest.is_none(),
        platform,
        has_entrypoint: image
            .config
            .as_ref()
            .and_then(|config| config.entrypoint.as_ref())
            .is_some_and(|words| !words.is_empty()),
    }
}

async fn say(lines: &BuildLines, text: String) {
    let line = LogLine { text, time: clock::now(), is_stderr: false };
    // Nobody listens any more when the job was stopped.
    let _ = lines.send((LogStep::ImagePull, line)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_without_a_tag_means_latest() {
        assert_eq!(with_tag("python"), "python:latest");
        assert_eq!(with_tag("localhost:5000/python"), "localhost:5000/python:latest");
        assert_eq!(with_tag("python:3.12"), "python:3.12");
        assert_eq!(with_tag("python@sha256:00"), "python@sha256:00");
    }
}

//! Building images (`worker` 10.3): fetch the sources, pack them, let the Engine build.
//!
//! An image's name is the key of its block alone; the sources it was made of are in a label. So a block whose sources
//! have not changed is never built twice, and one whose branch has moved is.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bollard::models::ImageInspect;
use bollard::query_parameters::RemoveImageOptionsBuilder;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use dockframe_shared::job::LogLine;
use dockframe_shared::protocol::LogStep;
use reqwest::{Body, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio_util::io::ReaderStream;
use tracing::debug;
use uuid::Uuid;

use super::buildkit::Progress;
use super::client::LABEL;
use super::image::Images;
use super::raw::RawEngine;
use super::sources::{Brought, Found, SourceError};
use crate::build_plan::BuildPlan;
use crate::clock;
use crate::config::Network;
use crate::executor::{BuildLines, Image, ImageError};
use crate::files::context::{ContextError, Packed, pack};
use crate::files::fetch::Http;

/// Label with what an image was built from: the SHA-256 of an archive, or a commit.
const SOURCE_LABEL: &str = "container.mtfm.io/source";

/// Longest line of an Engine's answer.
const MAX_EVENT_BYTES: usize = 16 << 20;

/// What building needs.
#[derive(Debug)]
pub(super) struct Builder {
    pub(super) raw: RawEngine,
    pub(super) http: Http,
    /// Where sources are unpacked.
    pub(super) scratch: PathBuf,
    /// Of the commands of a build: as a job's.
    pub(super) network: Network,
}

/// One event of a build, BuildKit's or the old builder's.
#[derive(Debug, Deserialize)]
struct BuildEvent {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    aux: Option<Value>,
    #[serde(default)]
    stream: Option<String>,
    #[serde(default)]
    error: Option<String>,
}

/// A directory that is gone when this is dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What remains is removed at the next start.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Images {
    pub(super) async fn build(
        &self,
        block: &Map<String, Value>,
        lines: &BuildLines,
    ) -> Result<Image, ImageError> {
        let plan = BuildPlan::read(block).map_err(|error| ImageError::Context(error.to_string()))?;
        let tag = plan.tag();
        let lock = self.lock(&tag);
        let _held = lock.lock().await;
        let existing = self.local(&tag, None).await?;
        if let Some(image) = &existing {
            self.ledger.used(&tag, clock::now().as_millis());
            let is_settled = plan.context.as_ref().is_none_or(|context| context.is_pinned);
            if is_settled || self.is_fresh(&tag) {
                return Ok(self.describe_built(&tag, image));
            }
        }

        let scratch = Scratch(self.builder.scratch.join(Uuid::new_v4().simple().to_string()));
        let sources = scratch.0.join("sources");
        tokio::fs::create_dir_all(&sources).await.map_err(|error| ImageError::Context(error.to_string()))?;
        let mut brought = Brought { id: String::new(), root: PathBuf::new() };
        if let Some(context) = &plan.context {
            let found = match Found::find(&self.builder.http, context, &scratch.0, lines).await {
                Ok(found) => found,
                Err(error) => return self.fall_back(&tag, existing.as_ref(), error, lines).await,
            };
            if let Some(image) = existing
                .as_ref()
                .filter(|image| label(image, SOURCE_LABEL).is_some_and(|id| id == found.id()))
            {
                self.mark_checked(&tag);
                return Ok(self.describe_built(&tag, image));
            }
            match found.bring(&sources).await {
                Ok(files) => brought = files,
                Err(error) => return self.fall_back(&tag, existing.as_ref(), error, lines).await,
            }
        }
        let packed = self.pack(&plan, &scratch.0, brought.root).await?;
        self.obtain_private_bases(&packed, plan.platform.as_deref(), lines).await?;
        self.run_build(&plan, &tag, &brought.id, &scratch.0.join("context.tar"), &packed, lines).await?;
        self.mark_checked(&tag);
        self.note_brought(&tag);
        let image = self.local(&tag, None).await?;
        let image = image.ok_or_else(|| ImageError::Build("the image was built and is gone".to_owned()))?;
        Ok(self.describe_built(&tag, &image))
    }

    /// What was built before serves when its sources are out of reach.
    async fn fall_back(
        &self,
        tag: &str,
        existing: Option<&ImageInspect>,
        error: SourceError,
        lines: &BuildLines,
    ) -> Result<Image, ImageError> {
        match existing {
            Some(image) if matches!(error, SourceError::Fetch { .. }) => {
                say(lines, LogStep::CloningRepo, format!("{error}; the image that is here is used")).await;
                Ok(self.describe_built(tag, image))
            }
            _ => Err(ImageError::Context(error.to_string())),
        }
    }

    async fn pack(&self, plan: &BuildPlan, scratch: &Path, root: PathBuf) -> Result<Packed, ImageError> {
        let (plan, scratch) = (plan.clone(), scratch.to_owned());
        let packed = tokio::task::spawn_blocking(move || -> Result<Packed, ContextError> {
            let sources = Dir::open_ambient_dir(scratch.join("sources"), ambient_authority())?;
            let root = if root.as_os_str().is_empty() { sources } else { sources.open_dir(root)? };
            let mut out = std::fs::File::create(scratch.join("context.tar"))?;
            pack(&root, plan.subdirectory.as_ref(), &plan.filename, plan.dockerfile.as_deref(), &mut out)
        })
        .await;
        match packed {
            Ok(packed) => packed.map_err(|error| ImageError::Context(SourceError::Use(error).to_string())),
            Err(error) => Err(ImageError::Context(error.to_string())),
        }
    }

    /// Base images that this worker has credentials for. The Engine, which has none, then finds them here.
    async fn obtain_private_bases(
        &self,
        packed: &Packed,
        platform: Option<&str>,
        lines: &BuildLines,
    ) -> Result<(), ImageError> {
        for base in &packed.bases {
            if self.credentials.of(base).await.is_some() {
                let reference = super::image::with_tag(base);
                self.ensure_once(&reference, platform, lines).await?;
            }
        }
        Ok(())
    }

    async fn run_build(
        &self,
        plan: &BuildPlan,
        tag: &str,
        source: &str,
        context: &Path,
        packed: &Packed,
        lines: &BuildLines,
    ) -> Result<(), ImageError> {
        let labels = HashMap::from([(LABEL, "true"), (SOURCE_LABEL, source)]);
        let arguments: HashMap<&str, &str> =
            plan.arguments.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let json = |map: &HashMap<&str, &str>| serde_json::to_string(map).unwrap_or_default();
        let mut query = vec![
            // BuildKit; an Engine without it builds in its own way.
            ("version", "2".to_owned()),
            ("dockerfile", packed.dockerfile.clone()),
            ("t", tag.to_owned()),
            ("rm", "1".to_owned()),
            ("forcerm", "1".to_owned()),
            ("labels", json(&labels)),
            ("buildargs", json(&arguments)),
        ];
        // A build can be put on no network of ours: one that leads nowhere is none.
        if self.builder.network != Network::Nat {
            query.push(("networkmode", "none".to_owned()));
        }
        query.extend(plan.target.clone().map(|target| ("target", target)));
        query.extend(plan.platform.clone().map(|platform| ("platform", platform)));
        let file =
            tokio::fs::File::open(context).await.map_err(|error| ImageError::Context(error.to_string()))?;
        let body = Body::wrap_stream(ReaderStream::with_capacity(file, 256 << 10));
        let began = Instant::now();
        let mut answer = self.builder.raw.build(&query, body).await.map_err(ImageError::Build)?;
        if answer.status() != StatusCode::OK {
            let status = answer.status();
            let text = answer.text().await.unwrap_or_default();
            let message = serde_json::from_str::<Value>(&text)
                .ok()
                .and_then(|value| Some(value.get("message")?.as_str()?.to_owned()));
            return Err(ImageError::Build(
                message.unwrap_or_else(|| format!("the Engine answered {status}")),
            ));
        }
        let mut progress = Progress::default();
        let mut unread = Vec::new();
        loop {
            let chunk =
                answer.chunk().await.map_err(|error| ImageError::Build(error.without_url().to_string()))?;
            let Some(chunk) = chunk else { break };
            unread.extend_from_slice(&chunk);
            while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let event: Vec<u8> = unread.drain(..=end).collect();
                self.tell_event(&event, &mut progress, lines).await?;
            }
            if unread.len() > MAX_EVENT_BYTES {
                return Err(ImageError::Build("the Engine's answer cannot be read".to_owned()));
            }
        }
        self.tell_event(&unread, &mut progress, lines).await?;
        for line in progress.finish() {
            tell(lines, LogStep::Build, line, true).await;
        }
        say(lines, LogStep::Build, format!("built in {:.1} s", began.elapsed().as_secs_f64())).await;
        Ok(())
    }

    async fn tell_event(
        &self,
        event: &[u8],
        progress: &mut Progress,
        lines: &BuildLines,
    ) -> Result<(), ImageError> {
        let Ok(event) = serde_json::from_slice::<BuildEvent>(event) else { return Ok(()) };
        if let Some(error) = event.error {
            return Err(ImageError::Build(error));
        }
        if event.id.as_deref() == Some("moby.buildkit.trace")
            && let Some(Value::String(trace)) = &event.aux
        {
            for line in progress.read(trace) {
                tell(lines, LogStep::Build, line, true).await;
            }
        }
        // The old builder's. Progress of pulling a base image has a status and no text: too much of it.
        let text = event.stream.unwrap_or_default();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            say(lines, LogStep::Build, line.to_owned()).await;
        }
        Ok(())
    }

    /// Removes what was built from this block, by its name and without force.
    pub(super) async fn forget(&self, block: &Map<String, Value>) {
        let Ok(plan) = BuildPlan::read(block) else { return };
        let tag = plan.tag();
        self.ledger.forget(&tag);
        let options = RemoveImageOptionsBuilder::default().force(false).build();
        if let Err(error) = self.engine.remove_image(&tag, Some(options), None).await {
            debug!("an image that was built for a deleted job stays: {error}");
        }
    }
}

fn label<'a>(image: &'a ImageInspect, name: &str) -> Option<&'a String> {
    image.config.as_ref()?.labels.as_ref()?.get(name)
}

pub(super) async fn say(lines: &BuildLines, step: LogStep, text: String) {
    tell(lines, step, text, false).await;
}

async fn tell(lines: &BuildLines, step: LogStep, text: String, is_stderr: bool) {
    let line = LogLine { text, time: clock::now(), is_stderr };
    // Nobody listens any more when the job was stopped.
    let _ = lines.send((step, line)).await;
}

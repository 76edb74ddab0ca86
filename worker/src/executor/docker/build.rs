//! Building images (`worker` 10.3): fetch the sources, pack them, let the Engine build.
//!
//! An image's name is the key of its block alone; the sources it was made of are in a label. So a block whose sources
//! have not changed is never built twice, and one whose branch has moved is.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bollard::errors::Error;
use bollard::models::ImageInspect;
use bollard::query_parameters::BuildImageOptionsBuilder;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use dockframe_shared::job::LogLine;
use dockframe_shared::protocol::LogStep;
use futures_util::StreamExt as _;
use serde_json::{Map, Value};
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use super::client::{LABEL, reason};
use super::container::NETWORK;
use super::image::Images;
use crate::build_plan::{BuildPlan, Context};
use crate::clock;
use crate::executor::{BuildLines, Image, ImageError};
use crate::files::context::{ContextError, Packed, pack, unpack};
use crate::files::fetch::HttpError;

/// Label with the SHA-256 of the archive that an image was built from.
const SOURCE_LABEL: &str = "container.mtfm.io/source";

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
        let tag = format!("dockframe-build:{}", plan.key);
        let lock = self.lock(&tag);
        let _held = lock.lock().await;
        let existing = self.local(&tag, None).await?;
        if let Some(image) = &existing {
            let is_settled = plan.context.as_ref().is_none_or(|context| context.is_pinned);
            if is_settled || self.is_fresh(&tag) {
                return Ok(self.describe_built(&tag, image));
            }
        }

        let scratch = Scratch(self.scratch.join(Uuid::new_v4().simple().to_string()));
        let sources = scratch.0.join("sources");
        tokio::fs::create_dir_all(&sources).await.map_err(|error| ImageError::Context(error.to_string()))?;
        let mut source = String::new();
        if let Some(context) = &plan.context {
            let archive = scratch.0.join("archive");
            match self.download(context, &archive, lines).await {
                Ok(hash) => source = hash,
                Err(text) => match &existing {
                    Some(image) => {
                        say(lines, LogStep::CloningRepo, format!("{text}; the image that is here is used"))
                            .await;
                        return Ok(self.describe_built(&tag, image));
                    }
                    None => return Err(ImageError::Context(text)),
                },
            }
            if let Some(image) = existing.filter(|image| label(image, SOURCE_LABEL) == Some(&source)) {
                self.mark_checked(&tag);
                return Ok(self.describe_built(&tag, &image));
            }
        }
        let packed = self.pack(&plan, &scratch.0).await?;
        self.run_build(&plan, &tag, &source, &scratch.0.join("context.tar"), &packed, lines).await?;
        self.mark_checked(&tag);
        let image = self.local(&tag, None).await?;
        let image = image.ok_or_else(|| ImageError::Build("the image was built and is gone".to_owned()))?;
        Ok(self.describe_built(&tag, &image))
    }

    /// The first address that has something; the SHA-256 of what it is.
    async fn download(&self, context: &Context, into: &Path, lines: &BuildLines) -> Result<String, String> {
        say(lines, LogStep::CloningRepo, format!("downloading {}", context.name)).await;
        let mut last = None;
        for address in &context.addresses {
            match self.http.fetch(address, into).await {
                Ok(fetched) => return Ok(fetched.hash.to_string()),
                Err(error @ HttpError::Status(_)) => last = Some(error),
                Err(error) => {
                    return Err(format!("the build context {} cannot be fetched: {error}", context.name));
                }
            }
        }
        let why = last.map(|error| error.to_string()).unwrap_or_default();
        Err(format!("the build context {} cannot be fetched: {why}", context.name))
    }

    async fn pack(&self, plan: &BuildPlan, scratch: &Path) -> Result<Packed, ImageError> {
        let (plan, scratch) = (plan.clone(), scratch.to_owned());
        let packed = tokio::task::spawn_blocking(move || -> Result<Packed, ContextError> {
            let sources = Dir::open_ambient_dir(scratch.join("sources"), ambient_authority())?;
            let root = match &plan.context {
                None => sources,
                Some(_) => {
                    let root = unpack(&scratch.join("archive"), &sources)?;
                    if root.as_os_str().is_empty() { sources } else { sources.open_dir(root)? }
                }
            };
            let mut out = std::fs::File::create(scratch.join("context.tar"))?;
            pack(&root, plan.subdirectory.as_ref(), &plan.filename, plan.dockerfile.as_deref(), &mut out)
        })
        .await;
        match packed {
            Ok(packed) => packed
                .map_err(|error| ImageError::Context(format!("the build context cannot be used: {error}"))),
            Err(error) => Err(ImageError::Context(error.to_string())),
        }
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
        let mut options = BuildImageOptionsBuilder::default()
            .dockerfile(&packed.dockerfile)
            .t(tag)
            .rm(true)
            .forcerm(true)
            .networkmode(NETWORK)
            .labels(&labels)
            .buildargs(&arguments);
        if let Some(target) = &plan.target {
            options = options.target(target);
        }
        if let Some(platform) = &plan.platform {
            options = options.platform(platform);
        }
        let file =
            tokio::fs::File::open(context).await.map_err(|error| ImageError::Context(error.to_string()))?;
        let body = bollard::body_try_stream(ReaderStream::with_capacity(file, 256 << 10));
        let began = Instant::now();
        let events = self.engine.build_image(options.build(), None, Some(body));
        tokio::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if let Some(message) = event.error_detail.and_then(|detail| detail.message) {
                        return Err(ImageError::Build(message));
                    }
                    // Progress of pulling a base image has a status and no text: too much of it.
                    let text = event.stream.unwrap_or_default();
                    for line in text.lines().filter(|line| !line.trim().is_empty()) {
                        say(lines, LogStep::Build, line.to_owned()).await;
                    }
                }
                Err(Error::DockerStreamError { error }) => return Err(ImageError::Build(error)),
                Err(Error::DockerResponseServerError { message, .. }) => {
                    return Err(ImageError::Build(message));
                }
                Err(error) => return Err(ImageError::Build(reason(&error))),
            }
        }
        say(lines, LogStep::Build, format!("built in {:.1} s", began.elapsed().as_secs_f64())).await;
        Ok(())
    }
}

fn label<'a>(image: &'a ImageInspect, name: &str) -> Option<&'a String> {
    image.config.as_ref()?.labels.as_ref()?.get(name)
}

async fn say(lines: &BuildLines, step: LogStep, text: String) {
    let line = LogLine { text, time: clock::now(), is_stderr: false };
    // Nobody listens any more when the job was stopped.
    let _ = lines.send((step, line)).await;
}

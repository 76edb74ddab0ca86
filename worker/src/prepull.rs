//! Images that are here before a job needs them (`worker` 22.2, B19).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use crate::executor::Executor;
use crate::plan::ImageSource;
use crate::unit::Shared;

/// How often they are looked after: a tag may mean another image by then, and one that was removed comes back.
const EVERY: Duration = Duration::from_secs(3600);
/// What a pull says before anybody has listened.
const LINES: usize = 64;

/// Makes each image available, one after the other, as a job would; for ever.
pub(crate) async fn run<E: Executor>(shared: Arc<Shared<E>>, images: Vec<String>) {
    if images.is_empty() {
        return;
    }
    let mut rounds = interval(EVERY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        for image in &images {
            bring(&shared, image).await;
        }
    }
}

async fn bring<E: Executor>(shared: &Shared<E>, image: &str) {
    let source = ImageSource::Reference(image.to_owned());
    let (lines, mut said) = mpsc::channel(LINES);
    let bringing = async {
        let brought =
            tokio::time::timeout(shared.limits.pull, shared.executor.image(&source, None, &lines)).await;
        drop(lines);
        brought
    };
    let listening = async {
        while let Some((_, line)) = said.recv().await {
            debug!("{image}: {}", line.text);
        }
    };
    match tokio::join!(bringing, listening).0 {
        Ok(Ok(_)) => info!("the image {image} is here"),
        Ok(Err(error)) => warn!("the image {image} (--prepull) cannot be had now: {error}"),
        Err(_) => warn!("the image {image} (--prepull) cannot be had now: pulling it takes too long"),
    }
}

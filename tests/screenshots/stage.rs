//! What a state of the page has to work with, and the shapes that most states have.

use std::future::Future;
use std::pin::Pin;

use dockframe_tests::pages::JobPage;
use dockframe_tests::wait;

use crate::host::Sheet;
use crate::samples::address;
use crate::stand_in::StandIn;

/// What a state has to work with.
pub(crate) struct Stage {
    pub(crate) relay: StandIn,
    pub(crate) host: Sheet,
}

pub(crate) type Doing<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

pub(crate) struct State {
    pub(crate) name: &'static str,
    pub(crate) before: Box<dyn for<'a> Fn(&'a Stage) -> Doing<'a>>,
    pub(crate) hash: Box<dyn Fn(&Stage) -> String>,
    /// Brings the state about, and waits until all frames show it.
    pub(crate) then: Box<dyn for<'a> Fn(&'a Stage) -> Doing<'a>>,
}

pub(crate) const FRAMES: [&str; 3] = ["strip", "small", "wide"];

impl Stage {
    /// Two frames of the browser's own pass in each document: what was set is drawn.
    pub(crate) async fn settle(&self) -> anyhow::Result<()> {
        let script = "return new Promise((done) => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), 250))";
        self.host.page().run(script, &[]).await?;
        Ok(())
    }

    pub(crate) fn page(&self, frame: &str) -> JobPage {
        JobPage::new(self.host.frame(frame))
    }

    /// Waits until the header of each frame begins so.
    pub(crate) async fn shows(&self, title: &str) -> anyhow::Result<()> {
        for frame in FRAMES {
            wait::until(&format!("{title:?} in {frame}"), wait::PATIENT, async || {
                match self.host.frame(frame).text("[role=status]").await {
                    Ok(Some(text)) if text.starts_with(title) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
        }
        Ok(())
    }

    /// The job that all frames want.
    pub(crate) async fn job(&self) -> anyhow::Result<String> {
        self.relay.job(FRAMES.len()).await
    }

    /// Opens a panel in the two frames that have room for it.
    pub(crate) async fn open(&self, panel: &str) -> anyhow::Result<()> {
        for frame in ["small", "wide"] {
            self.host.frame(frame).click(&format!(".header [data-tab={panel}]")).await?;
        }
        Ok(())
    }

    /// Presses a button in the two frames that have room for it.
    pub(crate) async fn press(&self, button: &str) -> anyhow::Result<()> {
        for frame in ["small", "wide"] {
            self.page(frame).press(button).await?;
        }
        Ok(())
    }
}

impl State {
    /// A page at this address.
    pub(crate) fn at<H, T>(name: &'static str, hash: H, then: T) -> Self
    where
        H: Fn(&Stage) -> String + 'static,
        T: for<'a> Fn(&'a Stage) -> Doing<'a> + 'static,
    {
        Self {
            name,
            before: Box::new(|_| Box::pin(async { Ok(()) })),
            hash: Box::new(hash),
            then: Box::new(then),
        }
    }

    /// A page at the usual address: a job that runs by itself on the stand-in's queue.
    pub(crate) fn usual<T>(name: &'static str, then: T) -> Self
    where
        T: for<'a> Fn(&'a Stage) -> Doing<'a> + 'static,
    {
        Self::at(name, |stage| address(stage.relay.origin(), &[]), then)
    }

    /// A state that the relay alone makes, by what it says of the job.
    pub(crate) fn told(name: &'static str, title: &'static str, tell: fn(&StandIn, &str)) -> Self {
        Self::usual(name, move |stage| {
            Box::pin(async move {
                tell(&stage.relay, &stage.job().await?);
                stage.shows(title).await
            })
        })
    }

    /// Does something before the page is opened.
    pub(crate) fn after(mut self, prepare: fn(&Stage)) -> Self {
        self.before = Box::new(move |stage| {
            prepare(stage);
            Box::pin(async { Ok(()) })
        });
        self
    }
}

//! What is drawn. A component reads signals, renders, and forwards what the user wants; it decides nothing.
#![expect(unreachable_pub, reason = "the component macro writes functions of its own")]

mod footer;
mod header;
mod inputs;
mod job;
mod log;
mod outputs;
mod queue;
mod settings;
mod share;
mod start;
mod trouble;

use leptos::prelude::*;

use crate::live::Live;
use crate::ui::{dynamic, words};

/// What stands beside the log, or in its place on narrow screens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tab {
    Log,
    Job,
    Inputs,
    Outputs,
    Settings,
}

impl Tab {
    fn class(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Job => "job",
            Self::Inputs => "inputs",
            Self::Outputs => "outputs",
            Self::Settings => "settings",
        }
    }
}

/// Which panel is open. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct Panels {
    chosen: RwSignal<Option<Tab>>,
    /// What is open: the user's choice, else what the job's state suggests.
    pub tab: Memo<Tab>,
    pub is_queue_open: RwSignal<bool>,
}

impl Panels {
    fn new(live: Live) -> Self {
        let chosen = RwSignal::new(None);
        let had_outputs = Memo::new(move |before: Option<&bool>| {
            before.is_some_and(|before| *before) || !live.outputs.with(Vec::is_empty)
        });
        let tab = Memo::new(move |_| {
            chosen.get().unwrap_or_else(|| match () {
                () if had_outputs.get() => Tab::Outputs,
                () if live.is_idle.get() => Tab::Job,
                () => Tab::Log,
            })
        });
        Self { chosen, tab, is_queue_open: RwSignal::new(false) }
    }

    /// Opens a panel, or closes it when it is open.
    pub fn toggle(self, tab: Tab) {
        let is_open = self.tab.get_untracked() == tab && !self.is_queue_open.get_untracked();
        self.is_queue_open.set(false);
        self.chosen.set(Some(if is_open { Tab::Log } else { tab }));
    }

    pub fn open(self, tab: Tab) {
        self.is_queue_open.set(false);
        self.chosen.set(Some(tab));
    }
}

/// Puts the page into the document.
pub fn mount() {
    mount_to_body(App);
}

#[component]
fn App() -> AnyView {
    let live = Live::start();
    let panels = Panels::new(live);
    provide_context(live);
    provide_context(panels);
    let show_queue = panels.is_queue_open;
    Effect::new(move |_| live.want(crate::state::Intent::ShowQueue(show_queue.get())));
    let side = words(move || if show_queue.get() { "queue" } else { panels.tab.get().class() }.to_owned());
    let is_blank = Memo::new(move |_| live.is_blank.get());
    let work = dynamic(move || {
        if is_blank.get() {
            return view! { <start::Start /> }.into_any();
        }
        view! {
            <trouble::TroubleScreen />
            <log::LogView />
        }
        .into_any()
    });
    let panel = dynamic(move || {
        if show_queue.get() {
            return view! { <queue::QueuePanel /> }.into_any();
        }
        match panels.tab.get() {
            Tab::Log => ().into_any(),
            Tab::Job => view! { <job::JobPanel /> }.into_any(),
            Tab::Inputs => view! { <inputs::InputsPanel /> }.into_any(),
            Tab::Outputs => view! { <outputs::OutputsPanel /> }.into_any(),
            Tab::Settings => view! { <settings::SettingsPanel /> }.into_any(),
        }
    });
    view! {
        <div class="page" data-side=side>
            <header::Header />
            <main class="main">
                <section class="work" aria-label="Log">{work}</section>
                <aside class="side" aria-label="Panel">{panel}</aside>
            </main>
            <footer::Footer />
        </div>
    }
    .into_any()
}

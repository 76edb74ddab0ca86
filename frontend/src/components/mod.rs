//! What is drawn. A component reads signals, renders, and forwards what the user wants; it decides nothing.
#![expect(unreachable_pub, reason = "the component macro writes functions of its own")]

mod files;
mod footer;
mod header;
mod inputs;
mod job;
mod log;
mod log_search;
mod outputs;
mod queue;
mod resizer;
mod settings;
mod share;
mod start;
mod trouble;

use leptos::prelude::*;
use wasm_bindgen::JsCast;

use crate::live::Live;
use crate::ui::{dynamic, flag, words};

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

    fn of_class(class: &str) -> Self {
        let all = [Self::Job, Self::Inputs, Self::Outputs, Self::Settings];
        all.into_iter().find(|tab| tab.class() == class).unwrap_or(Self::Log)
    }
}

/// Which panel is open. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct Panels {
    /// [`Tab::class`] of the user's choice; empty without one.
    chosen: RwSignal<String>,
    /// [`Tab::class`] of what is open: the user's choice, else what the job's state suggests.
    pub tab: Memo<String>,
    pub is_queue_open: RwSignal<bool>,
}

impl Panels {
    fn new(live: Live) -> Self {
        let chosen = RwSignal::new(String::new());
        let had_outputs = Memo::new(move |before: Option<&bool>| {
            before.is_some_and(|before| *before) || !live.outputs.with(|outputs| outputs.is_empty())
        });
        // Without the parameter `terminal` the editor is open from the start, if there is something to edit.
        let shows_editor = Memo::new(move |_| {
            live.is_idle.get()
                || live.address.with(|address| !address.settings.terminal)
                    && live.files.with(|files| !files.is_empty())
        });
        let tab = Memo::new(move |_| {
            let chosen = chosen.get();
            let suggested = match () {
                () if !chosen.is_empty() => return chosen,
                () if had_outputs.get() => Tab::Outputs,
                () if shows_editor.get() => Tab::Job,
                () => Tab::Log,
            };
            suggested.class().to_owned()
        });
        Self { chosen, tab, is_queue_open: RwSignal::new(false) }
    }

    /// Nobody has chosen a panel: on narrow screens a running job then shows its log.
    fn is_by_itself(self) -> bool {
        self.chosen.with(String::is_empty) && !self.is_queue_open.get()
    }

    /// Closes what is open, and puts the focus on the button that opens it again.
    fn close(self) {
        let was = self.tab.get_untracked();
        self.open(Tab::Log);
        let selector = format!(".header [data-tab=\"{was}\"]");
        let document = crate::browser::window().document();
        if let Some(Ok(Some(button))) = document.map(|document| document.query_selector(&selector)) {
            let _ = button.unchecked_into::<web_sys::HtmlElement>().focus();
        }
    }

    /// Opens a panel, or closes it when it is open.
    pub fn toggle(self, tab: Tab) {
        let is_open = self.tab.get_untracked() == tab.class() && !self.is_queue_open.get_untracked();
        self.is_queue_open.set(false);
        self.chosen.set(if is_open { Tab::Log } else { tab }.class().to_owned());
    }

    pub fn open(self, tab: Tab) {
        self.is_queue_open.set(false);
        self.chosen.set(tab.class().to_owned());
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
    let side = words(move || if show_queue.get() { "queue".to_owned() } else { panels.tab.get() });
    let work = dynamic(move || {
        if live.is_blank.get() {
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
        match Tab::of_class(&panels.tab.get()) {
            Tab::Log => ().into_any(),
            Tab::Job => view! { <job::JobPanel /> }.into_any(),
            Tab::Inputs => view! { <inputs::InputsPanel /> }.into_any(),
            Tab::Outputs => view! { <outputs::OutputsPanel /> }.into_any(),
            Tab::Settings => view! { <settings::SettingsPanel /> }.into_any(),
        }
    });
    let shows_log = flag(move || panels.is_by_itself() && live.header.with(|header| header.is_busy));
    let escape = move |event: web_sys::KeyboardEvent| {
        // In an editor the key is the editor's: it lets Tab leave.
        let target = event.target().and_then(|target| target.dyn_into::<web_sys::Element>().ok());
        let is_editor = target.is_some_and(|target| target.closest(".code-editor").ok().flatten().is_some());
        if event.key() == "Escape" && !is_editor && !show_queue.get_untracked() {
            panels.close();
        }
    };
    view! {
        <div class="page" data-side=side class:live=shows_log>
            <header::Header />
            <main class="main">
                <section class="work" aria-label="Log">{work}</section>
                <resizer::Resizer />
                <aside class="side" aria-label="Panel" on:keydown=escape>{panel}</aside>
            </main>
            <footer::Footer />
        </div>
    }
    .into_any()
}

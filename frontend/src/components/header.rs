//! The header: state, time, what came of it, one primary action. In a strip it is all there is.

use leptos::prelude::*;

use super::{Panels, Tab};
use crate::live::Live;
use crate::state::Intent;
use crate::state::actions::JobButton;
use crate::text;

#[component]
pub(super) fn Header() -> impl IntoView {
    let live = expect_context::<Live>();
    let header = live.header;
    let since = move || {
        let since = header.with(|header| header.since)?;
        Some(text::running_duration(live.now.get().since(since)))
    };
    let suffix = move || {
        let suffix = header.with(|header| header.suffix.clone());
        [Some(suffix).filter(|suffix| !suffix.is_empty()), since()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let detail = move || {
        let (ago, detail) = header.with(|header| (header.detail_ago, header.detail.clone()));
        let ago = ago.map(|ago| format!("queued {}", text::ago(live.now.get().since(ago))));
        [ago, Some(detail).filter(|detail| !detail.is_empty())]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" · ")
    };
    view! {
        <header class="header" data-tone=move || header.with(|header| header.tone.class())>
            <span class="dot" class:busy=move || header.with(|header| header.is_busy)></span>
            <div class="status">
                <p role="status">
                    <strong>{move || header.with(|header| header.title.clone())}</strong>
                    " "
                    <span>{suffix}</span>
                </p>
                <p class="detail" title=detail>
                    <span class="what">{detail}</span>
                    <JobLink />
                </p>
            </div>
            <Tabs />
            <super::share::ShareMenu />
            <JobButtons />
        </header>
    }
}

/// `Id: <first 5>`, a link to the job at its queue's server.
#[component]
fn JobLink() -> impl IntoView {
    let live = expect_context::<Live>();
    let link = move || {
        let id = live.job_id.get()?;
        let origin = live.queue.with(|queue| queue.api_origin.clone());
        let short: String = id.chars().take(5).collect();
        Some(view! {
            <a class="id" href=format!("{origin}/j/{id}") target="_blank" rel="noopener" title="This job at its queue's server">
                {short}
            </a>
        })
    };
    view! { {link} }
}

#[component]
fn JobButtons() -> impl IntoView {
    let live = expect_context::<Live>();
    let button = live.button;
    let press = move |_| {
        if let Some(intent) = button.with_untracked(JobButton::intent) {
            live.want(intent);
        }
    };
    let blocked = move || match button.get() {
        JobButton::Blocked(why) => Some(why),
        _ => None,
    };
    let icon = move || match button.get() {
        JobButton::Stop => "■",
        _ => "▶",
    };
    view! {
        <div class="actions">
            <Show when=move || live.can_delete.get() fallback=|| ()>
                <button
                    type="button"
                    class="quiet delete"
                    title="Delete the stored result"
                    on:click=move |_| live.want(Intent::Delete)
                >
                    "Delete"
                </button>
            </Show>
            <button
                type="button"
                class="job-button"
                class:primary=move || button.get() != JobButton::Stop
                hidden=move || button.get() == JobButton::None
                disabled=move || blocked().is_some()
                title=move || blocked().unwrap_or_default()
                on:click=press
            >
                <span class="icon" aria-hidden="true">{icon}</span>
                <span class="label">{move || button.with(JobButton::label)}</span>
            </button>
        </div>
    }
}

/// Which panel is open: a segmented control on wide screens, tabs on narrow ones.
#[component]
fn Tabs() -> impl IntoView {
    let live = expect_context::<Live>();
    let panels = expect_context::<Panels>();
    let n_files =
        move || live.address.with(|address| address.settings.files.as_ref().map_or(0, serde_json::Map::len));
    let n_inputs = move || live.inputs.with(Vec::len) + n_files();
    let n_outputs = move || live.outputs.with(Vec::len);
    let tab = move |tab: Tab, label: &'static str, count: Signal<usize>| {
        let is_on = move || panels.tab.get() == tab && !panels.is_queue_open.get();
        view! {
            <button
                type="button"
                data-tab=tab.class()
                aria-pressed=move || is_on().to_string()
                on:click=move |_| if tab == Tab::Log { panels.open(tab) } else { panels.toggle(tab) }
            >
                {label}
                {move || (count.get() > 0).then(|| view! { <span class="badge">{count.get()}</span> })}
            </button>
        }
    };
    let none = Signal::derive(|| 0);
    view! {
        <nav class="tabs" aria-label="Panels">
            {tab(Tab::Log, "Log", none)}
            {tab(Tab::Job, "Job", none)}
            {tab(Tab::Inputs, "Inputs", Signal::derive(n_inputs))}
            {tab(Tab::Outputs, "Outputs", Signal::derive(n_outputs))}
            {tab(Tab::Settings, "Settings", none)}
        </nav>
    }
}

//! The header: state, time, what came of it, one primary action. In a strip it is all there is.

use leptos::prelude::*;

use super::{Panels, Tab};
use crate::live::Live;
use crate::state::Intent;
use crate::state::actions::JobButton;
use crate::text;
use crate::ui::{dynamic, flag, words};

#[component]
pub(super) fn Header() -> AnyView {
    let live = expect_context::<Live>();
    let header = live.header;
    let suffix = words(move || {
        let (suffix, since) = header.with(|header| (header.suffix.clone(), header.since));
        let since = since.map(|since| text::running_duration(live.now().since(since)));
        let kept = header.with(|header| header.kept_since);
        let kept = kept.map(|kept| format!("ran {}", text::ago(live.now().since(kept))));
        join([Some(suffix), since.or(kept)], " · ")
    });
    let detail = words(move || {
        let (ago, detail) = header.with(|header| (header.detail_ago, header.detail.clone()));
        let ago = ago.map(|ago| format!("queued {}", text::ago(live.now().since(ago))));
        join([ago, Some(detail)], " · ")
    });
    let tone = words(move || header.with(|header| header.tone.class().to_owned()));
    let is_busy = flag(move || header.with(|header| header.is_busy));
    let title = words(move || header.with(|header| header.title.clone()));
    let progress = dynamic(move || match live.percent.get() {
        Some(percent) => {
            view! { <progress max="100" value=percent.to_string() aria-label="Progress"></progress> }
                .into_any()
        }
        None => ().into_any(),
    });
    view! {
        <header class="header" data-tone=tone>
            <span class="dot" class:busy=is_busy></span>
            <div class="status">
                <p role="status">
                    <strong>{title}</strong>
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
            {progress}
        </header>
    }
    .into_any()
}

fn join(parts: [Option<String>; 2], between: &str) -> String {
    parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(between)
}

/// The first five digits of the id, a link to the job at its queue's server.
#[component]
fn JobLink() -> AnyView {
    let live = expect_context::<Live>();
    let link = dynamic(move || match live.job_link.get() {
        Some((href, id)) => {
            let short: String = id.chars().take(5).collect();
            let title = "This job at its queue's server; a click copies its id";
            let copy = move |_| {
                let id = id.clone();
                wasm_bindgen_futures::spawn_local(async move {
                    crate::browser::clipboard::copy(&id).await;
                });
            };
            view! {
                <a class="id" href=href target="_blank" rel="noopener" title=title on:click=copy>{short}</a>
            }
            .into_any()
        }
        None => ().into_any(),
    });
    view! { {link} }.into_any()
}

#[component]
fn JobButtons() -> AnyView {
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
    let icon = words(move || if button.get() == JobButton::Stop { "■" } else { "▶" }.to_owned());
    let label = words(move || button.with(|button| button.label()).to_owned());
    let why = words(move || blocked().unwrap_or_default().to_owned());
    let is_primary = flag(move || button.get() != JobButton::Stop);
    let is_none = flag(move || button.get() == JobButton::None);
    let cannot_delete = flag(move || !live.can_delete.get());
    let cannot_stop = flag(move || !live.can_stop.get());
    view! {
        <div class="actions">
            <button
                type="button"
                class="quiet delete"
                title="Delete the stored result"
                hidden=cannot_delete
                on:click=move |_| live.want(Intent::Delete)
            >
                "Delete"
            </button>
            <button type="button" hidden=cannot_stop on:click=move |_| live.want(Intent::Stop)>
                <span class="icon" aria-hidden="true">"■"</span>
                <span class="label">"Stop Job"</span>
            </button>
            <button
                type="button"
                class="job-button"
                class:primary=is_primary
                hidden=is_none
                disabled=flag(move || blocked().is_some())
                title=why
                on:click=press
            >
                <span class="icon" aria-hidden="true">{icon}</span>
                <span class="label">{label}</span>
            </button>
        </div>
    }
    .into_any()
}

/// Which panel is open: a segmented control on wide screens, tabs on narrow ones.
#[component]
fn Tabs() -> AnyView {
    let live = expect_context::<Live>();
    let panels = expect_context::<Panels>();
    let none = words(String::new);
    let shown = |count: usize| if count == 0 { String::new() } else { count.to_string() };
    let n_inputs = words(move || shown(live.inputs.with(Vec::len) + live.files.with(Vec::len)));
    let n_outputs = words(move || shown(live.outputs.with(|outputs| outputs.len())));
    let tabs = [
        (Tab::Log, "Log", none),
        (Tab::Job, "Job", none),
        (Tab::Inputs, "Inputs", n_inputs),
        (Tab::Outputs, "Outputs", n_outputs),
        (Tab::Settings, "Settings", none),
    ];
    let buttons = tabs.map(|(tab, label, count)| {
        let is_on = words(move || {
            let is_on = panels.tab.get() == tab.class() && !panels.is_queue_open.get();
            is_on.to_string()
        });
        let has_none = flag(move || count.with(String::is_empty));
        let press = move |_| if tab == Tab::Log { panels.open(tab) } else { panels.toggle(tab) };
        view! {
            <button type="button" data-tab=tab.class() aria-pressed=is_on on:click=press>
                {label}
                <span class="badge" hidden=has_none>{count}</span>
            </button>
        }
        .into_any()
    });
    view! {
        <nav class="tabs" aria-label="Panels">
            {buttons.collect_view()}
        </nav>
    }
    .into_any()
}

//! The queue: its button with a dot, a masked name and its workers; behind it everything about machines.

use leptos::html::{Button, Div};
use leptos::prelude::*;

use super::Panels;
use crate::browser::timer::Timeout;
use crate::browser::{self, storage};
use crate::live::Live;
use crate::screen::QueueView;
use crate::state::Intent;
use crate::text;
use crate::ui::{Command, CopyButton, Switch, dynamic, flag, shown_if, words as read};
use crate::view::Tone;
use crate::view::lists::JobItem;

/// A pause this long in the typing of a name applies it, in milliseconds.
const TYPED_MS: i64 = 1_000;

/// Writes a new queue's name, an unguessable key, into the address.
pub(super) fn make_queue(live: Live) {
    match browser::random_key() {
        Some(key) => live.edit(vec![("queue".into(), Some(key))]),
        None => leptos::logging::warn!("this browser gives no random numbers fit for a secret"),
    }
}

fn tone(queue: &QueueView) -> Tone {
    if queue.name.is_empty() {
        Tone::Bad
    } else if !queue.is_connected || queue.has_no_worker {
        Tone::Warn
    } else {
        Tone::Good
    }
}

fn words(queue: &QueueView) -> String {
    if queue.name.is_empty() {
        return "Connect a computer".to_owned();
    }
    // A queue elsewhere is named with its place.
    let host = queue.api_origin.split_once("://").map_or("", |(_, host)| host);
    let is_elsewhere = queue.name != "local" && queue.api_origin != crate::browser::location::origin();
    let name = text::masked(&queue.key);
    let mut words = vec![if is_elsewhere { format!("{name} at {host}") } else { name }];
    if !queue.is_connected {
        words.push("connecting".to_owned());
        return words.join(" · ");
    }
    words.extend(queue.n_workers.map(|count| text::plural(count, "worker", "workers")));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of GPUs")]
    let gpus = queue.summary.map_or(0, |summary| summary.gpus.0 as u64);
    if gpus > 0 {
        words.push(text::plural(gpus, "GPU", "GPUs"));
    }
    words.join(" · ")
}

/// Opens and closes the panel.
#[component]
pub(super) fn QueueButton() -> AnyView {
    let live = expect_context::<Live>();
    let panels = expect_context::<Panels>();
    let button = NodeRef::<Button>::new();
    // The panel gives the focus back to where it came from.
    Effect::new(move |was_open: Option<bool>| {
        let is_open = panels.is_queue_open.get();
        if was_open == Some(true)
            && !is_open
            && let Some(button) = button.get_untracked()
        {
            let _ = button.focus();
        }
        is_open
    });
    view! {
        <button
            type="button"
            class="queue-button"
            node_ref=button
            data-tone=read(move || live.queue.with(|queue| tone(queue).class().to_owned()))
            aria-expanded=read(move || panels.is_queue_open.get().to_string())
            title="The queue and its workers"
            on:click=move |_| panels.is_queue_open.update(|is_open| *is_open = !*is_open)
        >
            <span class="dot"></span>
            <span class="label">{read(move || live.queue.with(words))}</span>
        </button>
    }
    .into_any()
}

#[component]
pub(super) fn QueuePanel() -> AnyView {
    let live = expect_context::<Live>();
    let panels = expect_context::<Panels>();
    let panel = NodeRef::<Div>::new();
    Effect::new(move |_| {
        if let Some(panel) = panel.get() {
            let _ = panel.focus();
        }
    });
    let close = move || panels.is_queue_open.set(false);
    let has_queue = flag(move || live.queue.with(|queue| !queue.key.is_empty()));
    let has_override = flag(move || live.address.with(|address| address.queue_override().is_some()));
    let can_lock = flag(move || has_override.get() && browser::is_embedded());
    let is_locked = flag(move || live.queue.with(|queue| queue.is_locked));
    let name = read(move || live.queue.with(|queue| queue.name.clone()));
    let command =
        Signal::derive(move || live.queue.with(|queue| text::worker_command(&queue.api_origin, &queue.key)));
    let local_label = read(move || {
        let is_local = live.queue.with(|queue| queue.name == "local");
        if is_local { "Back to the shared queue" } else { "Use this computer" }.to_owned()
    });
    let set_name = move |text: String| {
        let text = text.trim().to_owned();
        let mut changes = vec![("queue".into(), (!text.is_empty()).then_some(text))];
        // What is typed here counts: alone, nobody around the page could want another queue.
        if has_override.get_untracked() && !is_locked.get_untracked() {
            changes.push(("ignoreQueueOverride".into(), Some("true".into())));
        }
        live.edit(changes);
    };
    // A pause in the typing applies the name, as Enter does.
    let typing = StoredValue::new_local(None::<Timeout>);
    let typed = move |text: String| {
        typing.set_value(Timeout::new(TYPED_MS, move || set_name(text)));
    };
    let set_lock = move |is_on: bool| {
        live.edit(vec![("ignoreQueueOverride".into(), (!is_on).then(|| "true".into()))]);
    };
    view! {
        <div
            class="panel queue"
            node_ref=panel
            tabindex="-1"
            on:keydown=move |event| {
                if event.key() == "Escape" {
                    close();
                }
            }
        >
            <header class="panel-head">
                <h2>"Queue"</h2>
                <button type="button" class="quiet" aria-label="Esc, close" on:click=move |_| close()>"Esc ✕"</button>
            </header>
            <label class="field">
                <span>"Name"</span>
                <input
                    type="text"
                    class="code"
                    spellcheck="false"
                    autocomplete="off"
                    autocapitalize="off"
                    placeholder="a long secret name, or an address"
                    prop:value=name
                    disabled=is_locked
                    on:input=move |event| typed(event_target_value(&event))
                    on:change=move |event| {
                        typing.set_value(None);
                        set_name(event_target_value(&event));
                    }
                />
            </label>
            {shown_if(can_lock, move || {
                view! { <Switch label="The metapage sets the queue" is_on=is_locked on_change=Box::new(set_lock) /> }
                    .into_any()
            })}
            <p class="row">
                <button type="button" disabled=is_locked on:click=move |_| make_queue(live)>"New queue"</button>
                <button type="button" disabled=is_locked on:click=move |_| toggle_local(live)>{local_label}</button>
                {shown_if(has_queue, move || view! { <CopyButton text=Box::new(move || name.get_untracked()) label="Copy the name" /> }.into_any())}
            </p>
            <p class="hint">
                <strong>"The name is the key. "</strong>
                "Whoever has it can run jobs on these computers and see what runs. Share it as you would a password."
            </p>
            {shown_if(has_queue, move || {
                view! {
                    <Workers />
                    <Jobs />
                    <h3>"Add a computer that has Docker"</h3>
                    <Command text=command />
                }
                    .into_any()
            })}
        </div>
    }
    .into_any()
}

#[component]
fn Workers() -> AnyView {
    let live = expect_context::<Live>();
    let summary = read(move || {
        live.queue.with(|queue| {
            let summary = queue.summary.as_ref().map(|summary| {
                let running = text::plural(summary.running, "job running", "jobs running");
                format!("{running}, {} waiting", text::count(summary.queued))
            });
            summary.unwrap_or_default()
        })
    });
    let list = dynamic(move || match live.workers.get() {
        None => view! { <p class="empty">"Asking the queue…"</p> }.into_any(),
        Some(workers) if workers.is_empty() => {
            view! { <p class="empty">"None yet. Start one with the command below."</p> }.into_any()
        }
        Some(workers) => {
            let items = workers.into_iter().map(|worker| {
                view! {
                    <li data-tone="good">
                        <span class="dot"></span>
                        <span class="name">{worker.id}</span>
                        <small>{worker.what}</small>
                    </li>
                }
            });
            view! { <ul class="list">{items.collect_view()}</ul> }.into_any()
        }
    });
    view! {
        <h3>"Computers"</h3>
        {list}
        <p class="hint">{summary}</p>
    }
    .into_any()
}

/// What runs and waits in the queue; each can be ended, others' only after a second thought.
#[component]
fn Jobs() -> AnyView {
    let live = expect_context::<Live>();
    let list = dynamic(move || {
        let jobs = live.jobs.get();
        if jobs.is_empty() {
            return ().into_any();
        }
        let items = jobs.into_iter().map(|job| view! { <Job job=job /> }).collect_view();
        view! {
            <h3>"Jobs"</h3>
            <ul class="list">{items}</ul>
        }
        .into_any()
    });
    view! { {list} }.into_any()
}

#[component]
fn Job(job: JobItem) -> AnyView {
    let live = expect_context::<Live>();
    let asks = RwSignal::new(false);
    let JobItem { id, tone, what, since, is_this, is_live, is_own } = job;
    let name = if is_this { "this job".to_owned() } else { id.as_str().chars().take(5).collect() };
    let age = read(move || {
        let age = live.now().since(since);
        if is_live {
            // After a reason the time would read as a part of it.
            let between = if what.contains(':') { " · " } else { " " };
            format!("{what}{between}{}", text::running_duration(age))
        } else {
            format!("{what} {}", text::ago(age))
        }
    });
    let label = read(move || if asks.get() { "End it for everybody?" } else { "Cancel" }.to_owned());
    let press = move |_| {
        if is_own || asks.get_untracked() {
            live.want(Intent::Cancel { job: id.clone(), everybody: !is_own });
        } else {
            asks.set(true);
        }
    };
    view! {
        <li data-tone=tone.class()>
            <span class="dot"></span>
            <span class="name">{name}</span>
            <small>{age}</small>
            <button type="button" class="quiet" hidden=!is_live on:click=press on:blur=move |_| asks.set(false)>{label}</button>
        </li>
    }
    .into_any()
}

/// Switches to the worker on this machine and back; the former name is remembered where that is allowed.
fn toggle_local(live: Live) {
    const PREVIOUS: &str = "previous-queue";
    let name = live.queue.with_untracked(|queue| queue.name.clone());
    if name == "local" {
        live.edit(vec![("queue".into(), storage::local_get(PREVIOUS))]);
    } else {
        storage::local_set(PREVIOUS, (!name.is_empty()).then_some(name.as_str()));
        live.edit(vec![("queue".into(), Some("local".into()))]);
    }
}

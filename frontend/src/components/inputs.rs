//! Files of the job (the parameter `inputs`), and what comes from upstream.

use leptos::prelude::*;
use serde_json::{Map, Value};

use crate::browser::download;
use crate::live::Live;
use crate::ui::{dynamic, words};
use crate::view::lists::{Content, InputItem};

/// Sets or removes one file of the parameter `inputs`.
fn write(live: Live, name: &str, text: Option<String>) {
    let mut files = live.address.with_untracked(|address| address.settings.files.clone()).unwrap_or_default();
    match text {
        Some(text) => files.insert(name.to_owned(), Value::from(text)),
        None => files.shift_remove(name),
    };
    write_all(live, files);
}

fn write_all(live: Live, files: Map<String, Value>) {
    let encoded = (!files.is_empty())
        .then(|| dockframe_shared::metaframe::hash_params::encode_json(&Value::Object(files)));
    live.edit(vec![("inputs".into(), encoded)]);
}

/// Where the container finds a file: absolute names as they are.
fn place(name: &str) -> String {
    if name.starts_with('/') { name.to_owned() } else { format!("/inputs/{name}") }
}

#[component]
pub(super) fn InputsPanel() -> AnyView {
    let live = expect_context::<Live>();
    let names = Memo::new(move |_| {
        live.address.with(|address| address.files().into_iter().map(|(name, _)| name).collect::<Vec<_>>())
    });
    let new_name = RwSignal::new(String::new());
    let add = move || {
        let name = new_name.get_untracked().trim().to_owned();
        if !name.is_empty() && !names.with_untracked(|names| names.contains(&name)) {
            write(live, &name, Some(String::new()));
            new_name.set(String::new());
        }
    };
    let upstream = dynamic(move || {
        let items = live.inputs.get();
        if items.is_empty() {
            let words = "Nothing yet. What other metaframes send to this one appears here.";
            return view! { <p class="empty">{words}</p> }.into_any();
        }
        let items = items.into_iter().map(|item| view! { <Upstream item=item /> }).collect_view();
        view! { <ul class="list">{items}</ul> }.into_any()
    });
    view! {
        <div class="panel inputs">
            <h3>"Files of the job"</h3>
            <For each=move || names.get() key=Clone::clone let:name>
                <FileEditor name=name />
            </For>
            <form
                class="row"
                on:submit=move |event| {
                    event.prevent_default();
                    add();
                }
            >
                <input
                    type="text"
                    class="code"
                    aria-label="Name of a new file"
                    placeholder="fit.py"
                    spellcheck="false"
                    autocapitalize="off"
                    prop:value=new_name
                    on:input=move |event| new_name.set(event_target_value(&event))
                />
                <button type="submit">"Add file"</button>
            </form>
            <h3>"From upstream"</h3>
            {upstream}
        </div>
    }
    .into_any()
}

#[component]
fn FileEditor(name: String) -> AnyView {
    let live = expect_context::<Live>();
    let stored = {
        let name = name.clone();
        Memo::new(move |_| {
            live.address.with(|address| {
                let files = address.settings.files.as_ref();
                files
                    .and_then(|files| files.get(&name))
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            })
        })
    };
    let (save_name, remove_name) = (name.clone(), name.clone());
    let asks = RwSignal::new(false);
    view! {
        <details class="file editor" open>
            <summary>
                <span class="name">{place(&name)}</span>
                <button
                type="button"
                class="save quiet"
                on:click=move |event| {
                    event.prevent_default();
                    if asks.get_untracked() {
                        write(live, &remove_name, None);
                    } else {
                        asks.set(true);
                    }
                }
                on:blur=move |_| asks.set(false)
            >
                {words(move || if asks.get() { "Really delete?" } else { "Delete" }.to_owned())}
                </button>
            </summary>
            <textarea
                class="code"
                aria-label=format!("Content of {name}")
                spellcheck="false"
                autocapitalize="off"
                rows="10"
                prop:value=stored
                on:change=move |event| write(live, &save_name, Some(event_target_value(&event)))
            ></textarea>
        </details>
    }
    .into_any()
}

#[component]
fn Upstream(item: InputItem) -> AnyView {
    let InputItem { name, what, fault, content } = item;
    let save = {
        let name = name.clone();
        move |_| match &content {
            Some(Content::Bytes(bytes)) => download::save(&name, bytes),
            Some(Content::Url(url)) => download::save_url(&name, url),
            None => {}
        }
    };
    let tone = if fault.is_some() { "bad" } else { "idle" };
    view! {
        <li data-tone=tone>
            <span class="name">{place(&name)}</span>
            <small>{what}</small>
            <button type="button" class="quiet" aria-label=format!("Download {name}") title="Download" on:click=save>
                "⤓"
            </button>
            {fault.map(|fault| view! { <p class="fault">{fault}</p> })}
        </li>
    }
    .into_any()
}

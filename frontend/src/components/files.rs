//! Files of the job (the parameter `inputs`): one is open in the editor, the others are tabs. What is typed is a
//! draft until it is saved; the header's button then saves and runs.

use std::rc::Rc;

use leptos::prelude::*;
use serde_json::{Map, Value};

use crate::browser::storage;
use crate::live::Live;
use crate::state::Intent;
use crate::ui::code::Code;
use crate::ui::{dynamic, flag, shown_if, words};

/// Where the file that was open last is remembered.
const REMEMBERED: &str = "dockframe-file";

/// Sets or removes one file of the parameter `inputs`.
fn write(live: Live, name: &str, text: Option<String>) {
    let mut files: Map<String, Value> = live.with_state(|state| state.files().cloned()).unwrap_or_default();
    match text {
        Some(text) => files.insert(name.to_owned(), Value::from(text)),
        None => files.shift_remove(name),
    };
    let encoded = (!files.is_empty())
        .then(|| dockframe_shared::metaframe::hash_params::encode_json(&Value::Object(files)));
    live.edit(vec![("inputs".into(), encoded)]);
}

/// Where the container finds a file: absolute names as they are.
pub(super) fn place(name: &str) -> String {
    if name.starts_with('/') { name.to_owned() } else { format!("/inputs/{name}") }
}

#[component]
pub(super) fn Files() -> AnyView {
    let live = expect_context::<Live>();
    let chosen = RwSignal::new(storage::local_get(REMEMBERED).unwrap_or_default());
    // Scripts are what people come to edit: without a choice the first of them is open, not the first of all.
    let open = Memo::new(move |_| {
        let chosen = chosen.get();
        live.files.with(|names| {
            let is_script =
                |name: &&String| !matches!(name.rsplit('.').next(), Some("csv" | "tsv" | "txt" | "json"));
            let first = || names.iter().find(is_script).or(names.first()).cloned();
            if names.contains(&chosen) { chosen } else { first().unwrap_or_default() }
        })
    });
    let choose = move |name: String| {
        storage::local_set(REMEMBERED, Some(&name));
        chosen.set(name);
    };
    let tabs = dynamic(move || {
        let tabs = live.files.get().into_iter().map(|name| {
            let is_open = {
                let name = name.clone();
                words(move || open.with(|open| *open == name).to_string())
            };
            let is_draft = {
                let name = name.clone();
                flag(move || live.drafts.with(|drafts| drafts.contains(&name)))
            };
            let press = {
                let name = name.clone();
                move |_| choose(name.clone())
            };
            view! {
                <button type="button" aria-pressed=is_open class:draft=is_draft on:click=press>{name}</button>
            }
        });
        tabs.collect_view().into_any()
    });
    let is_adding = RwSignal::new(false);
    let editor = dynamic(move || {
        let name = open.get();
        if name.is_empty() {
            let words = "Scripts and small data that belong to the job. They are in /inputs when it runs.";
            return view! { <p class="empty">{words}</p> }.into_any();
        }
        view! { <FileEditor name=name /> }.into_any()
    });
    view! {
        <section class="files" aria-label="Files of the job">
            <div class="file-tabs">
                {tabs}
                <button
                    type="button"
                    class="quiet"
                    aria-expanded=words(move || is_adding.get().to_string())
                    on:click=move |_| is_adding.update(|is_adding| *is_adding = !*is_adding)
                >
                    "+ file"
                </button>
            </div>
            {shown_if(flag(move || is_adding.get()), move || {
                let added = Rc::new(move |name: String| {
                    is_adding.set(false);
                    if !live.files.with_untracked(|names| names.contains(&name)) {
                        write(live, &name, Some(String::new()));
                    }
                    choose(name);
                });
                view! { <NewFile on_name=added /> }.into_any()
            })}
            {editor}
        </section>
    }
    .into_any()
}

#[component]
fn NewFile(on_name: Rc<dyn Fn(String)>) -> AnyView {
    let name = RwSignal::new(String::new());
    let add = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let name = name.get_untracked().trim().to_owned();
        if !name.is_empty() {
            on_name(name);
        }
    };
    view! {
        <form class="row" on:submit=add>
            <input
                type="text"
                class="code"
                aria-label="Name of the new file"
                placeholder="fit.py"
                spellcheck="false"
                autocapitalize="off"
                autofocus
                prop:value=words(move || name.get())
                on:input=move |event| name.set(event_target_value(&event))
            />
            <button type="submit">"Add file"</button>
        </form>
    }
    .into_any()
}

#[component]
fn FileEditor(name: String) -> AnyView {
    let live = expect_context::<Live>();
    // The draft if there is one; follows the address.
    let value = {
        let name = name.clone();
        words(move || {
            live.drafts.track();
            live.address.track();
            live.with_state(|state| {
                let draft = state.drafts.get(&name).map(String::as_str);
                draft.or_else(|| state.saved_file(&name)).unwrap_or_default().to_owned()
            })
        })
    };
    let edit = {
        let name = name.clone();
        Rc::new(move |text: String| live.want(Intent::Draft { file: name.clone(), text }))
    };
    let save = Rc::new(move || live.want(Intent::Save));
    let is_draft = {
        let name = name.clone();
        flag(move || live.drafts.with(|drafts| drafts.contains(&name)))
    };
    let asks = RwSignal::new(false);
    let remove = {
        let name = name.clone();
        move |_| {
            if asks.get_untracked() {
                write(live, &name, None);
            } else {
                asks.set(true);
            }
        }
    };
    let label = format!("Content of {name}");
    let where_it_is = place(&name);
    view! {
        <p class="row file-bar">
            <code>{where_it_is}</code>
            <span class="grow"></span>
            {shown_if(is_draft, move || {
                view! {
                    <small>"not saved"</small>
                    <button type="button" title="Ctrl-S" on:click=move |_| live.want(Intent::Save)>"Save"</button>
                }
                    .into_any()
            })}
            <button type="button" class="quiet" on:click=remove on:blur=move |_| asks.set(false)>
                {words(move || if asks.get() { "Really delete?" } else { "Delete" }.to_owned())}
            </button>
        </p>
        <Code name=name label=label value=value on_edit=edit on_save=save rows=14 />
    }
    .into_any()
}

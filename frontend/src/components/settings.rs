//! Settings: how the job runs, where its image comes from, what a metapage editor offers. Fields and switches take
//! effect at once; the image is a form with a button, since its parts belong together.

use std::rc::Rc;

use leptos::prelude::*;
use serde_json::{Value, json};

use super::job::{text_of, write};
use crate::browser::storage;
use crate::live::Live;
use crate::state::Intent;
use crate::state::edit;
use crate::ui::code::Code;
use crate::ui::{Area, Field, Switch, dynamic, flag, shown_if, words};

const CONFIGURE: &str = "Configure";
const IMAGE: &str = "Image";
const DEFINITION: &str = "Definition";
const SECTIONS: [&str; 3] = [CONFIGURE, IMAGE, DEFINITION];
/// Where the last used tab is remembered.
const REMEMBERED: &str = "settings-tab";
/// Where the image's name is remembered when the job is to build its image instead.
const FORMER_IMAGE: &str = "dockerImage";

#[component]
pub(super) fn SettingsPanel() -> AnyView {
    let remembered = storage::local_get(REMEMBERED);
    let first = SECTIONS.into_iter().find(|label| remembered.as_deref() == Some(label));
    let section = RwSignal::new(first.unwrap_or(CONFIGURE).to_owned());
    let tabs = SECTIONS
        .map(|label| {
            let pressed = words(move || section.with(|section| section == label).to_string());
            let choose = move |_| {
                storage::local_set(REMEMBERED, Some(label));
                section.set(label.to_owned());
            };
            view! { <button type="button" aria-pressed=pressed on:click=choose>{label}</button> }
        })
        .collect_view();
    view! {
        <div class="panel settings">
            <nav class="tabs" aria-label="Settings">{tabs}</nav>
            {dynamic(move || match section.get().as_str() {
                IMAGE => view! { <Image /> }.into_any(),
                DEFINITION => view! { <Definition /> }.into_any(),
                _ => view! { <Configure /> }.into_any(),
            })}
        </div>
    }
    .into_any()
}

/// A switch for a parameter of the address.
fn parameter_switch(live: Live, name: &'static str, label: &'static str, hint: &'static str) -> AnyView {
    let is_on = flag(move || live.address.with(|address| address.params.boolean(name)));
    let set = move |is_on: bool| live.edit(vec![(name.into(), is_on.then(|| "true".into()))]);
    view! { <Switch label=label hint=hint is_on=is_on on_change=Box::new(set) /> }.into_any()
}

/// A field of the definition.
fn text_field(live: Live, field: &'static str, label: &'static str, placeholder: &'static str) -> AnyView {
    let set = move |text: String| write(live, field, text.trim());
    view! { <Field label=label placeholder=placeholder value=text_of(live, field) on_change=Box::new(set) /> }
        .into_any()
}

/// A wish of `requirements`; numbers stay numbers.
fn requirement(live: Live, name: &'static str, label: &'static str, placeholder: &'static str) -> AnyView {
    let value = words(move || {
        live.definition.with(|definition| {
            let wishes = definition.as_ref().and_then(|definition| definition.get("requirements"));
            match wishes.and_then(|wishes| wishes.get(name)) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Number(number)) => number.to_string(),
                _ => String::new(),
            }
        })
    });
    let set = move |text: String| {
        let text = text.trim();
        let value = match serde_json::from_str::<f64>(text) {
            _ if text.is_empty() => None,
            Ok(number) if name != "memory" => Some(json!(dockframe_shared::Amount(number))),
            _ => Some(json!(text)),
        };
        let definition = live.definition.get_untracked();
        live.want(Intent::EditDefinition(edit::with_member(
            definition.as_ref(),
            "requirements",
            name,
            value,
        )));
    };
    view! { <Field label=label placeholder=placeholder value=value on_change=Box::new(set) /> }.into_any()
}

#[component]
fn Configure() -> AnyView {
    let live = expect_context::<Live>();
    let limit = words(move || {
        live.address.with(|address| address.params.get("maxJobDuration").unwrap_or_default().to_owned())
    });
    let set_limit = move |text: String| {
        let text = text.trim().to_owned();
        live.edit(vec![("maxJobDuration".into(), (!text.is_empty()).then_some(text))]);
    };
    let env = words(move || live.definition.with(|definition| edit::env_lines(definition.as_ref())));
    let set_env = move |lines: String| {
        let definition = live.definition.get_untracked();
        live.want(Intent::EditDefinition(edit::with_env_lines(definition.as_ref(), &lines)));
    };
    view! {
        {text_field(live, "command", "Command", "python /inputs/fit.py")}
        <div class="fields">
            {text_field(live, "entrypoint", "Entrypoint", "the image's own")}
            {text_field(live, "workdir", "Working directory", "the image's own")}
            <Field label="Longest run" placeholder="5m" value=limit on_change=Box::new(set_limit) />
            {text_field(live, "shmSize", "Shared memory", "64m")}
            {requirement(live, "cpus", "CPUs", "any")}
            {requirement(live, "memory", "Memory", "4G")}
            {requirement(live, "gpus", "GPUs", "none")}
        </div>
        <Area label="Environment" placeholder="KEY=VALUE, one a line" value=env on_change=Box::new(set_env) />
        {parameter_switch(live, "autostart", "Run by itself", "on start, and every time inputs change")}
        {parameter_switch(live, "resolverefs", "Send contents", "instead of references to them, as outputs")}
        {parameter_switch(live, "allowsetjob", "Other metaframes may set this job", "by an input named job")}
        {parameter_switch(live, "terminal", "Show the log first", "instead of the editor, when the page opens")}
        {parameter_switch(live, "debug", "Debug", "keeps more of a run at the worker, and says more in the console")}
    }
    .into_any()
}

/// Fields of the form, in the order of their being filled in.
const BUILD: [(&str, &str, &str); 6] = [
    ("context", "Sources", "https://github.com/owner/repo"),
    ("buildContext", "Folder in the sources", "."),
    ("filename", "Dockerfile's name", "Dockerfile"),
    ("target", "Target", "the last stage"),
    ("platform", "Platform", "the worker's own"),
    ("buildArgs", "Build arguments", "KEY=VALUE, KEY=VALUE"),
];

#[component]
fn Image() -> AnyView {
    let live = expect_context::<Live>();
    let definition = live.definition.get_untracked();
    let text = |name: &str| edit::build_text(definition.as_ref(), name);
    let named = definition.as_ref().and_then(|definition| definition.text("image")).map(str::to_owned);
    let image = named.or_else(|| storage::local_get(FORMER_IMAGE)).unwrap_or_default();
    let is_build =
        RwSignal::new(definition.as_ref().is_some_and(|definition| definition.get("build").is_some()));
    let image = RwSignal::new(image);
    let dockerfile = RwSignal::new(text("dockerfile"));
    let drafts =
        BUILD.map(|(name, label, placeholder)| (name, label, placeholder, RwSignal::new(text(name))));
    let save_form = move || {
        let definition = live.definition.get_untracked();
        let changed = if is_build.get_untracked() {
            // Going back to an image finds its name in the form.
            let named = definition.as_ref().and_then(|definition| definition.text("image"));
            if let Some(image) = named {
                storage::local_set(FORMER_IMAGE, Some(image));
            }
            let mut fields = vec![("dockerfile", dockerfile.get_untracked())];
            fields.extend(drafts.iter().map(|(name, _, _, draft)| (*name, draft.get_untracked())));
            edit::with_build(definition.as_ref(), &fields)
        } else {
            edit::with_image(definition.as_ref(), &image.get_untracked())
        };
        live.want(Intent::EditDefinition(changed));
    };
    let save = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        save_form();
    };
    let draft_field = |label: &'static str, placeholder: &'static str, draft: RwSignal<String>| {
        let value = words(move || draft.get());
        view! { <Field label=label placeholder=placeholder value=value on_change=Box::new(move |text| draft.set(text)) /> }
            .into_any()
    };
    let choice = |label: &'static str, is_for_build: bool| {
        let is_on = flag(move || is_build.get() == is_for_build);
        view! {
            <label class="switch">
                <input type="radio" name="image" prop:checked=is_on on:change=move |_| is_build.set(is_for_build) />
                <span>{label}</span>
            </label>
        }
        .into_any()
    };
    view! {
        <form class="form" on:submit=save>
            {choice("An image by its name", false)}
            {choice("Build the image", true)}
            {dynamic(move || {
                if !is_build.get() {
                    return draft_field("Image", "python:3.12-slim", image);
                }
                let fields = drafts
                    .iter()
                    .map(|(_, label, placeholder, draft)| draft_field(label, placeholder, *draft))
                    .collect_view();
                let text = words(move || dockerfile.get());
                view! {
                    <div class="field">
                        <span>"Dockerfile"</span>
                        <Code
                            name="Dockerfile".to_owned()
                            label="Dockerfile".to_owned()
                            placeholder="FROM python:3.12-slim"
                            value=text
                            on_edit=Rc::new(move |text| dockerfile.set(text))
                            on_save=Rc::new(save_form)
                        />
                    </div>
                    <p class="hint">"Write a Dockerfile, or name sources that hold one."</p>
                    <div class="fields">{fields}</div>
                }
                    .into_any()
            })}
            <p class="row">
                <button type="submit" class="primary">"Save"</button>
            </p>
        </form>
    }
    .into_any()
}

#[component]
fn Definition() -> AnyView {
    view! {
        <p class="hint">"Names that a metapage editor offers for connecting. They change nothing in how the job runs."</p>
        <Pipes side="inputs" label="Inputs" />
        <Pipes side="outputs" label="Outputs" />
    }
    .into_any()
}

#[component]
fn Pipes(side: &'static str, label: &'static str) -> AnyView {
    let live = expect_context::<Live>();
    let set = move |name: &str, kind: Option<&str>| {
        let definition = live.address.with_untracked(|address| address.settings.definition.clone());
        let changed = edit::with_pipe(definition.as_ref(), side, name, kind);
        let encoded = changed
            .map(|fields| dockframe_shared::metaframe::hash_params::encode_json(&Value::Object(fields)));
        live.edit(vec![("definition".into(), encoded)]);
    };
    let name = RwSignal::new(String::new());
    let add = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let text = name.get_untracked().trim().to_owned();
        if !text.is_empty() {
            set(&text, Some(""));
            name.set(String::new());
        }
    };
    let from_run = move |_| {
        for item in live.outputs.get_untracked().iter() {
            set(&item.name, Some(""));
        }
    };
    let has_run = flag(move || side == "outputs" && !live.outputs.with(|outputs| outputs.is_empty()));
    view! {
        <h3>{label}</h3>
        <ul class="list">
            {dynamic(move || {
                live.address
                    .with(|address| edit::pipes(address.settings.definition.as_ref(), side))
                    .into_iter()
                    .map(|(name, kind)| {
                        let (change, remove) = (name.clone(), name.clone());
                        view! {
                            <li>
                                <code class="name">{name}</code>
                                <input
                                    type="text"
                                    class="kind"
                                    aria-label="Type"
                                    placeholder="any type"
                                    prop:value=kind
                                    on:change=move |event| set(&change, Some(event_target_value(&event).trim()))
                                />
                                <button type="button" class="quiet" aria-label="Remove" on:click=move |_| set(&remove, None)>"✕"</button>
                            </li>
                        }
                    })
                    .collect_view()
                    .into_any()
            })}
        </ul>
        <form class="row" on:submit=add>
            <input
                type="text"
                class="code"
                aria-label="Name"
                placeholder="data.csv"
                prop:value=name
                on:input=move |event| name.set(event_target_value(&event))
            />
            <button type="submit">"Add"</button>
            {shown_if(has_run, move || {
                view! { <button type="button" on:click=from_run>"Add from the last run"</button> }.into_any()
            })}
        </form>
    }
    .into_any()
}

//! The job editor: image and command. Every edit is written to the address; there is nothing to save.

use leptos::prelude::*;

use super::{Panels, Tab};
use crate::live::Live;
use crate::state::Intent;
use crate::state::edit::with_text;
use crate::ui::{Field, Switch};

/// The text of a field of the definition.
pub(super) fn text_of(live: Live, field: &'static str) -> Signal<String> {
    Signal::derive(move || {
        live.definition.with(|definition| {
            let value = definition.as_ref().and_then(|definition| definition.text(field));
            value.unwrap_or_default().to_owned()
        })
    })
}

/// Writes a field of the definition.
pub(super) fn write(live: Live, field: &'static str, text: &str) {
    let definition = live.definition.get_untracked();
    live.want(Intent::EditDefinition(with_text(definition.as_ref(), field, text)));
}

#[component]
pub(super) fn JobPanel() -> impl IntoView {
    let live = expect_context::<Live>();
    let panels = expect_context::<Panels>();
    let has_build = move || {
        live.definition.with(|definition| definition.as_ref().is_some_and(|job| job.get("build").is_some()))
    };
    view! {
        <div class="panel job">
            <Show
                when=move || !has_build()
                fallback=move || {
                    view! {
                        <p class="hint">
                            "The image is built from a Dockerfile. "
                            <button type="button" class="link" on:click=move |_| panels.open(Tab::Settings)>
                                "See it in the settings"
                            </button>
                        </p>
                    }
                }
            >
                <Field
                    label="Image"
                    value=text_of(live, "image")
                    is_code=true
                    placeholder="python:3.12-slim"
                    on_change=move |text: String| write(live, "image", text.trim())
                />
            </Show>
            <label class="field">
                <span>"Command"</span>
                <textarea
                    class="code"
                    rows="3"
                    spellcheck="false"
                    autocapitalize="off"
                    placeholder="python /inputs/fit.py"
                    prop:value=text_of(live, "command")
                    on:change=move |event| write(live, "command", event_target_value(&event).trim())
                ></textarea>
            </label>
            <p class="hint">
                "Inputs are files in " <code>"/inputs"</code> ", files written to " <code>"/outputs"</code>
                " become outputs. Pipes and wildcards need a shell: " <code>"sh -c '…'"</code>
            </p>
            <Switch
                label="Run by itself"
                hint="on start, and every time inputs change"
                is_on=Signal::derive(move || live.address.with(|address| address.settings.autostart))
                on_change=move |is_on| live.edit(vec![("autostart".into(), is_on.then(|| "true".into()))])
            />
        </div>
    }
}

//! The job editor: image and command. Every edit is written to the address; there is nothing to save.

use leptos::prelude::*;

use super::{Panels, Tab};
use crate::live::Live;
use crate::state::Intent;
use crate::state::edit::with_text;
use crate::ui::{Area, Field, Switch, dynamic, flag, words};

/// The text of a field of the definition.
pub(super) fn text_of(live: Live, field: &'static str) -> Signal<String> {
    words(move || {
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

/// The switch for `autostart`, here and in the footer.
pub(super) fn autostart(live: Live, label: &'static str, hint: &'static str) -> AnyView {
    let is_on = flag(move || live.address.with(|address| address.settings.autostart));
    let set = move |is_on: bool| live.edit(vec![("autostart".into(), is_on.then(|| "true".into()))]);
    view! { <Switch label=label hint=hint is_on=is_on on_change=Box::new(set) /> }.into_any()
}

#[component]
pub(super) fn JobPanel() -> AnyView {
    let live = expect_context::<Live>();
    let panels = expect_context::<Panels>();
    let has_build = Memo::new(move |_| {
        live.definition.with(|definition| definition.as_ref().is_some_and(|job| job.get("build").is_some()))
    });
    let image = dynamic(move || {
        if has_build.get() {
            return view! {
                <p class="hint">
                    "The image is built from a Dockerfile. "
                    <button type="button" class="link" on:click=move |_| panels.open(Tab::Settings)>
                        "See it in the settings"
                    </button>
                </p>
            }
            .into_any();
        }
        view! {
            <Field
                label="Image"
                value=text_of(live, "image")
                placeholder="python:3.12-slim"
                on_change=Box::new(move |text| write(live, "image", text.trim()))
            />
        }
        .into_any()
    });
    view! {
        <div class="panel job">
            {image}
            <Area
                label="Command"
                value=text_of(live, "command")
                placeholder="python /inputs/fit.py"
                on_change=Box::new(move |text| write(live, "command", text.trim()))
            />
            <p class="hint">
                "Inputs are files in " <code>"/inputs"</code> ", files written to " <code>"/outputs"</code>
                " become outputs. Pipes and wildcards need a shell: " <code>"sh -c '…'"</code>
            </p>
            {autostart(live, "Run by itself", "on start, and every time inputs change")}
        </div>
    }
    .into_any()
}

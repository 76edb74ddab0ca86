//! The job editor: image, command, files. Fields are written to the address when they are left; files are drafts
//! until they are saved.

use std::rc::Rc;

use dockframe_shared::job::Definition;
use leptos::prelude::*;

use super::files::Files;
use super::{Panels, Tab};
use crate::live::Live;
use crate::state::Intent;
use crate::state::edit::with_text;
use crate::ui::code::Code;
use crate::ui::{Field, Switch, dynamic, flag, shown_if, words};
use crate::view::header::Pin;

/// The text of a field of the definition.
pub(super) fn text_of(live: Live, field: &'static str) -> Signal<String> {
    words(move || live.definition.with(|definition| text_in(definition.as_ref(), field)))
}

fn text_in(definition: Option<&Definition>, field: &str) -> String {
    definition.and_then(|definition| definition.text(field)).unwrap_or_default().to_owned()
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

/// Replaces the tag by the digest that ran, so that the job runs the same image for ever.
#[component]
fn PinButton() -> AnyView {
    let live = expect_context::<Live>();
    let pin = move |_| {
        if let Pin::To(image) = live.pin.get_untracked() {
            write(live, "image", &image);
        }
    };
    let title = "Name the image that ran last by its digest: it can never become another one";
    view! { <button type="button" title=title on:click=pin>"Pin"</button> }.into_any()
}

#[component]
pub(super) fn JobPanel() -> AnyView {
    let live = expect_context::<Live>();
    let panels = expect_context::<Panels>();
    let can_pin = flag(move || live.pin.with(|pin| matches!(pin, Pin::To(_))));
    let is_local = flag(move || live.pin.with(|pin| *pin == Pin::Local));
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
            <div class="joined">
                <Field
                    label="Image"
                    value=text_of(live, "image")
                    placeholder="python:3.12-slim"
                    on_change=Box::new(move |text| write(live, "image", text.trim()))
                />
                {shown_if(can_pin, move || view! { <PinButton /> }.into_any())}
            </div>
            {shown_if(is_local, move || {
                let words = "This image was made on the worker's machine. No registry has it, so it cannot be \
                             pinned by a digest that others could pull.";
                view! { <p class="hint">{words}</p> }.into_any()
            })}
        }
        .into_any()
    });
    let command = RwSignal::new(live.definition.with_untracked(|job| text_in(job.as_ref(), "command")));
    // Elsewhere changed: shown, whatever was being typed.
    let stored = Memo::new(move |_| live.definition.with(|job| text_in(job.as_ref(), "command")));
    Effect::new(move |_| command.set(stored.get()));
    let save = move || {
        let text = command.get_untracked().trim().to_owned();
        if text != stored.get_untracked() {
            write(live, "command", &text);
        }
    };
    view! {
        <div class="panel job">
            {image}
            <div class="field">
                <span>"Command"</span>
                <Code
                    name="command.sh".to_owned()
                    label="Command".to_owned()
                    placeholder="python /inputs/fit.py"
                    rows=2
                    value=words(move || command.get())
                    on_edit=Rc::new(move |text| command.set(text))
                    on_save=Rc::new(save)
                    on_leave=Rc::new(save)
                />
            </div>
            <p class="hint">
                "Inputs are files in " <code>"/inputs"</code> ", files written to " <code>"/outputs"</code>
                " become outputs. Pipes and wildcards need a shell: " <code>"sh -c '…'"</code>
            </p>
            {autostart(live, "Run by itself", "on start, and every time inputs change")}
            <Files />
        </div>
    }
    .into_any()
}

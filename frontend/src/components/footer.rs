//! The footer: what runs, whether it runs by itself, and the queue button at its usual place, bottom right.

use leptos::prelude::*;

use super::{Panels, Tab};
use crate::live::Live;
use crate::ui::Switch;

#[component]
pub(super) fn Footer() -> impl IntoView {
    let live = expect_context::<Live>();
    let panels = expect_context::<Panels>();
    let file = move || live.address.with(|address| address.files().into_iter().next().map(|(name, _)| name));
    let command = move || {
        let command = live.definition.with(|definition| {
            definition.as_ref().and_then(|definition| definition.text("command").map(str::to_owned))
        });
        command.unwrap_or_default()
    };
    view! {
        <footer class="footer">
            <code class="what" title=command>{command}</code>
            {move || {
                file().map(|name| {
                    view! {
                        <button type="button" class="link" on:click=move |_| panels.toggle(Tab::Inputs)>
                            {format!("✎ {name}")}
                        </button>
                    }
                })
            }}
            <span class="grow"></span>
            <Show when=move || !live.is_blank.get() fallback=|| ()>
                <Switch
                    label="Runs by itself"
                    is_on=Signal::derive(move || live.address.with(|address| address.settings.autostart))
                    on_change=move |is_on| {
                        live.edit(vec![("autostart".into(), is_on.then(|| "true".into()))]);
                    }
                />
            </Show>
            <super::queue::QueueButton />
        </footer>
    }
}

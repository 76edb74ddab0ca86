//! The footer: what runs, whether it runs by itself, and the queue button at its usual place, bottom right.

use leptos::prelude::*;

use super::job::{autostart, text_of};
use super::{Panels, Tab};
use crate::live::Live;
use crate::ui::{dynamic, flag, shown_if};

#[component]
pub(super) fn Footer() -> AnyView {
    let live = expect_context::<Live>();
    let panels = expect_context::<Panels>();
    let command = text_of(live, "command");
    view! {
        <footer class="footer">
            <code class="what" title=command>{command}</code>
            {dynamic(move || match live.files.with(|files| files.first().cloned()) {
                Some(name) => view! {
                    <button type="button" class="link" on:click=move |_| panels.toggle(Tab::Job)>
                        {format!("✎ {name}")}
                    </button>
                }
                .into_any(),
                None => ().into_any(),
            })}
            <span class="grow"></span>
            {shown_if(flag(move || !live.is_blank.get()), move || autostart(live, "Runs by itself", ""))}
            <super::queue::QueueButton />
        </footer>
    }
    .into_any()
}

//! Share: the job as a link, a command, or a frame for a metapage.

use leptos::prelude::*;

use crate::live::Live;
use crate::ui::{CopyButton, flag, shown_if, words};
use crate::view::share::{self, Shared};

#[component]
pub(super) fn ShareMenu() -> AnyView {
    let live = expect_context::<Live>();
    let is_open = RwSignal::new(false);
    let menu = move || {
        // What is shared is what the address holds now.
        live.address.track();
        let forms = live.with_state(|state| share::shared(state, &crate::browser::location::base()));
        let items = forms.into_iter().map(|Shared { label, hint, text }| {
            view! {
                <li>
                    <span class="name">{label}</span>
                    <small>{hint}</small>
                    <CopyButton text=Box::new(move || text.clone()) />
                </li>
            }
        });
        view! { <ul class="menu list">{items.collect_view()}</ul> }.into_any()
    };
    let close = move |event: web_sys::KeyboardEvent| {
        if event.key() == "Escape" {
            is_open.set(false);
        }
    };
    view! {
        <div class="share" on:keydown=close>
            <button
                type="button"
                hidden=flag(move || live.is_blank.get())
                aria-expanded=words(move || is_open.get().to_string())
                on:click=move |_| is_open.update(|is_open| *is_open = !*is_open)
            >
                <span class="icon" aria-hidden="true">"↗"</span>
                <span class="label">"Share"</span>
            </button>
            {shown_if(flag(move || is_open.get()), menu)}
        </div>
    }
    .into_any()
}

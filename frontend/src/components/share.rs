//! Share: the job as a link, a command, or a frame for a metapage.

use leptos::prelude::*;

use crate::live::Live;
use crate::ui::CopyButton;
use crate::view::share::{self, Shared};

#[component]
pub(super) fn ShareMenu() -> impl IntoView {
    let live = expect_context::<Live>();
    let is_open = RwSignal::new(false);
    let items = move || {
        live.with_state(|state| share::shared(state, &crate::browser::location::base()))
            .into_iter()
            .map(|Shared { label, hint, text }| {
                view! {
                    <li>
                        <span class="name">{label}</span>
                        <small>{hint}</small>
                        <CopyButton text=Signal::derive(move || text.clone()) />
                    </li>
                }
            })
            .collect_view()
    };
    view! {
        <div class="share" on:keydown=move |event| if event.key() == "Escape" { is_open.set(false) }>
            <button
                type="button"
                hidden=move || live.is_blank.get()
                aria-expanded=move || is_open.get().to_string()
                on:click=move |_| is_open.update(|is_open| *is_open = !*is_open)
            >
                "Share"
            </button>
            <Show when=move || is_open.get() fallback=|| ()>
                <ul class="menu list">{items}</ul>
            </Show>
        </div>
    }
}

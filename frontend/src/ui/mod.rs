//! Small parts that know nothing of jobs: fields, switches, copy buttons.

use leptos::prelude::*;
use wasm_bindgen_futures::spawn_local;

use crate::browser::clipboard;

/// A labelled line of text; `on_change` gets the new text on Enter or when the field is left.
#[component]
pub fn Field(
    label: &'static str,
    #[prop(into)] value: Signal<String>,
    on_change: impl Fn(String) + 'static,
    #[prop(optional)] placeholder: &'static str,
    #[prop(optional, into)] is_disabled: Signal<bool>,
    /// Code rather than prose: the fixed-width type.
    #[prop(optional)]
    is_code: bool,
) -> impl IntoView {
    view! {
        <label class="field">
            <span>{label}</span>
            <input
                type="text"
                class:code=is_code
                spellcheck="false"
                autocomplete="off"
                autocapitalize="off"
                placeholder=placeholder
                prop:value=value
                disabled=is_disabled
                on:change=move |event| on_change(event_target_value(&event))
            />
        </label>
    }
}

/// A switch with its words.
#[component]
pub fn Switch(
    label: &'static str,
    #[prop(into)] is_on: Signal<bool>,
    on_change: impl Fn(bool) + 'static,
    #[prop(optional)] hint: &'static str,
) -> impl IntoView {
    view! {
        <label class="switch">
            <input
                type="checkbox"
                role="switch"
                prop:checked=is_on
                on:change=move |event| on_change(event_target_checked(&event))
            />
            <span>{label}</span>
            {(!hint.is_empty()).then(|| view! { <small>{hint}</small> })}
        </label>
    }
}

/// Copies a text; where that is not allowed it asks to select it by hand.
#[component]
pub fn CopyButton(
    #[prop(into)] text: Signal<String>,
    #[prop(optional)] label: &'static str,
) -> impl IntoView {
    let label = if label.is_empty() { "Copy" } else { label };
    let said = RwSignal::new(label);
    let copy = move |_| {
        let text = text.get_untracked();
        spawn_local(async move {
            let is_copied = clipboard::copy(&text).await;
            said.try_set(if is_copied { "Copied" } else { "Select it and press Ctrl+C" });
            crate::browser::timer::sleep(2_000).await;
            said.try_set(label);
        });
    };
    view! { <button type="button" on:click=copy aria-live="polite">{said}</button> }
}

/// A command to be copied.
#[component]
pub fn Command(#[prop(into)] text: Signal<String>) -> impl IntoView {
    view! {
        <div class="command">
            <code tabindex="0">{text}</code>
            <CopyButton text=text />
        </div>
    }
}

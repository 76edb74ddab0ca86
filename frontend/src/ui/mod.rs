//! Small parts that know nothing of jobs: fields, switches, copy buttons, and what is drawn anew.
//!
//! What changes is given as a [`Signal`] or through [`dynamic`], not as a closure: each closure would be another
//! type, and the page would hold the code that draws it once more for each.

pub mod code;

use leptos::prelude::*;
use wasm_bindgen_futures::spawn_local;

use crate::browser::clipboard;

/// A part that is drawn anew when what it reads changes.
pub type Dynamic = Box<dyn FnMut() -> AnyView + Send>;

/// Makes a [`Dynamic`].
pub fn dynamic(draw: impl Fn() -> AnyView + Send + 'static) -> Dynamic {
    Box::new(draw)
}

/// Drawn while `is_shown`.
pub fn shown_if(is_shown: Signal<bool>, draw: impl Fn() -> AnyView + Send + 'static) -> Dynamic {
    let is_shown = Memo::new(move |_| is_shown.get());
    Box::new(move || if is_shown.get() { draw() } else { ().into_any() })
}

/// A text that follows what it reads.
pub fn words(read: impl Fn() -> String + Send + Sync + 'static) -> Signal<String> {
    Signal::derive(read)
}

/// A flag that follows what it reads.
pub fn flag(read: impl Fn() -> bool + Send + Sync + 'static) -> Signal<bool> {
    Signal::derive(read)
}

/// What a field does with its new text.
pub type OnText = Box<dyn Fn(String)>;

/// A labelled line of text; `on_change` gets the new text on Enter or when the field is left.
#[component]
pub fn Field(
    label: &'static str,
    value: Signal<String>,
    on_change: OnText,
    #[prop(optional)] placeholder: &'static str,
    #[prop(optional)] is_disabled: Option<Signal<bool>>,
) -> AnyView {
    let is_disabled = is_disabled.unwrap_or_else(|| flag(|| false));
    view! {
        <label class="field">
            <span>{label}</span>
            <input
                type="text"
                class="code"
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
    .into_any()
}

/// A labelled text of several lines.
#[component]
pub fn Area(
    label: &'static str,
    value: Signal<String>,
    on_change: OnText,
    #[prop(optional)] placeholder: &'static str,
    #[prop(default = 3)] rows: u32,
) -> AnyView {
    view! {
        <label class="field">
            <span>{label}</span>
            <textarea
                class="code"
                rows=rows.to_string()
                spellcheck="false"
                autocapitalize="off"
                placeholder=placeholder
                prop:value=value
                on:change=move |event| on_change(event_target_value(&event))
            ></textarea>
        </label>
    }
    .into_any()
}

/// A switch with its words.
#[component]
pub fn Switch(
    label: &'static str,
    is_on: Signal<bool>,
    on_change: Box<dyn Fn(bool)>,
    #[prop(optional)] hint: &'static str,
) -> AnyView {
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
    .into_any()
}

/// Copies a text. Frames without the right to do so show it instead, selected, to be copied by hand.
#[component]
pub fn CopyButton(
    /// Asked for when the button is pressed.
    text: Box<dyn Fn() -> String>,
    #[prop(default = "Copy")] label: &'static str,
) -> AnyView {
    let is_copied = RwSignal::new(false);
    let by_hand = RwSignal::new(String::new());
    let copy = move |_| {
        let text = text();
        by_hand.set(String::new());
        spawn_local(async move {
            if clipboard::copy(&text).await {
                is_copied.try_set(true);
                crate::browser::timer::sleep(2_000).await;
                is_copied.try_set(false);
            } else {
                by_hand.try_set(text);
            }
        });
    };
    let place = NodeRef::<leptos::html::Textarea>::new();
    Effect::new(move |_| {
        if let Some(area) = place.get() {
            let _ = area.focus();
            area.select();
        }
    });
    let shown = dynamic(move || {
        let text = by_hand.get();
        if text.is_empty() {
            return ().into_any();
        }
        view! {
            <textarea
                class="code by-hand"
                readonly
                rows="4"
                aria-label="Copying is not allowed here: copy this by hand"
                title="Copying is not allowed here: copy this by hand"
                node_ref=place
                prop:value=text
                on:blur=move |_| by_hand.set(String::new())
            ></textarea>
        }
        .into_any()
    });
    view! {
        <button type="button" on:click=copy aria-live="polite">
            {words(move || if is_copied.get() { "Copied" } else { label }.to_owned())}
        </button>
        {shown}
    }
    .into_any()
}

/// A command to be copied.
#[component]
pub fn Command(text: Signal<String>) -> AnyView {
    view! {
        <div class="command">
            <code tabindex="0">{text}</code>
            <CopyButton text=Box::new(move || text.get_untracked()) />
        </div>
    }
    .into_any()
}

//! The line between log and panel: drag it, or move it by the arrow keys. Where it stands is remembered.

use leptos::html::Div;
use leptos::prelude::*;
use wasm_bindgen::JsCast;
use web_sys::HtmlElement;

use crate::browser::storage;
use crate::ui::words;

const REMEMBERED: &str = "dockframe-split";
/// How much of the width the log may have, in percent.
const LEAST: i32 = 20;
const MOST: i32 = 80;
const AT_FIRST: i32 = 50;
/// One press of an arrow key.
const STEP: i32 = 2;

#[component]
pub(super) fn Resizer() -> AnyView {
    let remembered = storage::local_get(REMEMBERED).and_then(|text| text.parse().ok());
    let share = RwSignal::new(remembered.map_or(AT_FIRST, |share: i32| share.clamp(LEAST, MOST)));
    let is_dragged = RwSignal::new(false);
    let line = NodeRef::<Div>::new();
    let main = move || line.get_untracked().and_then(|line| line.parent_element());
    let set = move |wanted: i32| share.set(wanted.clamp(LEAST, MOST));
    Effect::new(move |_| {
        let share = share.get();
        line.track();
        if let Some(main) = main() {
            let main: HtmlElement = main.unchecked_into();
            let _ = main.style().set_property("--log-share", &format!("{share}%"));
        }
    });
    let remember = move || storage::local_set(REMEMBERED, Some(&share.get_untracked().to_string()));
    let drag = move |event: web_sys::PointerEvent| {
        if !is_dragged.get_untracked() {
            return;
        }
        if let Some(main) = main() {
            let around = main.get_bounding_client_rect();
            let from_left = (f64::from(event.client_x()) - around.left()) / around.width().max(1.0) * 100.0;
            #[expect(clippy::cast_possible_truncation, reason = "saturates, and is bounded at once")]
            set(from_left as i32);
        }
    };
    let begin = move |event: web_sys::PointerEvent| {
        event.prevent_default();
        is_dragged.set(true);
        // The pointer stays ours when it leaves the line.
        if let Some(line) = line.get_untracked() {
            let _ = line.set_pointer_capture(event.pointer_id());
        }
    };
    let end = move |_: web_sys::PointerEvent| {
        if is_dragged.get_untracked() {
            is_dragged.set(false);
            remember();
        }
    };
    let keys = move |event: web_sys::KeyboardEvent| {
        let step = match event.key().as_str() {
            "ArrowLeft" => -STEP,
            "ArrowRight" => STEP,
            _ => return,
        };
        event.prevent_default();
        set(share.get_untracked() + step);
        remember();
    };
    view! {
        <div
            class="resizer"
            node_ref=line
            role="separator"
            tabindex="0"
            aria-orientation="vertical"
            aria-label="Width of the log"
            aria-valuemin="20"
            aria-valuemax="80"
            aria-valuenow=words(move || share.get().to_string())
            on:pointerdown=begin
            on:pointermove=drag
            on:pointerup=end
            on:pointercancel=end
            on:keydown=keys
        ></div>
    }
    .into_any()
}

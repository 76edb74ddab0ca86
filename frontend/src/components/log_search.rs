//! Search in the log: how many lines hold a text, and the one that is looked at.

use leptos::html::{Div, Input};
use leptos::prelude::*;
use wasm_bindgen::JsCast;
use web_sys::{Element, HtmlElement};

use crate::live::Live;
use crate::text;
use crate::ui::words;

/// The field, the count, and the way from line to line. `rows` is where the lines are drawn; `on_jump` is called
/// before the view moves to one.
#[component]
pub(super) fn LogSearch(rows: NodeRef<Div>, on_jump: Box<dyn Fn()>, on_close: Box<dyn Fn()>) -> AnyView {
    let live = expect_context::<Live>();
    let wanted = RwSignal::new(String::new());
    // Which of the found lines is looked at; the newest first, since that is where the view is.
    let place = RwSignal::new(0_u32);
    let found = StoredValue::new_local(Vec::<usize>::new());
    let n_found = RwSignal::new(0_u32);
    Effect::new(move |_| {
        live.log_version.track();
        let wanted = wanted.get();
        found.set_value(live.with_log(|log| log.find(&wanted)));
        n_found.set(found.with_value(|found| u32::try_from(found.len()).unwrap_or(u32::MAX)));
    });
    let marked = StoredValue::new_local(None::<Element>);
    let unmark = move || {
        if let Some(element) = marked.try_update_value(Option::take).flatten() {
            let _ = element.class_list().remove_1("hit");
        }
    };
    let show = move || {
        unmark();
        let nth = place.get_untracked() as usize;
        let row = found.with_value(|found| found.iter().rev().nth(nth).copied());
        let element = row.and_then(|row| row_element(&rows.get_untracked()?.into(), row));
        if let Some(element) = element {
            on_jump();
            if let Ok(Some(folded)) = element.closest("details") {
                let _ = folded.set_attribute("open", "");
            }
            let _ = element.class_list().add_1("hit");
            element.scroll_into_view();
            marked.set_value(Some(element));
        }
    };
    let show = StoredValue::new_local(show);
    let step = move |back: bool| {
        let count = n_found.get_untracked();
        if count > 0 {
            place.update(|place| {
                *place = if back { (*place + count - 1) % count } else { (*place + 1) % count }
            });
            show.with_value(|show| show());
        }
    };
    let field = NodeRef::<Input>::new();
    Effect::new(move |_| {
        if let Some(field) = field.get() {
            let _ = field.focus();
        }
    });
    on_cleanup(unmark);
    let count = words(move || {
        let count = n_found.get();
        match (wanted.with(String::is_empty), count) {
            (true, _) => String::new(),
            (false, 0) => "no line".to_owned(),
            (false, _) => {
                format!("{} of {}", place.get() + 1, text::plural(u64::from(count), "line", "lines"))
            }
        }
    });
    let keys = move |event: web_sys::KeyboardEvent| match event.key().as_str() {
        "Enter" => {
            event.prevent_default();
            step(event.shift_key());
        }
        "Escape" => {
            event.stop_propagation();
            on_close();
        }
        _ => {}
    };
    view! {
        <div class="bar find">
        <input
            type="search"
            class="log-search"
            node_ref=field
            aria-label="Search in the log"
            placeholder="Search"
            spellcheck="false"
            autocapitalize="off"
            on:keydown=keys
            on:input=move |event| {
                let text = event_target_value(&event);
                found.set_value(live.with_log(|log| log.find(&text)));
                wanted.set(text);
                place.set(0);
                show.with_value(|show| show());
            }
        />
        <span role="status">{count}</span>
        <button type="button" aria-label="Line before" title="Line before" on:click=move |_| step(false)>"↑"</button>
        <button type="button" aria-label="Line after" title="Line after" on:click=move |_| step(true)>"↓"</button>
        </div>
    }
    .into_any()
}

/// The element of a row, by its place in the log: rows are drawn in order, in blocks.
fn row_element(body: &HtmlElement, row: usize) -> Option<Element> {
    let rows = body.query_selector_all("div.row").ok()?;
    rows.item(u32::try_from(row).ok()?)?.dyn_into().ok()
}

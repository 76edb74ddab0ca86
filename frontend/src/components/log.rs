//! The log as a terminal: dark in both themes, stderr tinted, follows its end unless the user scrolled up.
//!
//! Rows are drawn by hand, as elements with text nodes, in blocks that the browser skips while they are out of
//! sight: 20,000 rows stay searchable and selectable, and a new line costs one row.

use leptos::html::Div;
use leptos::prelude::*;
use wasm_bindgen::JsCast;
use web_sys::{Document, Element};

use super::log_search::LogSearch;
use crate::browser::{download, window};
use crate::live::Live;
use crate::state::log::{Log, Row, Voice};
use crate::text;
use crate::ui::{CopyButton, dynamic, flag, shown_if, words};
use crate::view::header::End;
use crate::view::links::{Piece, pieces};

/// Rows in a block.
const BLOCK: usize = 128;
/// Closer to the end than this counts as being there, in pixels.
const NEAR_END: i32 = 24;
/// A scroll this soon after a touch of wheel, key, finger or pointer is the user's, in milliseconds.
const TOUCH_MS: f64 = 1_000.0;

/// What is in the document already.
#[derive(Default)]
struct Drawn {
    generation: u64,
    rows: usize,
}

#[component]
pub(super) fn LogView() -> AnyView {
    let live = expect_context::<Live>();
    let body = NodeRef::<Div>::new();
    let drawn = StoredValue::new_local(Drawn { generation: u64::MAX, rows: 0 });
    let follows = RwSignal::new(true);
    let is_split = RwSignal::new(false);
    let is_searching = RwSignal::new(false);
    let is_scheduled = StoredValue::new_local(false);
    let draw_now = move || {
        is_scheduled.set_value(false);
        let Some(element) = body.get_untracked() else { return };
        drawn.update_value(|drawn| live.with_log(|log| draw(log, drawn, &element)));
        if follows.get_untracked() {
            element.set_scroll_top(element.scroll_height());
        }
    };
    // At most once a frame, however many lines come.
    Effect::new(move |_| {
        live.log_version.track();
        body.track();
        if !is_scheduled.get_value() {
            is_scheduled.set_value(true);
            request_animation_frame(draw_now);
        }
    });
    // Only the user's own hand stops the following: rows that come and go move the view as well.
    let last_touch = StoredValue::new_local(f64::NEG_INFINITY);
    let touch = move || last_touch.set_value(js_sys::Date::now());
    let on_scroll = move |_| {
        let Some(element) = body.get_untracked() else { return };
        let rest = element.scroll_height() - element.scroll_top() - element.client_height();
        let is_by_user = js_sys::Date::now() - last_touch.get_value() < TOUCH_MS;
        if rest < NEAR_END {
            follows.set(true);
        } else if is_by_user {
            follows.set(false);
        } else if follows.get_untracked() {
            element.set_scroll_top(element.scroll_height());
        }
    };
    let to_end = move |_| {
        follows.set(true);
        if let Some(element) = body.get_untracked() {
            element.set_scroll_top(element.scroll_height());
        }
    };
    let n_lines = words(move || {
        live.log_version.track();
        let count = live.with_log(|log| log.rows().len() + log.dropped());
        if count == 0 { String::new() } else { text::plural(count as u64, "line", "lines") }
    });
    let has_lines = flag(move || {
        live.log_version.track();
        !live.with_log(Log::is_empty)
    });
    let emptiness = words(move || live.header.with(|header| text::empty_log(header.is_busy)).to_owned());
    view! {
        <div class="log" class:split=flag(move || is_split.get())>
            <div class="bar">
                <span>"Log"</span>
                <span>{n_lines}</span>
                <span class="grow"></span>
                <button
                    type="button"
                    aria-pressed=words(move || is_searching.get().to_string())
                    title="Search in the log"
                    on:click=move |_| is_searching.update(|is_searching| *is_searching = !*is_searching)
                >
                    "Search"
                </button>
                <button
                    type="button"
                    class="split-button"
                    aria-pressed=words(move || is_split.get().to_string())
                    title="Program's output left, its errors right"
                    on:click=move |_| is_split.update(|is_split| *is_split = !*is_split)
                >
                    "Split"
                </button>
                <button type="button" hidden=flag(move || follows.get()) on:click=to_end>"↓ Newest"</button>
                <LogCopy />
                <button type="button" title="Download the log" aria-label="Download the log" on:click=move |_| save(live)>
                    "⤓"
                </button>
            </div>
            {shown_if(
                flag(move || is_searching.get()),
                move || {
                    view! {
                        <LogSearch
                            rows=body
                            on_jump=Box::new(move || follows.set(false))
                            on_close=Box::new(move || is_searching.set(false))
                        />
                    }
                        .into_any()
                },
            )}
            <div
                class="rows"
                node_ref=body
                tabindex="0"
                role="log"
                aria-label="Log lines"
                on:scroll=on_scroll
                on:wheel=move |_| touch()
                on:touchmove=move |_| touch()
                on:pointerdown=move |_| touch()
                on:keydown=move |_| touch()
            ></div>
            <p class="empty" hidden=has_lines>{emptiness}</p>
            <LogEnd />
        </div>
    }
    .into_any()
}

/// The whole log is made to text only when it is copied.
#[component]
fn LogCopy() -> AnyView {
    let live = expect_context::<Live>();
    view! { <CopyButton text=Box::new(move || live.with_log(Log::plain_text)) /> }.into_any()
}

/// The last line: how it ended.
#[component]
fn LogEnd() -> AnyView {
    let live = expect_context::<Live>();
    let line = dynamic(move || match live.end.get() {
        Some(End { tone, line, advice }) => {
            let advice = (!advice.is_empty()).then(|| view! { <small>{advice}</small> });
            view! { <p class="end" data-tone=tone.class()>{line} {advice}</p> }.into_any()
        }
        None => ().into_any(),
    });
    view! { {line} }.into_any()
}

fn save(live: Live) {
    download::save("log.txt", live.with_log(Log::plain_text).as_bytes());
}

fn draw(log: &Log, drawn: &mut Drawn, body: &Element) {
    let Some(document) = window().document() else { return };
    if drawn.generation != log.generation() {
        body.set_text_content(None);
        *drawn = Drawn { generation: log.generation(), rows: 0 };
        if log.dropped() > 0 {
            let note = element(&document, "p", "row note");
            note.set_text_content(Some(&text::rows_dropped(log.dropped())));
            let _ = body.append_child(&note);
        }
    }
    // The last row may have grown.
    if drawn.rows > 0 && drawn.rows <= log.rows().len() {
        drawn.rows -= 1;
        if let Some(row) = last_block(body).and_then(|block| block.last_element_child()) {
            row.remove();
        }
    }
    let start = log.first_time();
    for row in &log.rows()[drawn.rows..] {
        let block = block_for(&document, body, row.voice == Voice::Build);
        if row.voice == Voice::Build
            && let Some(last) = block.parent_element().and_then(|fold| fold.query_selector(".last").ok()?)
        {
            // Folded, it says how far the image is or what came of it.
            last.set_text_content(Some(row.text().trim()));
        }
        let _ = block.append_child(&row_element(&document, row, start));
        drawn.rows += 1;
    }
}

fn last_block(body: &Element) -> Option<Element> {
    let last = body.last_element_child()?;
    if last.class_name() == "block" { Some(last) } else { last.last_element_child() }
}

/// The block that takes the next row. Pull and build are folded as soon as they are over.
fn block_for(document: &Document, body: &Element, is_build: bool) -> Element {
    let last = body.last_element_child();
    let last_is_build = last.as_ref().is_some_and(|last| last.tag_name() == "DETAILS");
    let parent = if is_build {
        match last.filter(|_| last_is_build) {
            Some(details) => details,
            None => {
                let details = element(document, "details", "build");
                let _ = details.set_attribute("open", "");
                let summary = element(document, "summary", "");
                summary.set_text_content(Some("Image"));
                let _ = summary.append_child(&element(document, "span", "last"));
                let _ = details.append_child(&summary);
                let _ = body.append_child(&details);
                details
            }
        }
    } else {
        if let Some(details) = last.filter(|_| last_is_build) {
            let _ = details.remove_attribute("open");
        }
        body.clone()
    };
    let open = parent.last_element_child().filter(|block| block.class_name() == "block");
    match open.filter(|block| (block.child_element_count() as usize) < BLOCK) {
        Some(block) => block,
        None => {
            let block = element(document, "div", "block");
            let _ = parent.append_child(&block);
            block
        }
    }
}

fn row_element(document: &Document, row: &Row, start: Option<dockframe_shared::Timestamp>) -> Element {
    let class = match row.voice {
        Voice::Build => "row build",
        Voice::Stdout => "row",
        Voice::Stderr => "row stderr",
        Voice::Note => "row note",
    };
    let line = element(document, "div", class);
    if let (Some(start), Voice::Stdout | Voice::Stderr) = (start, row.voice) {
        let time = element(document, "time", "");
        time.set_text_content(Some(&text::line_time(row.time.since(start))));
        let _ = line.append_child(&time);
    }
    let content = element(document, "span", "text");
    for span in &row.spans {
        let class = span.style.class();
        if class.is_empty() {
            append_text(document, &content, &span.text);
        } else {
            let styled = element(document, "span", &class);
            append_text(document, &styled, &span.text);
            let _ = content.append_child(&styled);
        }
    }
    let _ = line.append_child(&content);
    line
}

/// Text nodes, and anchors for addresses: nothing in a log is ever parsed as HTML.
fn append_text(document: &Document, parent: &Element, text: &str) {
    for piece in pieces(text) {
        match piece {
            Piece::Text(text) => {
                let _ = parent.append_child(&document.create_text_node(text));
            }
            Piece::Link(url) => {
                let anchor = element(document, "a", "");
                for (name, value) in [("href", url), ("target", "_blank"), ("rel", "noopener noreferrer")] {
                    let _ = anchor.set_attribute(name, value);
                }
                anchor.set_text_content(Some(url));
                let _ = parent.append_child(&anchor);
            }
        }
    }
}

fn element(document: &Document, tag: &str, class: &str) -> Element {
    // These names are all valid; creating cannot fail.
    let element =
        document.create_element(tag).unwrap_or_else(|_| document.body().expect("a body").unchecked_into());
    if !class.is_empty() {
        element.set_class_name(class);
    }
    element
}

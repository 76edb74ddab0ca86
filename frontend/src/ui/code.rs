//! A text of code: an editor with syntax, search and undo, loaded when it is first shown; until then, and where it
//! cannot be loaded, a plain textarea.

use std::rc::Rc;

use leptos::html::Div;
use leptos::prelude::*;
use wasm_bindgen_futures::spawn_local;

use super::flag;
use crate::browser::editor::{Editor, Options};

/// What an editor does with its text.
pub type OnEdit = Rc<dyn Fn(String)>;
/// What the keys for saving do.
pub type OnSave = Rc<dyn Fn()>;

/// `value` is the text as it stands elsewhere: a change of it is shown. `on_edit` gets every edit, `on_save` comes
/// with Ctrl-S and Ctrl-Enter, `on_leave` when the editor is left.
#[component]
pub fn Code(
    /// Of the file: it decides the syntax.
    name: String,
    /// For who cannot see it.
    label: String,
    value: Signal<String>,
    on_edit: OnEdit,
    on_save: OnSave,
    #[prop(optional)] on_leave: Option<OnSave>,
    #[prop(optional)] placeholder: &'static str,
    #[prop(default = 8)] rows: u32,
) -> AnyView {
    let place = NodeRef::<Div>::new();
    let editor = StoredValue::new_local(None::<Editor>);
    let is_rich = RwSignal::new(false);
    let (edit, save, spoken) = (Rc::clone(&on_edit), Rc::clone(&on_save), label.clone());
    let open = StoredValue::new_local(Some((name, edit, save)));
    Effect::new(move |_| {
        let Some(element) = place.get() else { return };
        let Some((name, edit, save)) = open.try_update_value(Option::take).flatten() else { return };
        let options = Options {
            text: value.get_untracked(),
            name,
            label: spoken.clone(),
            placeholder,
            is_small: rows < 5,
            on_change: Box::new(move |text| edit(text)),
            on_save: Box::new(move || save()),
        };
        spawn_local(async move {
            let opened = Editor::open(&element, options).await;
            let is_open = opened.is_some();
            // It may have come too late: what is not taken is dropped, and so closed.
            let is_late = editor.try_set_value(opened).is_some();
            if is_open && !is_late {
                is_rich.try_set(true);
            }
        });
    });
    Effect::new(move |_| {
        let text = value.get();
        is_rich.track();
        editor.with_value(|editor| {
            if let Some(editor) = editor {
                editor.set(&text);
            }
        });
    });
    let keys = move |event: web_sys::KeyboardEvent| {
        if (event.ctrl_key() || event.meta_key()) && matches!(event.key().as_str(), "s" | "Enter") {
            event.prevent_default();
            on_save();
        }
    };
    let leave = move |_: web_sys::FocusEvent| {
        if let Some(leave) = &on_leave {
            leave();
        }
    };
    view! {
        <div class="code-editor" on:focusout=leave>
            <div node_ref=place></div>
            <textarea
                class="code"
                rows=rows.to_string()
                aria-label=label
                spellcheck="false"
                autocapitalize="off"
                placeholder=placeholder
                hidden=flag(move || is_rich.get())
                prop:value=value
                on:keydown=keys
                on:input=move |event| on_edit(event_target_value(&event))
            ></textarea>
        </div>
    }
    .into_any()
}

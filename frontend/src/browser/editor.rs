//! The code editor's file, loaded when an editor is first shown (`frontend/editor`). Where it cannot be had, a build
//! without it included, nothing is opened and the caller's textarea stays.

use js_sys::{Function, Object, Promise, Reflect};
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use super::window;

/// What an editor begins with, and whom it tells.
pub struct Options {
    pub text: String,
    /// The file's name: it decides the syntax.
    pub name: String,
    pub label: String,
    pub placeholder: &'static str,
    /// A few lines: no numbers beside them.
    pub is_small: bool,
    /// Every edit of the user's.
    pub on_change: Box<dyn Fn(String)>,
    /// The keys for saving.
    pub on_save: Box<dyn Fn()>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("name", &self.name).finish_non_exhaustive()
    }
}

/// An open editor; dropping it closes it.
#[derive(Debug)]
pub struct Editor {
    handle: JsValue,
    _on_change: Closure<dyn Fn(String)>,
    _on_save: Closure<dyn Fn()>,
}

impl Editor {
    /// Opens an editor in an empty element. `None`: there is none.
    pub async fn open(parent: &web_sys::Element, options: Options) -> Option<Self> {
        // The loader puts the function there that imports the file: its name is known only to the build.
        let load: Function = Reflect::get(&window(), &"dockframeEditor".into()).ok()?.dyn_into().ok()?;
        let file: Promise = load.call0(&JsValue::UNDEFINED).ok()?.dyn_into().ok()?;
        let file = JsFuture::from(file).await.ok()?;
        let open: Function = Reflect::get(&file, &"open".into()).ok()?.dyn_into().ok()?;
        let on_change = Closure::<dyn Fn(String)>::new(options.on_change);
        let on_save = Closure::<dyn Fn()>::new(options.on_save);
        let given = Object::new();
        let entries: [(&str, &JsValue); 7] = [
            ("text", &options.text.into()),
            ("name", &options.name.into()),
            ("label", &options.label.into()),
            ("placeholder", &options.placeholder.into()),
            ("isSmall", &options.is_small.into()),
            ("onChange", on_change.as_ref()),
            ("onSave", on_save.as_ref()),
        ];
        for (name, value) in entries {
            // Setting an own property of a plain object cannot fail.
            let _ = Reflect::set(&given, &name.into(), value);
        }
        let handle = open.call2(&JsValue::UNDEFINED, parent, &given).ok()?;
        Some(Self { handle, _on_change: on_change, _on_save: on_save })
    }

    /// Shows a text that changed elsewhere.
    pub fn set(&self, text: &str) {
        self.call("set", &text.into());
    }

    fn call(&self, method: &str, argument: &JsValue) {
        if let Ok(method) = Reflect::get(&self.handle, &method.into())
            && let Some(method) = method.dyn_ref::<Function>()
        {
            let _ = method.call1(&self.handle, argument);
        }
    }
}

impl Drop for Editor {
    fn drop(&mut self) {
        self.call("close", &JsValue::UNDEFINED);
    }
}

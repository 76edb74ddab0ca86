//! What the container finds in `/inputs`: what comes from upstream, and the job's own files.

use leptos::prelude::*;

use super::files::{Files, place};
use crate::browser::download;
use crate::live::Live;
use crate::ui::dynamic;
use crate::view::lists::{Content, InputItem};

#[component]
pub(super) fn InputsPanel() -> AnyView {
    let live = expect_context::<Live>();
    let upstream = dynamic(move || {
        let items = live.inputs.get();
        if items.is_empty() {
            let words = "Nothing yet. What other metaframes send to this one appears here.";
            return view! { <p class="empty">{words}</p> }.into_any();
        }
        let items = items.into_iter().map(|item| view! { <Upstream item=item /> }).collect_view();
        view! { <ul class="list">{items}</ul> }.into_any()
    });
    view! {
        <div class="panel inputs">
            <h3>"From upstream"</h3>
            {upstream}
            <h3>"Files of the job"</h3>
            <Files />
        </div>
    }
    .into_any()
}

#[component]
fn Upstream(item: InputItem) -> AnyView {
    let InputItem { name, what, fault, content } = item;
    let save = {
        let name = name.clone();
        move |_| match &content {
            Some(Content::Bytes(bytes)) => download::save(&name, bytes),
            Some(Content::Url(url)) => download::save_url(&name, url),
            None => {}
        }
    };
    let tone = if fault.is_some() { "bad" } else { "idle" };
    view! {
        <li data-tone=tone>
            <span class="name">{place(&name)}</span>
            <small>{what}</small>
            <button type="button" class="quiet" aria-label=format!("Download {name}") title="Download" on:click=save>
                "⤓"
            </button>
            {fault.map(|fault| view! { <p class="fault">{fault}</p> })}
        </li>
    }
    .into_any()
}

//! The result's files: small ones open, big ones closed with their size and a download.

use leptos::prelude::*;

use crate::browser::download;
use crate::live::Live;
use crate::state::Intent;
use crate::text;
use crate::ui::{dynamic, flag, words};
use crate::view::lists::{Content, OutputItem, Preview};

#[component]
pub(super) fn OutputsPanel() -> AnyView {
    let live = expect_context::<Live>();
    let is_embedded = crate::browser::is_embedded();
    let count =
        words(move || format!("Download all ({}) as zip", live.outputs.with(|outputs| outputs.len())));
    let sent = words(move || {
        let is_sent = is_embedded && live.are_outputs_sent.get();
        if is_sent { "Sent to the metapage" } else { "" }.to_owned()
    });
    let list = dynamic(move || {
        if live.outputs.with(|outputs| outputs.is_empty()) {
            let words = "No outputs yet. Files that the job writes to /outputs appear here.";
            return view! { <p class="empty">{words}</p> }.into_any();
        }
        view! {
            <p class="sent">
                <button type="button" class="link" on:click=move |_| save_all(live)>{count}</button>
                <span>{sent}</span>
            </p>
            {live.outputs.get().iter().map(|item| view! { <Output item=item.clone() /> }).collect_view()}
            // Where the header has no room for it.
            <button
                type="button"
                class="quiet delete-here"
                hidden=flag(move || !live.can_delete.get())
                on:click=move |_| live.want(Intent::Delete)
            >
                "Delete the result"
            </button>
        }
        .into_any()
    });
    view! { <div class="panel outputs">{list}</div> }.into_any()
}

#[component]
fn Output(item: OutputItem) -> AnyView {
    let OutputItem { name, size, preview, content } = item;
    let what = size.map_or_else(|| "by reference".to_owned(), text::size);
    let is_open = !matches!(preview, Preview::None) && size.is_none_or(|size| size <= 200_000);
    let save = {
        let (name, content) = (name.clone(), content.clone());
        move |_| match &content {
            Content::Bytes(bytes) => download::save(&name, bytes),
            Content::Url(url) => download::save_url(&name, url),
        }
    };
    let label = format!("Download {name}");
    let shown = match preview {
        Preview::None => view! { <p class="empty">"No preview."</p> }.into_any(),
        Preview::Text(text) => view! { <pre tabindex="0">{text}</pre> }.into_any(),
        Preview::Table(rows) => view! { <Table rows=rows /> }.into_any(),
        Preview::Image(kind) => view! { <Picture name=name.clone() kind=kind content=content /> }.into_any(),
    };
    view! {
        <div class="file">
            <details open=is_open>
                <summary>
                    <span class="name">{name}</span>
                    <small>{what}</small>
                </summary>
                {shown}
            </details>
            // Not in the summary, which is a button itself.
            <button type="button" class="save quiet" title="Download" aria-label=label on:click=save>
                "⤓"
            </button>
        </div>
    }
    .into_any()
}

#[component]
fn Table(rows: Vec<Vec<String>>) -> AnyView {
    let mut rows = rows.into_iter();
    let head = rows.next().unwrap_or_default();
    view! {
        <div class="table">
            <table>
                <thead>
                    <tr>{head.into_iter().map(|cell| view! { <th>{cell}</th> }).collect_view()}</tr>
                </thead>
                <tbody>
                    {rows
                        .map(|row| view! { <tr>{row.into_iter().map(|cell| view! { <td>{cell}</td> }).collect_view()}</tr> })
                        .collect_view()}
                </tbody>
            </table>
        </div>
    }
    .into_any()
}

/// A picture is drawn as a picture alone: scripts in an SVG do not run in it.
#[component]
fn Picture(name: String, kind: &'static str, content: Content) -> AnyView {
    let url = match &content {
        Content::Bytes(bytes) => download::object_url(bytes, kind).unwrap_or_default(),
        Content::Url(url) => url.clone(),
    };
    if matches!(content, Content::Bytes(_)) {
        let url = url.clone();
        on_cleanup(move || download::revoke(&url));
    }
    view! { <img src=url alt=name loading="lazy" /> }.into_any()
}

/// Saves all outputs as one file.
fn save_all(live: Live) {
    let outputs = live.outputs.get_untracked();
    wasm_bindgen_futures::spawn_local(async move {
        let mut files = Vec::with_capacity(outputs.len());
        for item in outputs.iter() {
            let bytes = match &item.content {
                Content::Bytes(bytes) => bytes.clone(),
                Content::Url(url) => match crate::net::http::get_bytes(url).await {
                    Ok(bytes) => bytes,
                    // What cannot be had is left out by a note, so that nobody takes the archive for complete.
                    Err(why) => {
                        files.push((
                            format!("{}.missing.txt", item.name),
                            format!("{url}: {why}\n").into_bytes(),
                        ));
                        continue;
                    }
                },
            };
            files.push((item.name.clone(), bytes));
        }
        download::save("all-outputs-downloaded-files.zip", &crate::view::zip::archive(&files));
    });
}

//! Trouble as a screen, above whatever log there is.

use leptos::prelude::*;

use super::{Panels, Tab};
use crate::live::Live;
use crate::ui::Command;
use crate::view::trouble::{Offer, Trouble};

#[component]
pub(super) fn TroubleScreen() -> impl IntoView {
    let live = expect_context::<Live>();
    view! { {move || live.trouble.get().map(|trouble| view! { <Screen trouble=trouble /> })} }
}

#[component]
fn Screen(trouble: Trouble) -> impl IntoView {
    let Trouble { tone, title, why, steps, command, note, offers, detail } = trouble;
    view! {
        <section class="trouble" data-tone=tone.class()>
            <h2>{title}</h2>
            <p>{why}</p>
            {(!steps.is_empty())
                .then(|| view! { <ol>{steps.into_iter().map(|step| view! { <li>{step}</li> }).collect_view()}</ol> })}
            {command.map(|command| view! { <Command text=Signal::derive(move || command.clone()) /> })}
            {(!note.is_empty()).then(|| view! { <p class="note">{note}</p> })}
            {(!offers.is_empty())
                .then(|| {
                    view! {
                        <p class="offers">
                            {offers.into_iter().map(|offer| view! { <OfferButton offer=offer /> }).collect_view()}
                        </p>
                    }
                })}
            {(!detail.is_empty())
                .then(|| {
                    view! {
                        <details>
                            <summary>"Details"</summary>
                            <pre>{detail}</pre>
                        </details>
                    }
                })}
        </section>
    }
}

#[component]
fn OfferButton(offer: Offer) -> impl IntoView {
    let live = expect_context::<Live>();
    let panels = expect_context::<Panels>();
    let label = match &offer {
        Offer::Do(label, _) | Offer::OpenQueue(label) | Offer::OpenJob(label) | Offer::NewQueue(label) => {
            *label
        }
    };
    let press = move |_| match &offer {
        Offer::Do(_, intent) => live.want(intent.clone()),
        Offer::OpenQueue(_) => panels.is_queue_open.set(true),
        Offer::OpenJob(_) => panels.open(Tab::Job),
        Offer::NewQueue(_) => {
            super::queue::make_queue(live);
            panels.is_queue_open.set(true);
        }
    };
    view! { <button type="button" on:click=press>{label}</button> }
}

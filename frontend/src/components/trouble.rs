//! Trouble as a screen, above whatever log there is.

use leptos::prelude::*;

use super::{Panels, Tab};
use crate::live::Live;
use crate::state::edit::with_member;
use crate::ui::{Command, dynamic, words};
use crate::view::trouble::{Offer, Trouble};

#[component]
pub(super) fn TroubleScreen() -> AnyView {
    let live = expect_context::<Live>();
    let screen = dynamic(move || match live.trouble.get() {
        Some(trouble) => view! { <Screen trouble=trouble /> }.into_any(),
        None => ().into_any(),
    });
    view! { {screen} }.into_any()
}

#[component]
fn Screen(trouble: Trouble) -> AnyView {
    let Trouble { tone, title, why, steps, command, note, offers, detail } = trouble;
    let part = |is_there: bool, view: &dyn Fn() -> AnyView| if is_there { view() } else { ().into_any() };
    let steps = part(!steps.is_empty(), &|| {
        let steps = steps.iter().map(|step| view! { <li>{step.clone()}</li> }).collect_view();
        view! { <ol>{steps}</ol> }.into_any()
    });
    let command = command.map(|command| {
        view! { <Command text=words(move || command.clone()) /> }
    });
    let note = part(!note.is_empty(), &|| view! { <p class="note">{note.clone()}</p> }.into_any());
    let offers = part(!offers.is_empty(), &|| {
        let offers = offers.iter().map(|offer| view! { <OfferButton offer=offer.clone() /> }).collect_view();
        view! { <p class="offers">{offers}</p> }.into_any()
    });
    let detail = part(!detail.is_empty(), &|| {
        view! {
            <details>
                <summary>"Details"</summary>
                <pre>{detail.clone()}</pre>
            </details>
        }
        .into_any()
    });
    view! {
        <section class="trouble" data-tone=tone.class()>
            <h2>{title}</h2>
            <p>{why}</p>
            {steps}
            {command}
            {note}
            {offers}
            {detail}
        </section>
    }
    .into_any()
}

#[component]
fn OfferButton(offer: Offer) -> AnyView {
    let live = expect_context::<Live>();
    let panels = expect_context::<Panels>();
    let label = match &offer {
        Offer::Do(label, _)
        | Offer::OpenQueue(label)
        | Offer::OpenJob(label)
        | Offer::OpenSettings(label)
        | Offer::NewQueue(label) => (*label).to_owned(),
        Offer::Memory(amount) => format!("Ask for {amount} of memory"),
    };
    let press = move |_| match &offer {
        Offer::Do(_, intent) => live.want(intent.clone()),
        Offer::OpenQueue(_) => panels.is_queue_open.set(true),
        Offer::OpenJob(_) => panels.open(Tab::Job),
        Offer::OpenSettings(_) => panels.open(Tab::Settings),
        Offer::Memory(amount) => {
            let definition = live.definition.get_untracked();
            let amount = Some(serde_json::Value::from(amount.as_str()));
            let changed = with_member(definition.as_ref(), "requirements", "memory", amount);
            live.want(crate::state::Intent::EditDefinition(changed));
        }
        Offer::NewQueue(_) => {
            super::queue::make_queue(live);
            panels.is_queue_open.set(true);
        }
    };
    view! { <button type="button" on:click=press>{label}</button> }.into_any()
}

//! Settings. Every change is written to the address at once.

use leptos::prelude::*;

use super::job::{text_of, write};
use crate::live::Live;
use crate::ui::{Field, Switch};

#[component]
pub(super) fn SettingsPanel() -> impl IntoView {
    let live = expect_context::<Live>();
    let flag = move |name: &'static str| {
        Signal::derive(move || live.address.with(|address| address.params.boolean(name)))
    };
    let set_flag = move |name: &'static str| {
        move |is_on: bool| live.edit(vec![(name.into(), is_on.then(|| "true".into()))])
    };
    view! {
        <div class="panel settings">
            <Field label="Command" value=text_of(live, "command") is_code=true on_change=move |text: String| write(live, "command", &text) />
            <Field label="Entrypoint" value=text_of(live, "entrypoint") is_code=true on_change=move |text: String| write(live, "entrypoint", &text) />
            <Switch label="Run by itself" is_on=flag("autostart") on_change=set_flag("autostart") />
            <Switch label="Send contents instead of references" is_on=flag("resolverefs") on_change=set_flag("resolverefs") />
            <Switch label="Other metaframes may set this job" is_on=flag("allowsetjob") on_change=set_flag("allowsetjob") />
            <Switch label="Debug" is_on=flag("debug") on_change=set_flag("debug") />
        </div>
    }
}

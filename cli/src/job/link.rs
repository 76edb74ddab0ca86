//! `dockframe job link`: the address that opens a job on the page (`metaframe` 5.10).

use std::process::ExitCode;

use clap::Args;
use dockframe_shared::QueueKey;
use dockframe_shared::job::Definition;
use dockframe_shared::job::digest::job_id;
use dockframe_shared::metaframe::hash_params::HashParams;
use serde_json::Value;
use url::Url;

use super::client::Client;
use super::{DefinitionArgs, QueueArgs};

/// Longer links are cut by programs that pass them on.
const MAX_CHARACTERS: usize = 32_768;

#[derive(Debug, Args)]
pub(crate) struct LinkArgs {
    #[command(flatten)]
    queue: QueueArgs,

    /// Wait for a click instead of running when the page is opened
    #[arg(long)]
    no_autostart: bool,

    #[command(flatten)]
    definition: DefinitionArgs,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the link is what was asked for")]
pub(crate) async fn link(args: LinkArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(args.queue)?;
    let (definition, uploads) = args.definition.build(&client.blobs()?)?;
    for upload in &uploads {
        client.upload(upload).await?;
    }
    let link = self_contained(client.api(), client.queue(), &definition, !args.no_autostart);
    if link.as_str().len() > MAX_CHARACTERS {
        eprintln!("dockframe: the job is too long for a link; this one works once the job was submitted");
        println!("{}", short(client.api(), client.queue(), &definition)?);
    } else {
        println!("{link}");
    }
    Ok(ExitCode::SUCCESS)
}

/// The whole job in the fragment, which browsers do not send anywhere.
fn self_contained(api: &Url, queue: &QueueKey, definition: &Definition, autostart: bool) -> Url {
    let mut params = HashParams::default();
    params.set_json("job", &Value::Object(definition.0.clone()));
    params.set_boolean("autostart", autostart);
    with_queue(api.clone(), params, queue)
}

/// The job by its id, looked up at the relay.
fn short(api: &Url, queue: &QueueKey, definition: &Definition) -> anyhow::Result<Url> {
    let page = api.join(&format!("j/{}", job_id(definition)))?;
    Ok(with_queue(page, HashParams::default(), queue))
}

fn with_queue(mut page: Url, mut params: HashParams, queue: &QueueKey) -> Url {
    params.set("queue", Some(&queue_parameter(&page, queue)));
    page.set_fragment(Some(&params.to_string()));
    page
}

/// The queue as the page must be told it. `local` means port 8000 of the viewer's own computer (`metaframe` 5.2), so
/// that queue of any other relay is given by its whole address.
pub(crate) fn queue_parameter(api: &Url, queue: &QueueKey) -> String {
    let is_own_computer = matches!(api.host_str(), Some("localhost" | "127.0.0.1"));
    let is_default = api.scheme() == "http" && is_own_computer && api.port_or_known_default() == Some(8000);
    if queue.reveal() == "local" && !is_default {
        format!("{}/local", api.origin().ascii_serialization())
    } else {
        queue.reveal().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition() -> Definition {
        let Value::Object(fields) = json!({"image": "busybox", "command": "echo 'hi' ü"}) else {
            unreachable!()
        };
        Definition(fields)
    }

    #[test]
    fn a_link_holds_the_whole_job() {
        let (api, queue) = ("http://relay.example/".parse().unwrap(), QueueKey::new("q1").unwrap());
        let link = self_contained(&api, &queue, &definition(), true);
        let params = HashParams::parse(link.fragment().unwrap());
        assert_eq!(params.json("job").unwrap(), Some(Value::Object(definition().0)));
        assert_eq!((params.get("queue"), params.boolean("autostart")), (Some("q1"), true));
        assert!(link.as_str().starts_with("http://relay.example/#?autostart=true&job="));
    }

    #[test]
    fn the_local_queue_of_another_port_is_given_by_its_address() {
        let told = |api: &str| queue_parameter(&api.parse().unwrap(), &QueueKey::new("local").unwrap());
        assert_eq!(told("http://localhost:8000/"), "local");
        assert_eq!(told("http://127.0.0.1:8123/"), "http://127.0.0.1:8123/local");
    }

    #[test]
    fn a_short_link_names_the_job() {
        let (api, queue) = ("http://relay.example/".parse().unwrap(), QueueKey::new("q1").unwrap());
        let link = short(&api, &queue, &definition()).unwrap();
        assert_eq!(link.as_str(), format!("http://relay.example/j/{}#?queue=q1", job_id(&definition())));
    }
}

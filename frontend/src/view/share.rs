//! The job in the forms that people pass on. None of them is sent anywhere by the page.

use serde_json::Value;

use crate::state::State;
use crate::text::shell_word;

/// Longest link that holds its job itself (`metaframe` 5.10).
pub const MAX_LINK: usize = 32_768;

/// One form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    pub label: &'static str,
    pub hint: &'static str,
    pub text: String,
}

/// All forms that fit the present job. `base` is the page's address without search and hash.
#[must_use]
pub fn shared(state: &State, base: &str) -> Vec<Shared> {
    let params = state.address.params.to_string();
    let long = format!("{base}#{params}");
    let mut forms = Vec::new();
    let wanted = state.current();
    let short = wanted.filter(|_| long.len() > MAX_LINK).map(|wanted| {
        format!("{}/j/{}#?queue={}", state.place.origin, wanted.id, state.address.queue_text())
    });
    let link = short.clone().unwrap_or(long);
    forms.push(Shared {
        label: "Link",
        hint: if short.is_some() {
            "short: works once the job was submitted"
        } else {
            "holds the whole job and the queue"
        },
        text: link.clone(),
    });
    let Some(wanted) = wanted else { return forms };
    let field = |name: &str| wanted.definition.text(name);
    let env = wanted.definition.get("env").and_then(Value::as_object);
    let env: Vec<(String, String)> = env
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect();
    let command = field("command").unwrap_or_default();
    if let Some(image) = field("image") {
        let mut words = vec!["docker run --rm".to_owned()];
        words.extend(field("workdir").map(|dir| format!("--workdir {}", shell_word(dir))));
        words.extend(field("entrypoint").map(|entry| format!("--entrypoint {}", shell_word(entry))));
        words
            .extend(env.iter().map(|(name, value)| format!("-e {}", shell_word(&format!("{name}={value}")))));
        words.push("-v \"$PWD/inputs:/inputs\" -v \"$PWD/outputs:/outputs\"".to_owned());
        words.push(shell_word(image));
        words.push(command.to_owned());
        forms.push(Shared {
            label: "docker run",
            hint: "files in ./inputs and ./outputs",
            text: words.join(" ").trim_end().to_owned(),
        });
        let mut words = vec![format!(
            "dockframe job run --api-address {} --queue {}",
            shell_word(wanted.queue.api_origin()),
            shell_word(wanted.queue.key().reveal()),
        )];
        words
            .extend(env.iter().map(|(name, value)| format!("-e {}", shell_word(&format!("{name}={value}")))));
        words.push(format!("-o outputs {} -- {command}", shell_word(image)));
        forms.push(Shared {
            label: "Command line",
            hint: "runs it on the same queue",
            text: words.join(" "),
        });
    }
    let definition = Value::Object(wanted.definition.0.clone());
    let body = serde_json::json!({ "definition": definition });
    let url = format!("{}/q/{}", wanted.queue.api_origin(), wanted.queue.key().reveal());
    forms.push(Shared {
        label: "curl",
        hint: "submits it",
        text: format!("curl -sS -X POST {} -d {}", shell_word(&url), shell_word(&body.to_string())),
    });
    forms.push(Shared {
        label: "JSON",
        hint: "the job's definition",
        text: serde_json::to_string_pretty(&definition).unwrap_or_default(),
    });
    forms.push(Shared {
        label: "iframe",
        hint: "for a page of your own",
        text: format!(
            "<iframe src=\"{}\" allow=\"clipboard-write\" width=\"100%\" height=\"400\"></iframe>",
            link.replace('&', "&amp;").replace('"', "&quot;")
        ),
    });
    forms
}

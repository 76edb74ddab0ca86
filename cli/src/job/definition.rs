//! From the command line to a definition, as `docker run` users would write it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use dockframe_shared::job::Definition;
use dockframe_shared::{ContentHash, command};
use serde_json::{Map, Value, json};

/// Files longer than this travel as blobs, shorter ones inside the definition (`relay-protocol` 4.1).
const INLINE_MAX_BYTES: usize = 200;

#[derive(Debug, Args)]
pub(crate) struct DefinitionArgs {
    /// A file for `/inputs`, under its own name or as NAME=FILE (repeatable)
    #[arg(long, short, value_name = "[NAME=]FILE")]
    input: Vec<String>,

    /// An environment variable (repeatable)
    #[arg(long, short, value_name = "KEY=VALUE")]
    env: Vec<String>,

    /// The image's entrypoint replaced
    #[arg(long, value_name = "TEXT")]
    entrypoint: Option<String>,

    /// The folder that the command starts in
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,

    /// How long it may run, such as `5m`
    #[arg(long, value_name = "DURATION")]
    max_duration: Option<String>,

    /// How many GPUs it needs
    #[arg(long, value_name = "N")]
    gpus: Option<u32>,

    /// How much memory it needs, such as `4G`
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,

    /// The image
    image: String,

    /// The command and its arguments, after `--`
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// A file that the definition refers to by its hash and that the relay must have before the submission.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) path: PathBuf,
    pub(crate) hash: ContentHash,
}

impl DefinitionArgs {
    /// The definition, and the files to upload. `blobs` is the address below which the relay keeps files.
    ///
    /// # Errors
    /// A file that cannot be read, an `-e` without `=`, two inputs of one name.
    pub(crate) fn build(&self, blobs: &url::Url) -> anyhow::Result<(Definition, Vec<Upload>)> {
        let mut fields = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        };
        set("image", Some(self.image.clone().into()));
        set("command", (!self.command.is_empty()).then(|| command_value(&self.command)));
        set("entrypoint", self.entrypoint.clone().map(Value::from));
        set("workdir", self.workdir.clone().map(Value::from));
        set("maxDuration", self.max_duration.clone().map(Value::from));

        let env = self.env.iter().map(|pair| variable(pair)).collect::<anyhow::Result<Map<_, _>>>()?;
        set("env", (!env.is_empty()).then_some(Value::Object(env)));

        let mut requirements = Map::new();
        if let Some(gpus) = self.gpus {
            requirements.insert("gpus".to_owned(), gpus.into());
        }
        if let Some(memory) = &self.memory {
            requirements.insert("memory".to_owned(), memory.clone().into());
        }
        set("requirements", (!requirements.is_empty()).then_some(Value::Object(requirements)));

        let (inputs, uploads) = self.inputs(blobs)?;
        set("inputs", (!inputs.is_empty()).then_some(Value::Object(inputs)));
        Ok((Definition(fields), uploads))
    }

    fn inputs(&self, blobs: &url::Url) -> anyhow::Result<(Map<String, Value>, Vec<Upload>)> {
        let (mut inputs, mut uploads) = (Map::new(), Vec::new());
        for argument in &self.input {
            let (name, path) = input(argument)?;
            let content = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let reference = if content.len() <= INLINE_MAX_BYTES {
                json!({"type": "base64", "value": STANDARD.encode(&content)})
            } else {
                let hash = ContentHash::of(&content);
                let address = blobs.join(&hash.to_string())?;
                uploads.push(Upload { path, hash });
                json!({"type": "url", "value": address.as_str(), "hash": hash.to_string()})
            };
            if inputs.insert(name.clone(), reference).is_some() {
                bail!("two inputs are named {name}: give one another name with -i NAME=FILE");
            }
        }
        Ok((inputs, uploads))
    }
}

fn variable(pair: &str) -> anyhow::Result<(String, Value)> {
    let (name, value) = pair.split_once('=').with_context(|| format!("-e {pair}: write KEY=VALUE"))?;
    Ok((name.to_owned(), value.into()))
}

/// `FILE`, or `NAME=FILE` where no file of the whole name is there.
fn input(argument: &str) -> anyhow::Result<(String, PathBuf)> {
    let whole = Path::new(argument);
    if let Some((name, path)) = argument.split_once('=').filter(|_| !whole.exists()) {
        return Ok((name.to_owned(), PathBuf::from(path)));
    }
    let name = whole.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{argument} names no file: write -i NAME=FILE"))?;
    Ok((name.to_owned(), whole.to_owned()))
}

/// The arguments as the one text that definitions usually hold, if that text means exactly these arguments to a
/// worker; else the list itself, which workers take as it is.
fn command_value(arguments: &[String]) -> Value {
    let text = shell_words::join(arguments);
    match command::parse(&text, &Map::new()) {
        Ok(argv) if argv.args == arguments => text.into(),
        _ => arguments.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(arguments: &[&str]) -> Vec<String> {
        arguments.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn arguments_arrive_as_they_were_written() {
        for arguments in [
            &["echo", "hi"][..],
            &["sh", "-c", "cat /inputs/* | wc -l > /outputs/n.txt"],
            &["echo", "it's", "$HOME", "a b", "", "#x"],
            &["echo", "\\", "\"", "`x`", "${"],
        ] {
            let arguments = words(arguments);
            match command_value(&arguments) {
                Value::String(text) => {
                    assert_eq!(command::parse(&text, &Map::new()).unwrap().args, arguments);
                }
                list => assert_eq!(list, Value::from(arguments)),
            }
        }
        assert_eq!(command_value(&words(&["sh", "-c", "a && b"])), Value::from("sh -c 'a && b'"));
    }

    #[test]
    fn inputs_have_their_own_name_or_a_given_one() {
        assert_eq!(input("dir/a.csv").unwrap(), ("a.csv".into(), "dir/a.csv".into()));
        assert_eq!(input("sub/x.csv=dir/a.csv").unwrap(), ("sub/x.csv".into(), "dir/a.csv".into()));
        assert!(input("/").is_err());
    }

    #[test]
    fn long_files_become_uploads_short_ones_stay_inside() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("short"), vec![b'x'; INLINE_MAX_BYTES]).unwrap();
        std::fs::write(path("long"), vec![b'x'; INLINE_MAX_BYTES + 1]).unwrap();
        let args = DefinitionArgs {
            input: vec![path("short").display().to_string(), path("long").display().to_string()],
            env: vec!["A=b=c".into()],
            entrypoint: None,
            workdir: None,
            max_duration: None,
            gpus: None,
            memory: None,
            image: "busybox".into(),
            command: Vec::new(),
        };
        let (definition, uploads) = args.build(&"http://relay/f/".parse().unwrap()).unwrap();
        assert_eq!(uploads.len(), 1);
        assert_eq!(definition.0["inputs"]["short"]["type"], "base64");
        assert_eq!(definition.0["inputs"]["long"]["value"], format!("http://relay/f/{}", uploads[0].hash));
        assert_eq!(definition.0["env"]["A"], "b=c");
        assert_eq!(definition.get("command"), None);
    }
}

//! From a job's definition to what exactly is to be done, or to a sentence that says which field is wrong and why
//! (`worker` 5.3, 7, 8, 9, 12.1). Pure.
//!
//! A definition is whatever somebody sent: any field may have any JSON type. Nothing of it reaches the Engine, the
//! file system or a socket but through here.

use std::time::Duration;

use dockframe_shared::command::{self, Argv, TakenWhole};
use dockframe_shared::javascript::json::to_text;
use dockframe_shared::job::{Control, Definition};
use dockframe_shared::units::bytes::{self, InvalidSize};
use dockframe_shared::units::duration::{self, InvalidDuration};
use serde_json::{Map, Value};

use crate::files::content::{BadContent, Content};
use crate::files::names::{BadFileName, ConfigTarget, RelativePath, check_conflicts};
use crate::secrets::{self, InvalidSecrets, SecretWish};

/// Bounds of what one job may name.
const MAX_FILES: usize = 10_000;
const MAX_ENV_ENTRIES: usize = 10_000;
const MAX_ARGUMENTS: usize = 10_000;

/// What a job needs done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JobPlan {
    pub(crate) image: ImageSource,
    pub(crate) platform: Option<String>,
    pub(crate) command: Option<Vec<String>>,
    /// Why `command` is one argument, for a hint when it does not start.
    pub(crate) taken_whole: Option<TakenWhole>,
    pub(crate) entrypoint: Option<Vec<String>>,
    /// The user's, in the order in which they are set.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) workdir: Option<String>,
    pub(crate) shm_bytes: Option<u64>,
    /// Everything below `/inputs`; a later one replaces an earlier one of the same path.
    pub(crate) inputs: Vec<InputFile>,
    /// Mounted one by one.
    pub(crate) mounted: Vec<MountedFile>,
    /// The smallest limit that definition and submission name.
    pub(crate) max_duration: Option<Duration>,
    pub(crate) wishes: Wishes,
    pub(crate) network_none: bool,
    pub(crate) secrets: Vec<SecretWish>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ImageSource {
    Reference(String),
    /// The block as it was sent: it is the key of the built image.
    Build(Box<Map<String, Value>>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InputFile {
    /// As the job calls it, for messages.
    pub(crate) name: String,
    pub(crate) path: RelativePath,
    pub(crate) content: Content,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MountedFile {
    /// Absolute path in the container, also its name in messages.
    pub(crate) target: String,
    pub(crate) content: Content,
}

/// What a job wants of the machine, checked.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Wishes {
    pub(crate) cpus: Option<f64>,
    pub(crate) gpus: u32,
    pub(crate) memory_bytes: Option<u64>,
}

/// A fault of the definition: its user reads this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("Missing image or build configuration")]
    NoImage,
    #[error("{field} must be {expected}")]
    Type { field: String, expected: &'static str },
    #[error("invalid {field} \"{text}\": {why}")]
    Value { field: &'static str, text: String, why: &'static str },
    #[error("{field}: {why}")]
    Size { field: &'static str, why: InvalidSize },
    /// Its text names the field.
    #[error("{}", .0.to_string().replacen("duration", "maxDuration", 1))]
    MaxDuration(InvalidDuration),
    #[error("cannot parse {field}: {why}")]
    Command { field: &'static str, why: String },
    #[error("{field} \"{name}\": {why}")]
    FileName { field: &'static str, name: String, why: BadFileName },
    #[error("{field} \"{name}\": {why}")]
    FileContent { field: &'static str, name: String, why: BadContent },
    #[error("{field} has more than {max} entries")]
    TooMany { field: &'static str, max: usize },
    #[error(transparent)]
    Secrets(#[from] InvalidSecrets),
}

impl JobPlan {
    pub(crate) fn of(definition: &Definition, control: &Control) -> Result<Self, PlanError> {
        let env = read_env(definition)?;
        let command = read_command(definition, "command")?;
        let (inputs, mounted) = read_files(definition)?;
        Ok(Self {
            image: read_image(definition)?,
            platform: text(definition, "platform")?,
            taken_whole: command.as_ref().and_then(|argv| argv.taken_whole),
            command: command.map(|argv| argv.args),
            entrypoint: read_command(definition, "entrypoint")?.map(|argv| argv.args),
            workdir: read_workdir(definition)?,
            shm_bytes: size("shmSize", definition.get("shmSize"))?,
            inputs,
            mounted,
            max_duration: read_durations(definition, control)?,
            wishes: Wishes::read(definition)?,
            network_none: text(definition, "network")?.as_deref() == Some("none"),
            secrets: secrets::wishes(definition)?,
            env,
        })
    }
}

impl Wishes {
    /// The part of a definition that decides whether there is room for it.
    pub(crate) fn read(definition: &Definition) -> Result<Self, PlanError> {
        let fields = match definition.get("requirements") {
            None => return Ok(Self::default()),
            Some(Value::Object(fields)) => fields,
            Some(_) => return Err(wrong("requirements", "an object")),
        };
        let number = |name: &'static str| match fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Number(number)) => Ok(number.as_f64().filter(|wish| *wish > 0.0)),
            Some(_) => Err(wrong(&format!("requirements.{name}"), "a number")),
        };
        let gpus = number("gpus")?.unwrap_or(0.0).ceil().min(f64::from(u32::MAX));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and bounded")]
        let gpus = gpus as u32;
        let memory_bytes = size("requirements.memory", fields.get("memory"))?;
        Ok(Self { cpus: number("cpus")?, gpus, memory_bytes })
    }
}

fn wrong(field: &str, expected: &'static str) -> PlanError {
    PlanError::Type { field: field.to_owned(), expected }
}

/// A text, where `""` and `null` count as absent.
fn text(definition: &Definition, field: &str) -> Result<Option<String>, PlanError> {
    match definition.get(field) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(_) => Err(wrong(field, "a text")),
    }
}

/// Where a job's image comes from.
pub(crate) fn read_image(definition: &Definition) -> Result<ImageSource, PlanError> {
    match definition.get("build") {
        None => {}
        Some(Value::Object(build)) => {
            let usable = ["context", "dockerfile"]
                .iter()
                .any(|field| build.get(*field).is_some_and(|value| !value.is_null() && value != ""));
            // A block without a usable field is absent, unless there is nothing else to say what is missing.
            if usable || text(definition, "image")?.is_none() && !build.is_empty() {
                return Ok(ImageSource::Build(Box::new(build.clone())));
            }
        }
        Some(_) => return Err(wrong("build", "an object")),
    }
    let image = text(definition, "image")?.ok_or(PlanError::NoImage)?;
    if image.starts_with("https://github.com/") || image.ends_with(".git") {
        let mut build = Map::new();
        build.insert("context".to_owned(), Value::String(image));
        return Ok(ImageSource::Build(Box::new(build)));
    }
    if image.len() > 1024 || image.chars().any(|c| c.is_whitespace() || c.is_control()) {
        let text = image.chars().take(80).collect();
        return Err(PlanError::Value { field: "image", text, why: "an image reference has no spaces" });
    }
    Ok(ImageSource::Reference(image))
}

fn read_env(definition: &Definition) -> Result<Vec<(String, String)>, PlanError> {
    let fields = match definition.get("env") {
        None => return Ok(Vec::new()),
        Some(Value::Object(fields)) => fields,
        Some(_) => return Err(wrong("env", "an object")),
    };
    if fields.len() > MAX_ENV_ENTRIES {
        return Err(PlanError::TooMany { field: "env", max: MAX_ENV_ENTRIES });
    }
    let mut env = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        let value = to_text(value).ok_or_else(|| wrong(&format!("env.{}", shorten(name)), "a text"))?;
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let text = name.chars().take(80).collect();
            return Err(PlanError::Value {
                field: "env",
                text,
                why: "names have no `=`, and nothing has a NUL",
            });
        }
        env.push((name.clone(), value));
    }
    // JavaScript objects list names that look like array indices first, ascending.
    let index = |name: &str| {
        let number: u32 = name.parse().ok().filter(|number| *number < u32::MAX)?;
        (number.to_string() == name).then_some(number)
    };
    env.sort_by_key(|(name, _)| index(name).map_or((1, 0), |number| (0, number)));
    Ok(env)
}

fn read_command(definition: &Definition, field: &'static str) -> Result<Option<Argv>, PlanError> {
    let nothing = Map::new();
    let env = definition.get("env").and_then(Value::as_object).unwrap_or(&nothing);
    let argv = match definition.get(field) {
        None => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => command::parse(text, env)
            .map_err(|error| PlanError::Command { field, why: shorten(&error.to_string()) })?,
        Some(Value::Array(items)) => Argv {
            args: items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .ok_or_else(|| wrong(field, "a text, or a list of texts"))?,
            taken_whole: None,
        },
        Some(_) => return Err(wrong(field, "a text")),
    };
    if argv.args.len() > MAX_ARGUMENTS {
        return Err(PlanError::TooMany { field, max: MAX_ARGUMENTS });
    }
    if argv.args.iter().any(|argument| argument.contains('\0')) {
        return Err(PlanError::Command { field, why: "it has a NUL character".to_owned() });
    }
    Ok(Some(argv))
}

fn read_workdir(definition: &Definition) -> Result<Option<String>, PlanError> {
    let workdir = text(definition, "workdir")?;
    match workdir {
        Some(dir) if !dir.starts_with('/') || dir.contains('\0') => {
            let text = shorten(&dir);
            Err(PlanError::Value { field: "workdir", text, why: "it must be an absolute path" })
        }
        other => Ok(other),
    }
}

fn size(field: &'static str, value: Option<&Value>) -> Result<Option<u64>, PlanError> {
    bytes::size_of(value).map_err(|why| PlanError::Size { field, why })
}

/// The smallest of the three limits that come with a job.
fn read_durations(definition: &Definition, control: &Control) -> Result<Option<Duration>, PlanError> {
    let nested = match definition.get("requirements") {
        Some(Value::Object(fields)) => fields.get("maxDuration"),
        _ => None,
    };
    let submitted = control.max_duration.clone().map(Value::String);
    let wishes = [definition.get("maxDuration"), nested, submitted.as_ref()];
    let mut smallest: Option<Duration> = None;
    for wish in wishes {
        if let Some(limit) = duration::limit_of(wish).map_err(PlanError::MaxDuration)? {
            smallest = Some(smallest.map_or(limit, |known| known.min(limit)));
        }
    }
    Ok(smallest)
}

fn read_files(definition: &Definition) -> Result<(Vec<InputFile>, Vec<MountedFile>), PlanError> {
    let entries = |field: &'static str| match definition.get(field) {
        None => Ok(Vec::new()),
        Some(Value::Object(fields)) if fields.len() > MAX_FILES => {
            Err(PlanError::TooMany { field, max: MAX_FILES })
        }
        Some(Value::Object(fields)) => Ok(fields.iter().collect::<Vec<_>>()),
        Some(_) => Err(wrong(field, "an object of files")),
    };
    let read = |field, name: &String, value| {
        Content::read(value).map_err(|why| PlanError::FileContent { field, name: shorten(name), why })
    };
    let bad_name = |field, name: &str, why| PlanError::FileName { field, name: shorten(name), why };

    let mut inputs = Vec::new();
    for (name, value) in entries("inputs")? {
        let path = RelativePath::parse(name).map_err(|why| bad_name("inputs", name, why))?;
        inputs.push(InputFile { name: name.clone(), path, content: read("inputs", name, value)? });
    }
    let mut mounted = Vec::new();
    for (name, value) in entries("configFiles")? {
        let content = read("configFiles", name, value)?;
        match ConfigTarget::parse(name).map_err(|why| bad_name("configFiles", name, why))? {
            ConfigTarget::Input(path) => {
                inputs.retain(|input: &InputFile| input.path != path);
                inputs.push(InputFile { name: name.clone(), path, content });
            }
            ConfigTarget::Mounted(target) => mounted.push(MountedFile { target, content }),
        }
    }
    // Two spellings of one path: the later one wins, as it would on a disk.
    let mut last = std::collections::HashSet::new();
    inputs.reverse();
    inputs.retain(|input| last.insert(input.path.clone()));
    inputs.reverse();
    check_conflicts(inputs.iter().map(|input| &input.path))
        .map_err(|(name, why)| bad_name("inputs", &name, why))?;
    Ok((inputs, mounted))
}

/// As much of a text as belongs into a sentence.
pub(crate) fn shorten(name: &str) -> String {
    name.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn plan(definition: Value) -> Result<JobPlan, PlanError> {
        let Value::Object(fields) = definition else { panic!("an object") };
        JobPlan::of(&Definition(fields), &Control::default())
    }

    fn refusal(definition: Value) -> String {
        plan(definition).unwrap_err().to_string()
    }

    #[test]
    fn the_published_example_is_planned() {
        let plan =
            plan(json!({"command": "python -c 'print(\"help\")'", "image": "python:3.12.1-alpine3.19"}))
                .unwrap();
        assert_eq!(plan.image, ImageSource::Reference("python:3.12.1-alpine3.19".into()));
        assert_eq!(plan.command.unwrap(), ["python", "-c", "print(\"help\")"]);
        assert_eq!((plan.entrypoint, plan.env.len(), plan.inputs.len()), (None, 0, 0));
    }

    #[test]
    fn empty_means_absent() {
        let plan = plan(json!({"image": "a", "command": "", "entrypoint": "", "workdir": "", "shmSize": "",
            "maxDuration": "", "build": {}, "requirements": {"gpus": 0, "memory": ""}, "inputs": null}))
        .unwrap();
        assert_eq!((plan.command, plan.entrypoint, plan.workdir, plan.shm_bytes), (None, None, None, None));
        assert_eq!((plan.max_duration, plan.wishes.gpus), (None, 0));
        assert_eq!(plan.image, ImageSource::Reference("a".into()));
    }

    #[test]
    fn a_sentence_about_a_fault_is_short_however_long_the_fault_is() {
        let long = "x".repeat(1 << 20);
        for faulty in [
            json!({"image": "a", "workdir": &long}),
            json!({"image": "a", "env": {&long: [{}]}}),
            json!({"image": "a", "command": format!("${{{long}")}),
            json!({"image": "a", "inputs": {&long: {"value": 1}}}),
        ] {
            let length = plan(faulty).unwrap_err().to_string().len();
            assert!(length < 1000, "{length}");
        }
    }

    #[test]
    fn each_wrong_field_is_named() {
        for (definition, part) in [
            (json!({}), "Missing image or build configuration"),
            (json!({"build": {}}), "Missing image or build configuration"),
            (json!({"image": 5}), "image must be a text"),
            (json!({"image": "a b"}), "invalid image"),
            (json!({"image": "a", "build": []}), "build must be an object"),
            (json!({"image": "a", "command": {}}), "command must be a text"),
            (json!({"image": "a", "command": ["x", 1]}), "command must be"),
            (json!({"image": "a", "command": "echo ${"}), "cannot parse command: Bad substitution"),
            (json!({"image": "a", "env": {"A": {}}}), "env.A must be a text"),
            (json!({"image": "a", "env": []}), "env must be an object"),
            (json!({"image": "a", "workdir": "rel"}), "invalid workdir \"rel\""),
            (json!({"image": "a", "shmSize": "lots"}), "shmSize: invalid size \"lots\""),
            (json!({"image": "a", "shmSize": 0}), "shmSize: invalid size"),
            (json!({"image": "a", "maxDuration": "abc"}), "invalid maxDuration \"abc\""),
            (json!({"image": "a", "maxDuration": "-5m"}), "invalid maxDuration \"-5m\""),
            (json!({"image": "a", "requirements": {"maxDuration": 0}}), "invalid maxDuration \"0\""),
            (json!({"image": "a", "requirements": {"gpus": "1"}}), "requirements.gpus must be a number"),
            (json!({"image": "a", "requirements": {"memory": "x"}}), "requirements.memory: invalid size"),
            (json!({"image": "a", "inputs": {"../x": {"value": ""}}}), "inputs \"../x\": it has a `..`"),
            (json!({"image": "a", "inputs": {"x": 5}}), "inputs \"x\": it must be an object"),
            (json!({"image": "a", "configFiles": {"/proc/x": {"value": ""}}}), "configFiles \"/proc/x\""),
            (
                json!({"image": "a", "inputs": {"a": {"value": ""}, "a/b": {"value": ""}}}),
                "inputs \"a\": it is also",
            ),
        ] {
            let text = refusal(definition.clone());
            assert!(text.contains(part), "{definition}: {text}");
        }
    }

    #[test]
    fn a_build_with_a_source_beats_the_image() {
        let build = json!({"dockerfile": "FROM a"});
        let plan = plan(json!({"image": "a", "build": build})).unwrap();
        assert!(matches!(plan.image, ImageSource::Build(_)));
    }

    #[test]
    fn relative_config_files_win_over_inputs_of_the_same_path() {
        let plan = plan(json!({"image": "a",
            "inputs": {"x.sh": {"value": "input"}, "y": {"value": "y"}},
            "configFiles": {"/inputs/x.sh": {"value": "config"}, "/etc/x": {"value": "mounted"}}}))
        .unwrap();
        let contents: Vec<_> =
            plan.inputs.iter().map(|input| (input.path.as_str(), &input.content)).collect();
        assert_eq!(
            contents,
            [("y", &Content::Bytes("y".into())), ("x.sh", &Content::Bytes("config".into())),]
        );
        assert_eq!(plan.mounted[0].target, "/etc/x");
    }

    #[test]
    fn the_smallest_of_all_limits_counts() {
        let Value::Object(fields) =
            json!({"image": "a", "maxDuration": "3m", "requirements": {"maxDuration": "2m"}})
        else {
            unreachable!()
        };
        let limit = |control: Option<&str>| {
            let control = Control { max_duration: control.map(str::to_owned), ..Control::default() };
            JobPlan::of(&Definition(fields.clone()), &control).unwrap().max_duration
        };
        assert_eq!(limit(None), Some(Duration::from_secs(120)));
        assert_eq!(limit(Some("1m")), Some(Duration::from_secs(60)));
        assert_eq!(limit(Some("")), Some(Duration::from_secs(120)));
    }

    #[test]
    fn variables_are_in_javascripts_order() {
        let plan =
            plan(json!({"image": "a", "env": {"b": 1, "10": true, "a": null, "2": "x", "01": 1.5}})).unwrap();
        let env: Vec<_> = plan.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(env, ["2=x", "10=true", "b=1", "a=null", "01=1.5"]);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[ -~é\\x00/$'\"{}]{0,12}".prop_map(Value::String),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map("[a-z./]{0,8}|type|value|maxDuration|memory", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_definition_is_a_surprise(values in prop::collection::vec((0_usize..15, any_json()), 0..8)) {
            const FIELDS: [&str; 15] = ["image", "build", "command", "entrypoint", "env", "workdir", "shmSize", "inputs",
                "configFiles", "maxDuration", "requirements", "tags", "platform", "network", "secrets"];
            let mut fields = Map::new();
            fields.insert("image".into(), "a".into());
            fields.extend(values.into_iter().map(|(field, value)| (FIELDS[field].to_owned(), value)));
            if let Err(error) = JobPlan::of(&Definition(fields), &Control::default()) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}

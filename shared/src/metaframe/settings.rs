//! What the parameters of the page's address mean (`metaframe` 5.1).
//!
//! A parameter that cannot be read takes its default and is reported by name; the page says so and stays usable.

use serde_json::{Map, Value};

use super::hash_params::{BadValue, HashParams};
use super::queue::QueueAddress;
use crate::ids::Namespace;
use crate::javascript::text::{NameOrder, sort_by_name};
use crate::job::definition::Control;
use crate::job::digest::is_parent_name;
use crate::units::duration;

/// The parameters that belong to the page. All others are environment variables of the job.
pub const SYSTEM: [&str; 14] = [
    "allowsetjob",
    "autostart",
    "config",
    "control",
    "debug",
    "definition",
    "ignoreQueueOverride",
    "inputs",
    "job",
    "maxJobDuration",
    "queue",
    "queueOverride",
    "resolverefs",
    "terminal",
];

/// A parameter that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the address's parameter `{name}` cannot be read: {problem}")]
pub struct BadParam {
    pub name: &'static str,
    pub problem: BadValue,
}

/// Everything the address says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// The job as it stands in the address. None also when it cannot be read.
    pub job: Option<Map<String, Value>>,
    /// Text files that belong to the job: name to text. None is not the same as no files.
    pub files: Option<Map<String, Value>>,
    /// The effective queue.
    pub queue: Option<QueueAddress>,
    /// Run on start and on every change.
    pub autostart: bool,
    /// The input `job` sets the job, and `job/result.json` is sent.
    pub allow_set_job: bool,
    /// Send contents in place of references.
    pub resolve_refs: bool,
    /// Show the console first.
    pub terminal: bool,
    pub debug: bool,
    /// What goes with each submission: the parameter `control`, `maxJobDuration`, and the namespace in any case.
    pub control: Control,
    /// The metaframe definition of this instance.
    pub definition: Option<Map<String, Value>>,
    /// Environment variables for the job, values undecoded, in the order in which they are put into the command.
    pub env: Vec<(String, String)>,
    /// Parameters that cannot be read.
    pub problems: Vec<BadParam>,
}

impl Settings {
    /// Reads all parameters. `page_origin` as in [`QueueAddress::resolve`].
    #[must_use]
    pub fn read(params: &HashParams, page_origin: &str) -> Self {
        let mut problems = Vec::new();
        let mut note = |name, problem| problems.push(BadParam { name, problem });
        let mut object = |name| match params.json(name).and_then(as_object) {
            Ok(object) => object,
            Err(problem) => {
                note(name, problem);
                None
            }
        };
        let job = object("job");
        let files = object("inputs");
        let definition = object("definition");
        let control = object("control");
        let control = match read_control(control, params.get("maxJobDuration")) {
            (control, None) => control,
            (control, Some((name, problem))) => {
                note(name, problem);
                control
            }
        };
        let queue = match effective_queue(params)
            .map(|(name, value)| (name, QueueAddress::resolve(value, page_origin)))
        {
            None => None,
            Some((_, Ok(queue))) => Some(queue),
            Some((name, Err(problem))) => {
                note(name, BadValue::Shape(problem.to_string()));
                None
            }
        };
        Self {
            job,
            files,
            queue,
            autostart: params.boolean("autostart"),
            allow_set_job: params.boolean("allowsetjob"),
            resolve_refs: params.boolean("resolverefs"),
            terminal: params.boolean("terminal"),
            debug: params.boolean("debug"),
            control,
            definition,
            env: env(params),
            problems,
        }
    }

    /// What is wrong with a parameter, if something is.
    #[must_use]
    pub fn problem(&self, name: &str) -> Option<&BadParam> {
        self.problems.iter().find(|problem| problem.name == name)
    }
}

/// `null` counts as missing.
fn as_object(value: Option<Value>) -> Result<Option<Map<String, Value>>, BadValue> {
    let what = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(object)) => return Ok(Some(object)),
        Some(Value::Array(_)) => "a list",
        Some(Value::String(_)) => "a text",
        Some(Value::Bool(_) | Value::Number(_)) => "a single value",
    };
    Err(BadValue::Shape(format!("it must be a JSON object, and is {what}")))
}

fn effective_queue(params: &HashParams) -> Option<(&'static str, &str)> {
    let named = |name: &'static str| Some((name, params.get(name).filter(|value| !value.is_empty())?));
    let forced = if params.boolean("ignoreQueueOverride") { None } else { named("queueOverride") };
    forced.or_else(|| named("queue"))
}

/// Fields of the parameter `control` that are read; the others go with each submission as they are.
const KNOWN_CONTROL: [&str; 5] = ["namespace", "callbacks", "maxDuration", "priority", "rerun"];

/// What could not be read, by parameter.
type Unreadable = Option<(&'static str, BadValue)>;

fn read_control(control: Option<Map<String, Value>>, max_duration: Option<&str>) -> (Control, Unreadable) {
    let mut unreadable = None;
    let mut others = control.clone().unwrap_or_default();
    others.retain(|name, _| !KNOWN_CONTROL.contains(&name.as_str()));
    let mut control = control.map_or_else(Control::default, |control| {
        serde_json::from_value(Value::Object(control)).unwrap_or_else(|error| {
            unreadable = Some(("control", BadValue::Shape(error.to_string())));
            Control::default()
        })
    });
    control.others = others;
    control.namespace.get_or_insert_with(Namespace::default);
    if let Some(wish) = max_duration.filter(|text| !text.is_empty()) {
        match duration::parse_limit(wish) {
            Err(error) => {
                unreadable = unreadable.or(Some(("maxJobDuration", BadValue::Shape(error.to_string()))));
            }
            Ok(limit) => {
                let ceiling =
                    control.max_duration.as_deref().and_then(|text| duration::parse_limit(text).ok());
                if ceiling.is_none_or(|ceiling| limit < ceiling) {
                    control.max_duration = Some(wish.to_owned());
                }
            }
        }
    }
    (control, unreadable)
}

fn env(params: &HashParams) -> Vec<(String, String)> {
    let others = params.iter().filter(|(name, _)| !SYSTEM.contains(name) && !is_parent_name(name));
    let mut env: Vec<_> = others.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    sort_by_name(&mut env, NameOrder::Properties, |(name, _)| name);
    env
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::hash_params::encode_json;
    use super::*;

    fn read(hash: &str) -> Settings {
        Settings::read(&HashParams::parse(hash), "https://page.example")
    }

    #[test]
    fn a_parameter_that_cannot_be_read_is_named_and_the_others_are_read() {
        let hash = format!(
            "?job=!!!&inputs={}&control={}&definition={}&queue=..&maxJobDuration=soon&autostart=true",
            encode_json(&json!(["a"])),
            encode_json(&json!({"namespace": "*"})),
            encode_json(&json!("text")),
        );
        let settings = read(&hash);
        let names: Vec<_> = settings.problems.iter().map(|problem| problem.name).collect();
        assert_eq!(names, ["job", "inputs", "definition", "control", "queue"]);
        assert!(settings.autostart && settings.queue.is_none());
        assert_eq!(settings.control.namespace(), Namespace::default());
        let message = settings.problem("inputs").unwrap().to_string();
        assert!(message.contains("`inputs`") && message.contains("a list"), "{message}");
        assert!(read("?maxJobDuration=soon").problem("maxJobDuration").is_some());
    }

    #[test]
    fn the_shorter_of_two_limits_is_sent() {
        let limit = |own: Option<&str>, ceiling: Option<&str>| {
            let control = encode_json(&json!({"namespace": "n", "maxDuration": ceiling}));
            let own = own.map(|own| format!("&maxJobDuration={own}")).unwrap_or_default();
            read(&format!("?control={control}{own}")).control.max_duration
        };
        assert_eq!(limit(Some("5m"), Some("1h")).as_deref(), Some("5m"));
        assert_eq!(limit(Some("2h"), Some("1h")).as_deref(), Some("1h"));
        assert_eq!(limit(Some("2h"), Some("never")).as_deref(), Some("2h"));
        assert_eq!(limit(Some("2h"), None).as_deref(), Some("2h"));
        assert_eq!(limit(None, Some("1h")).as_deref(), Some("1h"));
    }

    #[test]
    fn the_namespace_is_always_sent() {
        for control in [json!({}), json!({"namespace": ""}), json!({"namespace": null})] {
            let settings = read(&format!("?control={}", encode_json(&control)));
            assert_eq!(serde_json::to_value(&settings.control).unwrap(), json!({"namespace": "_"}));
        }
    }

    #[test]
    fn what_an_embedding_page_put_into_control_is_sent_on() {
        let given = json!({"namespace": "n", "priority": 3, "user": {"id": 7}, "outputs": "x"});
        let settings = read(&format!("?control={}", encode_json(&given)));
        let sent = json!({"namespace": "n", "priority": 3.0, "user": {"id": 7}, "outputs": "x"});
        assert_eq!(serde_json::to_value(&settings.control).unwrap(), sent);
        // A relay keeps only what it knows.
        let kept: Control = serde_json::from_value(sent).unwrap();
        assert_eq!(serde_json::to_value(&kept).unwrap(), json!({"namespace": "n", "priority": 3.0}));
    }

    #[test]
    fn an_override_wins_unless_it_is_empty_or_ignored() {
        let queue = |hash: &str| read(hash).queue.map(|queue| queue.key().reveal().to_owned());
        assert_eq!(queue("?queue=a&queueOverride=b").as_deref(), Some("b"));
        assert_eq!(queue("?queue=a&queueOverride=").as_deref(), Some("a"));
        assert_eq!(queue("?queue=a&queueOverride=b&ignoreQueueOverride=true").as_deref(), Some("a"));
        assert_eq!(queue("?queueOverride=b&ignoreQueueOverride=true"), None);
        assert_eq!(queue("?queue="), None);
    }

    #[test]
    fn whole_numbers_come_first_among_the_variables() {
        let env = read("?b=1&10=2&a=3&9=4&01=5&b=6&mp-x=7&queue=q").env;
        let names: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(names, [("9", "4"), ("10", "2"), ("b", "6"), ("a", "3"), ("01", "5")]);
    }

    proptest! {
        #[test]
        fn no_hash_makes_it_panic(hash in "\\PC*", name in prop::sample::select(SYSTEM.to_vec()), value in "[\"{}\\[\\]:,a-z0-9]{0,12}") {
            let _ = read(&hash);
            let _ = read(&format!("?{name}={}", super::super::hash_params::encode_text(&value)));
        }
    }
}

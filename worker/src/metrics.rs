//! What the worker counts (`worker` 19): numbers for the owner's monitoring, without queue names, job ids or secrets.
//!
//! Every metric is described once, below; what is not described cannot be counted. Labels have few, fixed values.

pub(crate) mod server;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dockframe_shared::job::{FinishReason, JobResult};

use crate::files::cache::Origin;

/// Upper bounds of a histogram's buckets, in seconds.
const BUCKETS: [f64; 14] =
    [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0];

/// A thing that is counted.
#[derive(Debug)]
pub(crate) struct Metric {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    /// Name of its label, if it has one.
    label: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal [$label:literal] $help:literal;)*) => {
        $(pub(crate) static $constant: Metric =
            Metric { name: $name, kind: Kind::$kind, help: $help, label: $label };)*
        static ALL: &[&Metric] = &[$(&$constant),*];
    };
}

metrics! {
    SLOTS = Gauge "dockframe_worker_slots" ["state"] "Jobs that this worker runs at once, by use.";
    GPUS = Gauge "dockframe_worker_gpus" ["state"] "GPUs lent, by use.";
    MEMORY = Gauge "dockframe_worker_memory_bytes" ["state"] "Memory lent, by use.";
    CONNECTED = Gauge "dockframe_worker_connected" [""] "Queues whose relay is connected.";
    DRAINING = Gauge "dockframe_worker_draining" [""] "Whether no new jobs are taken because the worker stops.";
    RECONNECTS = Counter "dockframe_worker_reconnects_total" [""] "Connections to a relay after the first.";
    CLAIMED = Counter "dockframe_jobs_claimed_total" [""] "Jobs that were accepted.";
    DECLINED = Counter "dockframe_jobs_declined_total" ["why"] "Jobs that were declined, by when to ask again.";
    LOST = Counter "dockframe_jobs_lost_total" ["reason"] "Runs that the relay took away.";
    FINISHED = Counter "dockframe_jobs_finished_total" ["reason"] "Runs with a result.";
    EXITS = Counter "dockframe_job_exit_total" ["code_class"] "Exit codes of containers.";
    PHASES = Histogram "dockframe_job_phase_seconds" ["phase"] "Time that runs spend in each phase.";
    INPUT_BYTES = Counter "dockframe_input_bytes_total" ["cache"] "Bytes of fetched inputs.";
    OUTPUT_BYTES = Counter "dockframe_output_bytes_total" ["result"] "Bytes of outputs.";
    INPUT_CACHE = Gauge "dockframe_input_cache_bytes" [""] "Bytes of inputs that are kept.";
    DISK_FREE = Gauge "dockframe_disk_free_bytes" ["path"] "Room on the worker's disk.";
    LOG_BYTES = Counter "dockframe_log_bytes_total" [""] "Bytes of text that jobs wrote.";
    LOG_DROPPED = Counter "dockframe_log_bytes_dropped_total" [""] "Bytes of text that watchers were not sent.";
    ENGINE_ERRORS = Counter "dockframe_engine_errors_total" ["op"] "Calls that the Engine refused or did not answer.";
    ORPHANS = Counter "dockframe_orphans_reaped_total" [""] "Containers without a worker that were removed.";
    IMAGES_REMOVED = Counter "dockframe_images_removed_total" [""] "Images that were removed to make room.";
    UPLOAD_RETRIES = Counter "dockframe_upload_retries_total" [""] "Uploads that were tried again.";
}

#[derive(Debug, Default)]
struct Values {
    /// By name and value of the label.
    numbers: BTreeMap<(&'static str, String), f64>,
    histograms: BTreeMap<(&'static str, String), Histogram>,
    info: String,
}

#[derive(Debug, Default)]
struct Histogram {
    /// Not cumulative; the last one is above all bounds.
    counts: [u64; BUCKETS.len() + 1],
    sum: f64,
}

/// All counts of a worker. Cheap to copy: all copies count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics(Arc<Mutex<Values>>);

impl Metrics {
    pub(crate) fn add(&self, metric: &'static Metric, label: &str, amount: u64) {
        #[expect(clippy::cast_precision_loss, reason = "for monitoring: it needs no exact bytes")]
        self.change(|values| {
            *values.numbers.entry((metric.name, label.to_owned())).or_default() += amount as f64
        });
    }

    pub(crate) fn set(&self, metric: &'static Metric, label: &str, value: f64) {
        self.change(|values| {
            values.numbers.insert((metric.name, label.to_owned()), value);
        });
    }

    pub(crate) fn observe(&self, metric: &'static Metric, label: &str, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        self.change(|values| {
            let histogram = values.histograms.entry((metric.name, label.to_owned())).or_default();
            histogram.counts[bucket] += 1;
            histogram.sum += seconds;
        });
    }

    /// What does not change: `key="value"` pairs.
    pub(crate) fn describe(&self, info: String) {
        self.change(|values| values.info = info);
    }

    pub(crate) fn input(&self, origin: Origin, bytes: u64) {
        let label = if origin == Origin::Cache { "hit" } else { "miss" };
        self.add(&INPUT_BYTES, label, bytes);
    }

    /// A run has a result.
    pub(crate) fn finished(&self, reason: FinishReason, result: Option<&JobResult>) {
        self.add(&FINISHED, &format!("{reason:?}"), 1);
        let Some(result) = result else { return };
        let class = match (result.oom_killed, result.status_code) {
            (Some(true), _) => "oom",
            (_, Some(0)) => "0",
            (_, Some(1..=125)) => "1-125",
            (_, Some(126)) => "126",
            (_, Some(127)) => "127",
            (_, Some(_)) => "128+",
            (_, None) => return,
        };
        self.add(&EXITS, class, 1);
        for (phase, took) in result.phases.iter().flatten() {
            self.observe(&PHASES, phase, Duration::from_secs_f64((took.0 / 1000.0).clamp(0.0, 1e9)));
        }
    }

    /// The value of a metric without a label.
    fn number(&self, metric: &'static Metric) -> f64 {
        let mut value = 0.0;
        self.change(|values| {
            value = values.numbers.get(&(metric.name, String::new())).copied().unwrap_or(0.0)
        });
        value
    }

    /// As monitoring reads it.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        self.change(|values| {
            // A text in memory is always writable.
            let _ = values.render(&mut text);
        });
        text
    }

    fn change(&self, change: impl FnOnce(&mut Values)) {
        match self.0.lock() {
            Ok(mut values) => change(&mut values),
            // Nothing that holds this lock can fail half way.
            Err(poisoned) => change(&mut poisoned.into_inner()),
        }
    }
}

impl Values {
    fn render(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "# HELP dockframe_worker_info What this worker is.")?;
        writeln!(text, "# TYPE dockframe_worker_info gauge")?;
        writeln!(text, "dockframe_worker_info{{{}}} 1", self.info)?;
        for metric in ALL {
            writeln!(text, "# HELP {} {}", metric.name, metric.help)?;
            writeln!(text, "# TYPE {} {}", metric.name, metric.kind.name())?;
            if metric.kind == Kind::Histogram {
                for ((_, label), histogram) in of(&self.histograms, metric) {
                    histogram.render(metric, label, text)?;
                }
                continue;
            }
            let mut has_value = false;
            for ((_, label), value) in of(&self.numbers, metric) {
                writeln!(text, "{}{} {value}", metric.name, labels(metric, label))?;
                has_value = true;
            }
            if !has_value && metric.label.is_empty() {
                writeln!(text, "{} 0", metric.name)?;
            }
        }
        Ok(())
    }
}

fn of<'a, T>(
    all: &'a BTreeMap<(&'static str, String), T>,
    metric: &'a Metric,
) -> impl Iterator<Item = (&'a (&'static str, String), &'a T)> {
    all.iter().filter(move |((name, _), _)| *name == metric.name)
}

fn labels(metric: &Metric, value: &str) -> String {
    if metric.label.is_empty() {
        return String::new();
    }
    format!("{{{}=\"{}\"}}", metric.label, escape(value))
}

/// A label's value in quotes.
pub(crate) fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

impl Histogram {
    fn render(&self, metric: &Metric, label: &str, text: &mut String) -> std::fmt::Result {
        let (name, key) = (metric.name, metric.label);
        let mut total = 0;
        for (index, count) in self.counts.iter().enumerate() {
            total += count;
            let bound = BUCKETS.get(index).map_or_else(|| "+Inf".to_owned(), ToString::to_string);
            writeln!(text, "{name}_bucket{{{key}=\"{label}\",le=\"{bound}\"}} {total}")?;
        }
        writeln!(text, "{name}_sum{{{key}=\"{label}\"}} {}", self.sum)?;
        writeln!(text, "{name}_count{{{key}=\"{label}\"}} {total}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_there_from_the_beginning_with_its_type() {
        let metrics = Metrics::default();
        metrics.describe("version=\"1\"".to_owned());
        metrics.add(&DECLINED, "soon", 2);
        metrics.add(&DECLINED, "soon", 1);
        metrics.set(&SLOTS, "free", 3.0);
        let text = metrics.render();
        for line in [
            "dockframe_worker_info{version=\"1\"} 1",
            "# TYPE dockframe_jobs_declined_total counter",
            "dockframe_jobs_declined_total{why=\"soon\"} 3",
            "dockframe_worker_slots{state=\"free\"} 3",
            "dockframe_jobs_claimed_total 0",
            "# TYPE dockframe_job_phase_seconds histogram",
        ] {
            assert!(text.lines().any(|seen| seen == line), "{line} in {text}");
        }
    }

    #[test]
    fn histograms_count_up_to_each_bound() {
        let metrics = Metrics::default();
        for millis in [50, 60, 4_000_000] {
            metrics.observe(&PHASES, "run", Duration::from_millis(millis));
        }
        let text = metrics.render();
        for line in [
            "dockframe_job_phase_seconds_bucket{phase=\"run\",le=\"0.05\"} 1",
            "dockframe_job_phase_seconds_bucket{phase=\"run\",le=\"0.1\"} 2",
            "dockframe_job_phase_seconds_bucket{phase=\"run\",le=\"3600\"} 2",
            "dockframe_job_phase_seconds_bucket{phase=\"run\",le=\"+Inf\"} 3",
            "dockframe_job_phase_seconds_count{phase=\"run\"} 3",
        ] {
            assert!(text.lines().any(|seen| seen == line), "{line} in {text}");
        }
    }
}

//! The lists beside the log: outputs, inputs, workers.

use dockframe_shared::job::{FinishReason, StateName};
use dockframe_shared::metaframe::data_ref::{self, DataRef};
use dockframe_shared::metaframe::inputs::{StagedFile, file_name};
use dockframe_shared::protocol::Registration;
use dockframe_shared::{JobId, Timestamp};
use serde_json::Value;

use super::Tone;
use crate::state::State;
use crate::state::uploads::Upload;
use crate::text;

/// Longest text that is shown open.
const PREVIEW_BYTES: usize = 16_384;

/// One file of the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputItem {
    pub name: String,
    /// Bytes, when they are here.
    pub size: Option<u64>,
    pub preview: Preview,
    pub content: Content,
}

/// What can be shown of a file at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preview {
    None,
    Text(String),
    Table(Vec<Vec<String>>),
    /// A picture, of this media type.
    Image(&'static str),
}

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Bytes(Vec<u8>),
    Url(String),
}

/// The files of the shown result.
#[must_use]
pub fn outputs(state: &State) -> Vec<OutputItem> {
    let (Some(finish), Some(wanted)) = (state.job.shown_finish(), state.current()) else { return Vec::new() };
    let items = finish.result.outputs.iter().map(|(name, data)| {
        let content = content(data, wanted.queue.api_origin());
        let (size, preview) = match &content {
            Content::Bytes(bytes) => (Some(bytes.len() as u64), preview(name, bytes)),
            Content::Url(_) => (None, image_type(name).map_or(Preview::None, Preview::Image)),
        };
        OutputItem { name: name.clone(), size, preview, content }
    });
    let mut items: Vec<OutputItem> = items.collect();
    // What can be looked at comes first; within that the names' order stays.
    let rank = |item: &OutputItem| match item.preview {
        Preview::Image(_) => 0,
        Preview::Table(_) => 1,
        Preview::Text(_) => 2,
        Preview::None => 3,
    };
    sort_few(&mut items, |one, other| rank(one) < rank(other));
    items
}

/// The bytes of a reference, or where they are. What cannot be decoded is empty.
#[must_use]
pub fn content(data: &DataRef, api_origin: &str) -> Content {
    match data.content() {
        Ok(data_ref::Content::Bytes(bytes)) => Content::Bytes(bytes.into_owned()),
        Ok(data_ref::Content::At(url)) => Content::Url(url.into_owned()),
        Ok(data_ref::Content::Key(key)) => Content::Url(format!("{api_origin}/f/{key}")),
        Err(_) => Content::Bytes(Vec::new()),
    }
}

/// A picture that a browser draws, by the file's name.
#[must_use]
pub fn image_type(name: &str) -> Option<&'static str> {
    let extension = name.rsplit_once('.')?.1.to_ascii_lowercase();
    match extension.as_str() {
        "png" => Some("image/png"),
        "jpg" | "jpeg" => Some("image/jpeg"),
        "gif" => Some("image/gif"),
        "webp" => Some("image/webp"),
        "svg" => Some("image/svg+xml"),
        _ => None,
    }
}

fn preview(name: &str, bytes: &[u8]) -> Preview {
    if let Some(kind) = image_type(name) {
        return Preview::Image(kind);
    }
    let cut = &bytes[..bytes.len().min(PREVIEW_BYTES)];
    let text = match std::str::from_utf8(cut) {
        Ok(text) => text,
        // A character may be cut at the end; anything else is no text.
        Err(error) if cut.len() < bytes.len() && error.valid_up_to() + 4 > cut.len() => {
            std::str::from_utf8(&cut[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return Preview::None,
    };
    if text.contains('\0') {
        return Preview::None;
    }
    if let Some(table) = table(name, text) {
        return Preview::Table(table);
    }
    if name.ends_with(".json")
        && cut.len() == bytes.len()
        && let Ok(value) = serde_json::from_str::<Value>(text)
        && let Ok(pretty) = serde_json::to_string_pretty(&value)
    {
        return Preview::Text(pretty);
    }
    Preview::Text(text.to_owned())
}

/// The first rows of a simple CSV or TSV file; quoted fields are left to real programs.
fn table(name: &str, text: &str) -> Option<Vec<Vec<String>>> {
    const ROWS: usize = 8;
    let separator = match name.rsplit_once('.')?.1 {
        "csv" => ',',
        "tsv" => '\t',
        _ => return None,
    };
    if text.contains('"') {
        return None;
    }
    let rows: Vec<Vec<String>> = text
        .lines()
        .take(ROWS + 1)
        .map(|line| line.split(separator).take(12).map(|cell| cell.trim().to_owned()).collect())
        .collect();
    let width = rows.first()?.len();
    (width > 1 && rows.len() > 1 && rows.iter().all(|row| row.len() == width)).then_some(rows)
}

/// One value from upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct InputItem {
    pub name: String,
    /// What it is, in a word or two.
    pub what: String,
    /// What is wrong with it.
    pub fault: Option<String>,
    /// Its content, for a download.
    pub content: Option<Content>,
}

/// The values from upstream, as files.
#[must_use]
pub fn inputs(state: &State) -> Vec<InputItem> {
    let wanted = state.current();
    let problems = wanted.map(|wanted| wanted.problems.as_slice()).unwrap_or_default();
    let origin = wanted.map(|wanted| wanted.queue.api_origin().to_owned()).unwrap_or_default();
    let is_shown = |name: &str, staged: &dockframe_shared::metaframe::inputs::Staged| {
        name != "job" && (staged.file.is_some() || staged.problem.is_some())
    };
    let shown = state.inputs.iter().filter(|(name, staged)| is_shown(name, staged));
    let items = shown.map(|(pipe, staged)| {
        let name = file_name(pipe);
        let said = problems.iter().find(|(input, _)| input == pipe).map(|(_, problem)| problem.to_string());
        let own = || staged.problem.as_ref().map(ToString::to_string);
        let upload = wanted.and_then(|wanted| wanted.upload_of(name, &state.uploads));
        let content = staged.file.as_ref().map(|file| match file {
            StagedFile::Inline(data) => content(data, &origin),
            StagedFile::Large(blob) => Content::Bytes(blob.bytes.to_vec()),
        });
        let (fault, what) = match upload {
            Some(Upload::Failed(why)) => (Some(format!("not uploaded: {why}")), describe(content.as_ref())),
            Some(Upload::Sending) => (None, "uploading".to_owned()),
            Some(Upload::Done) | None => (said.or_else(own), describe(content.as_ref())),
        };
        InputItem { name: name.to_owned(), what, fault, content }
    });
    items.collect()
}

fn describe(content: Option<&Content>) -> String {
    match content {
        Some(Content::Bytes(bytes)) => text::size(bytes.len() as u64),
        Some(Content::Url(_)) => "by reference".to_owned(),
        None => String::new(),
    }
}

/// One machine of the queue.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerItem {
    pub id: String,
    pub what: String,
}

/// The queue's workers.
#[must_use]
pub fn workers(workers: &[Registration]) -> Vec<WorkerItem> {
    let items = workers.iter().map(|worker| {
        let mut facts = vec![text::plural(amount(worker.cpus.0), "CPU", "CPUs")];
        if worker.gpus.0 > 0.0 {
            facts.push(text::plural(amount(worker.gpus.0), "GPU", "GPUs"));
        }
        if !worker.max_job_duration.is_empty() {
            facts.push(format!("jobs up to {}", worker.max_job_duration));
        }
        WorkerItem { id: worker.id.to_string(), what: facts.join(" · ") }
    });
    items.collect()
}

/// One job of the queue.
#[derive(Debug, Clone, PartialEq)]
pub struct JobItem {
    pub id: JobId,
    pub tone: Tone,
    /// `running`, `waiting` and why, `finished`.
    pub what: String,
    /// Since when.
    pub since: Timestamp,
    /// It is the page's own job.
    pub is_this: bool,
    pub is_live: bool,
    /// The page's namespace is among its holders: to cancel it ends it only for the page.
    pub is_own: bool,
}

/// The queue's jobs: live ones first, then the newest.
#[must_use]
pub fn jobs(state: &State) -> Vec<JobItem> {
    const SHOWN: usize = 50;
    let own = state.address.settings.control.namespace();
    let this = state.current().map(|wanted| &wanted.id);
    let items = state.jobs.iter().flatten().map(|(id, job)| {
        let (tone, what) = match (job.state, job.finished_reason) {
            (StateName::Queued, _) => (
                Tone::Wait,
                job.wait_reason.as_ref().map_or_else(|| "waiting".to_owned(), |why| format!("waits: {why}")),
            ),
            (StateName::Running, _) => (Tone::Run, "running".to_owned()),
            (_, Some(FinishReason::Success)) => (Tone::Good, "finished".to_owned()),
            (_, Some(FinishReason::TimedOut)) => (Tone::Bad, "timed out".to_owned()),
            _ => (Tone::Bad, "failed".to_owned()),
        };
        JobItem {
            id: id.clone(),
            tone,
            what,
            since: job.time,
            is_this: this == Some(id),
            is_live: matches!(job.state, StateName::Queued | StateName::Running),
            is_own: job.namespaces.as_ref().is_some_and(|names| names.contains(&own)),
        }
    });
    let mut items: Vec<JobItem> = items.collect();
    let key = |item: &JobItem| (!item.is_live, std::cmp::Reverse(item.since));
    sort_few(&mut items, |one, other| key(one) < key(other));
    items.truncate(SHOWN);
    items
}

/// Sorts a list that people read, equal items as they were. The library's sort is made for millions of items, and the
/// page would hold five kilobytes of it for each type.
pub(crate) fn sort_few<T>(items: &mut [T], comes_before: impl Fn(&T, &T) -> bool) {
    for end in 1..items.len() {
        let mut place = end;
        while place > 0 && comes_before(&items[place], &items[place - 1]) {
            items.swap(place, place - 1);
            place -= 1;
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is wanted")]
fn amount(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_list_is_sorted_and_equals_stay_in_their_order() {
        let mut items = [(2, 'a'), (1, 'b'), (2, 'c'), (1, 'd'), (0, 'e')];
        sort_few(&mut items, |one, other| one.0 < other.0);
        assert_eq!(items, [(0, 'e'), (1, 'b'), (1, 'd'), (2, 'a'), (2, 'c')]);
    }

    #[test]
    fn small_tables_are_shown_and_anything_odd_stays_text() {
        assert!(matches!(preview("a.csv", b"x,y\n1,2\n"), Preview::Table(rows) if rows.len() == 2));
        assert!(matches!(preview("a.csv", b"x,y\n1\n"), Preview::Text(_)));
        assert!(matches!(preview("a.csv", b"\"x\",y\n1,2\n"), Preview::Text(_)));
        assert_eq!(preview("a.bin", &[0, 159, 146, 150]), Preview::None);
        assert_eq!(preview("a.svg", b"<svg onload=alert(1)>"), Preview::Image("image/svg+xml"));
        assert_eq!(preview("a.json", b"{\"a\":1}"), Preview::Text("{\n  \"a\": 1\n}".into()));
    }

    #[test]
    fn a_text_cut_inside_a_character_is_still_text() {
        let long = "é".repeat(PREVIEW_BYTES);
        assert!(
            matches!(preview("a.txt", long.as_bytes()), Preview::Text(text) if text.len() == PREVIEW_BYTES)
        );
    }
}

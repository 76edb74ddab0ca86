//! What a job gave: its files into a folder, its error into words.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dockframe_shared::job::JobResult;
use dockframe_shared::metaframe::data_ref::{DataRef, DataRefKind};
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use url::Url;

use super::client::Client;

/// Writes the outputs below `folder`, or names them when there is none.
pub(crate) async fn take(
    client: &Client,
    result: &JobResult,
    folder: Option<&Path>,
    say: impl Fn(&str),
) -> anyhow::Result<()> {
    let Some(folder) = folder else {
        if !result.outputs.is_empty() {
            let names = result.outputs.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            say(&format!("outputs, not fetched without -o DIR: {names}"));
        }
        return Ok(());
    };
    for (name, reference) in &result.outputs {
        let path = folder.join(safe_path(name)?);
        if let Some(parent) = path.parent() {
            tokio::fs::create_dir_all(parent)
                .await
                .with_context(|| format!("cannot make {}", parent.display()))?;
        }
        write(client, reference, &path).await.with_context(|| format!("cannot fetch output {name}"))?;
    }
    Ok(())
}

/// The file's place below the outputs' folder. Names come from the container: none may lead out of it.
fn safe_path(name: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(name);
    let is_safe = !name.is_empty() && path.components().all(|part| matches!(part, Component::Normal(_)));
    if !is_safe {
        bail!("the output name {name:?} leads out of the folder: nothing is written for it");
    }
    Ok(path.to_owned())
}

async fn write(client: &Client, reference: &DataRef, path: &Path) -> anyhow::Result<()> {
    let text = || reference.value.as_str().context("its reference holds no text");
    let content = match reference.kind.unwrap_or(DataRefKind::Utf8) {
        DataRefKind::Utf8 => text()?.as_bytes().to_vec(),
        DataRefKind::Json => serde_json::to_vec(&reference.value)?,
        DataRefKind::Base64 => STANDARD.decode(text()?).context("its base64 cannot be read")?,
        DataRefKind::Url => return download(client, Url::parse(text()?)?, path).await,
        DataRefKind::Key => return download(client, client.blobs()?.join(text()?)?, path).await,
    };
    Ok(tokio::fs::write(path, content).await?)
}

async fn download(client: &Client, url: Url, path: &Path) -> anyhow::Result<()> {
    let mut body = client.get(url).await?.bytes_stream();
    let mut file = tokio::fs::File::create(path).await?;
    while let Some(chunk) = body.next().await {
        file.write_all(&chunk.map_err(reqwest::Error::without_url)?).await?;
    }
    Ok(file.flush().await?)
}

/// The error of a result in words: a text as it is, or the Engine's message.
pub(crate) fn error_text(result: &JobResult) -> String {
    match &result.error {
        Some(Value::String(text)) => text.clone(),
        Some(error) => match error.pointer("/json/message").and_then(Value::as_str) {
            Some(message) => message.to_owned(),
            None => error.to_string(),
        },
        None => "no reason was given".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_output_leaves_the_folder() {
        for name in ["../x", "/etc/passwd", "a/../../x", ".", ""] {
            assert!(safe_path(name).is_err(), "{name}");
        }
        assert_eq!(safe_path("dir/data.csv").unwrap(), Path::new("dir/data.csv"));
    }

    #[test]
    fn errors_are_told_in_words() {
        let told = |error: Value| error_text(&JobResult { error: Some(error), ..JobResult::default() });
        assert_eq!(told("no such image".into()), "no such image");
        assert_eq!(told(serde_json::json!({"statusCode": 404, "json": {"message": "gone"}})), "gone");
    }
}

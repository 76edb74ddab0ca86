//! Makes the table of the page's files that the binary serves: every file of `dist/`, as it is and compressed.
//!
//! A binary without the page would serve an empty one, so a missing `dist/` ends the build with a sentence.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use flate2::Compression;
use flate2::write::GzEncoder;

/// Files that compress to more than this share of themselves are served as they are.
const WORTHWHILE_SHARE: f64 = 0.95;

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let dist = manifest.join("..").join("dist");
    println!("cargo::rerun-if-changed={}", dist.display());
    if !dist.join("index.html").is_file() {
        println!("cargo::error=the page is not built (no dist/index.html): run `make page` first");
        return;
    }

    let mut files = Vec::new();
    collect(&dist, &dist, &mut files);
    files.sort();

    // The best brotli takes a second or two for the wasm file: well spent once a release, not at every debug build.
    let quality = if env::var("PROFILE").as_deref() == Ok("release") { 11 } else { 4 };
    let mut table = String::from("&[\n");
    for (index, path) in files.iter().enumerate() {
        let bytes = fs::read(dist.join(path)).expect("a file just listed can be read");
        let content_type = content_type(path);
        let compressible = is_compressible(&content_type);
        let brotli = compressible.then(|| brotli(&bytes, quality)).filter(|b| is_worthwhile(b, &bytes));
        let gzip = compressible.then(|| gzip(&bytes)).filter(|b| is_worthwhile(b, &bytes));
        let include = |suffix: &str, bytes: &[u8]| {
            let file = out.join(format!("page-{index}.{suffix}"));
            fs::write(&file, bytes).expect("the build's own folder can be written");
            format!("include_bytes!({file:?})")
        };
        let identity = include("raw", &bytes);
        let optional = |suffix: &str, bytes: Option<Vec<u8>>| match bytes {
            Some(bytes) => format!("Some({})", include(suffix, &bytes)),
            None => "None".to_owned(),
        };
        let (brotli, gzip) = (optional("br", brotli), optional("gz", gzip));
        writeln!(
            table,
            "    Asset {{ path: {path:?}, content_type: {content_type:?}, immutable: {}, identity: {identity}, \
             brotli: {brotli}, gzip: {gzip} }},",
            has_hash(path)
        )
        .expect("writing to a String cannot fail");
    }
    table.push(']');
    fs::write(out.join("page_assets.rs"), table).expect("the build's own folder can be written");
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("the page's folder can be listed") {
        let path = entry.expect("the page's folder can be listed").path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let relative = path.strip_prefix(root).expect("it was found below the root");
            files.push(relative.to_string_lossy().replace('\\', "/"));
        }
    }
}

fn content_type(path: &str) -> String {
    let guess = mime_guess::from_path(path).first_or_octet_stream();
    let is_text = guess.type_() == "text" || matches!(guess.subtype().as_str(), "javascript" | "json");
    if is_text { format!("{guess}; charset=utf-8") } else { guess.to_string() }
}

fn is_compressible(content_type: &str) -> bool {
    content_type.starts_with("text/")
        || ["javascript", "json", "wasm", "svg", "xml"].iter().any(|kind| content_type.contains(kind))
}

fn is_worthwhile(compressed: &[u8], original: &[u8]) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
    let share = compressed.len() as f64 / original.len().max(1) as f64;
    share < WORTHWHILE_SHARE
}

/// Whether the name holds a hash of the content, as `app-0123456789abcdef.js`: it may be cached for ever.
fn has_hash(path: &str) -> bool {
    path.rsplit('/')
        .next()
        .unwrap_or(path)
        .split(['-', '.', '_'])
        .any(|part| part.len() >= 8 && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

fn brotli(bytes: &[u8], quality: u32) -> Vec<u8> {
    let mut compressed = Vec::new();
    let mut writer = brotli::CompressorWriter::new(&mut compressed, 64 * 1024, quality, 22);
    writer.write_all(bytes).expect("writing to memory cannot fail");
    drop(writer);
    compressed
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = GzEncoder::new(Vec::new(), Compression::best());
    writer.write_all(bytes).expect("writing to memory cannot fail");
    writer.finish().expect("writing to memory cannot fail")
}

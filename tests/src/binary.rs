//! Where the program under test lies.

use std::path::PathBuf;

use anyhow::Context as _;

/// `DOCKFRAME_BIN`, else `dockframe` in the folder that this build writes to.
///
/// # Errors
/// There is none: the message says how to build it.
pub fn dockframe() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("DOCKFRAME_BIN") {
        let path = PathBuf::from(path);
        anyhow::ensure!(path.is_file(), "DOCKFRAME_BIN={} is not there", path.display());
        return Ok(path);
    }
    // Test programs lie in `<target>/<profile>/deps/`.
    let test = std::env::current_exe().context("this program has no path")?;
    let path = test.ancestors().nth(2).context("this program lies in no build folder")?.join("dockframe");
    anyhow::ensure!(
        path.is_file(),
        "{} is not built: run `make page && cargo build -p dockframe-cli`, or set DOCKFRAME_BIN",
        path.display()
    );
    Ok(path)
}

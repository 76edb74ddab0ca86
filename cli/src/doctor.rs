//! `dockframe doctor`: whether this computer can run jobs.

use std::process::ExitCode;

use dockframe_worker::RunArgs;
use dockframe_worker::doctor::{Verdict, doctor};

/// One line for each thing that was looked at, to stdout: it is what was asked for. Fails if no job would run.
#[expect(clippy::print_stdout, reason = "the findings are what the command gives")]
pub(crate) async fn examine(args: RunArgs) -> ExitCode {
    let findings = doctor(args, |name| std::env::var(name).ok()).await;
    for finding in &findings {
        let mark = match finding.verdict {
            Verdict::Good => "ok  ",
            Verdict::Note => "note",
            Verdict::Bad => "BAD ",
        };
        println!("{mark}  {}: {}", finding.what, finding.text);
    }
    match findings.iter().any(|finding| finding.verdict == Verdict::Bad) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

//! Exit codes: a job's own code where there is one, else as the `docker` and `timeout` commands have them.

use std::process::ExitCode;

/// The job was stopped at a time limit (`timeout` uses the same).
pub(crate) const TIMED_OUT: u8 = 124;
/// The job could not be run: image, inputs, start (`docker run` uses the same).
pub(crate) const NOT_RUN: u8 = 125;
/// The job was cancelled, deleted or replaced before it ended (as a shell shows an interrupt).
pub(crate) const LET_GO: u8 = 130;

/// Says what failed, with its causes, on one line of stderr.
#[expect(clippy::print_stderr, reason = "this is where errors meet the user")]
pub(crate) fn failure(error: &anyhow::Error) -> ExitCode {
    eprintln!("dockframe: {error:#}");
    ExitCode::FAILURE
}

/// The container's exit code as the process's own. Codes are one byte on every system.
pub(crate) fn container(code: i64) -> ExitCode {
    ExitCode::from(u8::try_from(code.rem_euclid(256)).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_codes_keep_their_byte() {
        assert_eq!(format!("{:?}", container(3)), format!("{:?}", ExitCode::from(3)));
        assert_eq!(format!("{:?}", container(-1)), format!("{:?}", ExitCode::from(255)));
    }
}

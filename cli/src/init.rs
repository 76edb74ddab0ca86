//! The first process of a container: starts the program itself as its child, passes signals on, and buries whatever
//! processes are left to it. Without this a worker that is its container's first process would gather the remains of
//! every `docker exec` in it.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

/// Whether this process has the duties of a first one.
pub(crate) fn is_first() -> bool {
    std::process::id() == 1
}

/// The program's whole life, as its parent.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        // Heard before the child is there, so that none is missed.
        let mut children = signal(SignalKind::child())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let child = start()?;
        let pid = Pid::from_child(&child);
        loop {
            let passed_on = tokio::select! {
                _ = children.recv() => None,
                _ = terminate.recv() => Some(Signal::TERM),
                _ = interrupt.recv() => Some(Signal::INT),
                _ = hangup.recv() => Some(Signal::HUP),
            };
            if let Some(signal) = passed_on {
                // It may have ended: then its end is heard next.
                let _ = kill_process(pid, signal);
            }
            // One signal may stand for several ends.
            while let Ok(Some((ended, status))) = wait(WaitOptions::NOHANG) {
                if ended == pid {
                    let code =
                        status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
                    return Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)));
                }
            }
        }
    })
}

/// The same program with the same arguments, in a group of its own: a terminal's interrupt reaches it once, by way of
/// us.
fn start() -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?).args(std::env::args_os().skip(1)).process_group(0).spawn()
}

//! The promises of the whole system, one file each, shown with real processes, containers and browsers.

mod accessibility;
mod canary;
mod cancel;
mod conformance;
mod deploy;
mod example_url;
mod handshake_trace;
mod harness;
mod hostile_content;
mod link_cut;
mod metapage_pipes;
mod nothing_left_behind;
mod page_conformance;
mod poisoned_queue;
mod registry;
mod relay_killed;
mod relay_restart;
mod same_job_twice;
mod size_budget;
mod startup_errors;
mod submit_and_finish;
mod up;
mod worker_conformance;
mod worker_faults;
mod worker_gone;
mod worker_lost;

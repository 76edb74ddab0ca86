//! The promises of the whole system, one file each, shown with real processes, containers and browsers.

mod harness;

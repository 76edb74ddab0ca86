//! What keeps jobs out of private networks and away from this host (`worker` 22.1, B6).
//!
//! Rules of the host's packet filter for everything that comes from the jobs' bridge: answers, name service and the
//! relay pass, private destinations do not. The list is pure; setting it is one atomic call, which needs rights that a
//! worker in a container seldom has.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;
use url::Url;

use crate::config::Network;

/// Where a job may not go.
const PRIVATE: [&str; 6] =
    ["169.254.0.0/16", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8"];
/// Chains of our own, for what passes through the host and for what ends there.
const FORWARD: &str = "DOCKFRAME-FORWARD";
const INPUT: &str = "DOCKFRAME-INPUT";
/// Another process may hold the filter's lock.
const LIMIT: Duration = Duration::from_secs(15);

/// What the owner says about jobs' network.
#[derive(Debug, Clone)]
pub(crate) struct NetworkRules {
    pub(crate) mode: Network,
    /// Private networks and this host are open to jobs.
    pub(crate) allow_private: bool,
    /// The relay, which jobs may reach wherever it is.
    pub(crate) relay: String,
}

/// What is so now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applied {
    Closed,
    Open,
}

/// Sets or removes the rules for a bridge. The error is for the owner.
pub(super) async fn apply(interface: &str, rules: &NetworkRules) -> Result<Applied, String> {
    if !Path::new("/sys/class/net").join(interface).exists() {
        return Err(format!("the bridge {interface} is not in this network namespace"));
    }
    if rules.allow_private || rules.mode == Network::None {
        for (parent, chain) in [("DOCKER-USER", FORWARD), ("INPUT", INPUT)] {
            // Not there is what is wanted.
            let _ = filter(&["-D", parent, "-i", interface, "-j", chain], "").await;
        }
        return Ok(if rules.allow_private { Applied::Open } else { Applied::Closed });
    }
    let relay = relay_addresses(&rules.relay).await;
    restore(&table(&relay)).await?;
    for (parent, chain) in [("DOCKER-USER", FORWARD), ("INPUT", INPUT)] {
        if filter(&["-C", parent, "-i", interface, "-j", chain], "").await.is_err() {
            filter(&["-I", parent, "1", "-i", interface, "-j", chain], "").await?;
        }
    }
    Ok(Applied::Closed)
}

/// Whether this process may set rules for the Engine's bridges. The error is for the owner.
pub(super) async fn is_settable() -> Result<(), String> {
    filter(&["-S", "DOCKER-USER"], "").await
}

/// Both chains, as the filter's own tool reads them.
fn table(relay: &[SocketAddrV4]) -> String {
    let mut text = format!("*filter\n:{FORWARD} - [0:0]\n:{INPUT} - [0:0]\n");
    for chain in [FORWARD, INPUT] {
        // A line of a text in memory is always writable.
        let _ = writeln!(text, "-A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN");
        for protocol in ["udp", "tcp"] {
            let _ = writeln!(text, "-A {chain} -p {protocol} --dport 53 -j RETURN");
        }
        for address in relay {
            let _ =
                writeln!(text, "-A {chain} -d {} -p tcp --dport {} -j RETURN", address.ip(), address.port());
        }
    }
    for range in PRIVATE {
        let _ = writeln!(text, "-A {FORWARD} -d {range} -j REJECT");
    }
    let _ = writeln!(text, "-A {INPUT} -j REJECT\nCOMMIT");
    text
}

async fn relay_addresses(relay: &str) -> Vec<SocketAddrV4> {
    let Ok(url) = Url::parse(relay) else { return Vec::new() };
    let Some((host, port)) = url.host_str().zip(url.port_or_known_default()) else { return Vec::new() };
    let Ok(found) = tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await else {
        return Vec::new();
    };
    let mut addresses: Vec<SocketAddrV4> = found
        .filter_map(|address| match address {
            SocketAddr::V4(address) if *address.ip() != Ipv4Addr::LOCALHOST => Some(address),
            _ => None,
        })
        .collect();
    addresses.sort_unstable();
    addresses
}

async fn restore(table: &str) -> Result<(), String> {
    run("iptables-restore", &["--noflush", "--wait", "10"], table).await
}

async fn filter(arguments: &[&str], input: &str) -> Result<(), String> {
    let all: Vec<&str> = ["--wait", "10"].iter().chain(arguments).copied().collect();
    run("iptables", &all, input).await
}

async fn run(program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    let running = async {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that reads nothing says why.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = child.wait_with_output().await.map_err(|error| format!("{program}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{program}: {}", said.lines().next().unwrap_or("it failed").trim()))
    };
    timeout(LIMIT, running).await.unwrap_or_else(|_| Err(format!("{program} does not end")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_names_and_the_relay_pass_and_private_networks_do_not() {
        let table = table(&["10.1.2.3:8000".parse().unwrap()]);
        let lines: Vec<&str> = table.lines().collect();
        let position = |wanted: &str| {
            lines.iter().position(|line| *line == wanted).unwrap_or_else(|| panic!("no {wanted} in {table}"))
        };
        let relay = position("-A DOCKFRAME-FORWARD -d 10.1.2.3 -p tcp --dport 8000 -j RETURN");
        assert!(relay < position("-A DOCKFRAME-FORWARD -d 10.0.0.0/8 -j REJECT"), "the first match decides");
        position("-A DOCKFRAME-FORWARD -d 169.254.0.0/16 -j REJECT");
        position("-A DOCKFRAME-FORWARD -p udp --dport 53 -j RETURN");
        assert_eq!(lines.last(), Some(&"COMMIT"));
        assert_eq!(
            position("-A DOCKFRAME-INPUT -j REJECT"),
            lines.len() - 2,
            "all else of this host is closed"
        );
    }
}

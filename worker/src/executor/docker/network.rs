//! The jobs' network: one bridge that leads to the internet, or nowhere, and to no other job (`worker` 8.6, 22.1 B6).

use std::collections::HashMap;

use bollard::errors::Error;
use bollard::models::{NetworkCreateRequest, NetworkInspect};
use bollard::query_parameters::{InspectNetworkOptions, ListNetworksOptionsBuilder};
use tracing::{debug, info, warn};

use super::client::{Docker, LABEL};
use super::container::{INTERNAL_NETWORK, NETWORK};
use super::firewall::{self, NetworkRules};
use crate::config::Network;
use crate::executor::EngineError;

/// Looks at the networks of one name until there is one: made, made by others too, the others' removed.
const NETWORK_ROUNDS: usize = 5;
/// Names of the bridges, so that owners can write rules of their own for them.
const BRIDGE: &str = "dockframe0";
const INTERNAL_BRIDGE: &str = "dockframe1";

impl Docker {
    fn network_name(&self) -> &'static str {
        if self.network == Network::Internal { INTERNAL_NETWORK } else { NETWORK }
    }

    /// Exactly one network of the known name. The Engine takes several of one name, so two workers that start
    /// together may make two: the oldest stays.
    pub(super) async fn ensure_network(&self) -> Result<(), Error> {
        let name = self.network_name();
        let mut last = Ok(());
        for _ in 0..NETWORK_ROUNDS {
            let filters = HashMap::from([("name", vec![name])]);
            let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
            let mut found = self.engine.list_networks(Some(options)).await?;
            // The filter matches parts of names too.
            found.retain(|network| network.name.as_deref() == Some(name));
            found.sort_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id)));
            match found.as_slice() {
                [] => last = self.create_network().await,
                [_] => return Ok(()),
                [_, newer @ ..] => {
                    for id in newer.iter().filter_map(|network| network.id.as_deref()) {
                        last = self.engine.remove_network(id).await;
                    }
                }
            }
        }
        last
    }

    async fn create_network(&self) -> Result<(), Error> {
        let bridge = if self.network == Network::Internal { INTERNAL_BRIDGE } else { BRIDGE };
        match self.create_network_on(Some(bridge)).await {
            // Another Engine of this machine has the name.
            Err(Error::DockerResponseServerError { message, .. }) if message.contains(bridge) => {
                self.create_network_on(None).await
            }
            other => other,
        }
    }

    async fn create_network_on(&self, bridge: Option<&str>) -> Result<(), Error> {
        let option =
            |name: &str, value: &str| (format!("com.docker.network.bridge.{name}"), value.to_owned());
        let mut options =
            HashMap::from([option("enable_ip_masquerade", "true"), option("enable_icc", "false")]);
        options.extend(bridge.map(|bridge| option("name", bridge)));
        let request = NetworkCreateRequest {
            name: self.network_name().to_owned(),
            internal: Some(self.network == Network::Internal),
            driver: Some("bridge".to_owned()),
            enable_ipv6: Some(false),
            options: Some(options),
            labels: Some(HashMap::from([(LABEL.to_owned(), "true".to_owned())])),
            ..NetworkCreateRequest::default()
        };
        match self.engine.create_network(request).await {
            // Another worker of this host was quicker.
            Err(Error::DockerResponseServerError { status_code: 409, .. }) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Keeps jobs out of private networks, where this process may do so. A worker that may not says so once.
    pub(super) async fn guard_network(&self, rules: &NetworkRules) {
        let found = self.engine.inspect_network(self.network_name(), None::<InspectNetworkOptions>).await;
        let Some(interface) = found.ok().and_then(|network| interface(&network)) else { return };
        match firewall::apply(&interface, rules).await {
            Ok(firewall::Applied::Closed) => debug!("jobs are kept out of private networks"),
            Ok(firewall::Applied::Open) => info!("jobs may reach private networks and this host"),
            Err(why) => warn!(
                "jobs can reach private networks and this host: the firewall cannot be set ({why}). Run the worker \
                 as root on the host with iptables installed, or use --network=none"
            ),
        }
    }
}

/// The bridge's name on the host.
fn interface(network: &NetworkInspect) -> Option<String> {
    let given = network.options.as_ref().and_then(|options| options.get("com.docker.network.bridge.name"));
    given.cloned().or_else(|| Some(format!("br-{}", network.id.as_deref()?.get(..12)?)))
}

/// The jobs' network is gone, or there are two of them.
pub(super) fn is_network_fault(error: &EngineError) -> bool {
    // The other one's name begins with it.
    matches!(error, EngineError::Refused { message, .. } if message.contains(NETWORK)
        || message.starts_with("network") && message.contains("not found"))
}

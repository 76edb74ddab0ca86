//! The recorded ids and exchanges.

use crate::registry::{Item, item};
use crate::replay::{self, Strictness};
use crate::test::Test;

pub(super) const JOB_IDS: &str = include_str!("../../../shared/tests/vectors/job-id.json");
pub(super) const JOB_DEFINITIONS: &str = include_str!("../../../shared/tests/vectors/job-definition.json");
pub(super) const CANONICAL: &str = include_str!("../../../shared/tests/vectors/job-id-canonical.json");

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "7.51",
            Compat,
            "The recorded exchanges replay, each as recorded or as intended instead.",
            as_any_relay
        ),
        item!(
            "7.51",
            Dockframe,
            "The recorded exchanges replay, with the intended differences.",
            as_intended
        ),
    ]
}

async fn as_any_relay(t: Test) -> anyhow::Result<()> {
    replay::http::play(&t, Strictness::Either).await?;
    replay::socket::play(&t, Strictness::Either).await
}

async fn as_intended(t: Test) -> anyhow::Result<()> {
    replay::http::play(&t, Strictness::Intended).await?;
    replay::socket::play(&t, Strictness::Intended).await
}

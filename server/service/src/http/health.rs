//! How the service is.

use s0_api::volumes::Health;

use super::State;
use super::answers::{Data, Told, ok};
use crate::service::now;

fn good() -> Health {
    Health { status: "ok".into(), timestamp: now().0 / 1_000_000_000 }
}

/// That it runs.
pub(super) async fn runs() -> Data<Health> {
    Data(good())
}

/// That its store answers.
pub(super) async fn is_ready(service: State) -> Told<Health> {
    service.journal.volume("").await?;
    ok(good())
}

//! The names of metrics, as a registry puts them together.

use gastown_metrics::{Definition, Unit as CatalogueUnit};
use prometheus_client::registry::Unit;

/// The beginning of the names of our own metrics. OpenTelemetry's and those of the process have none.
pub(super) const PREFIX: &str = "gastown";

/// Whether a metric is one of ours.
pub(super) fn is_own(definition: &Definition) -> bool {
    definition.name.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with('_'))
}

/// The name without what a registry adds to it.
pub(super) fn base_name(definition: &Definition) -> &'static str {
    let name = definition.name;
    let name = name.strip_prefix("gastown_").unwrap_or(name);
    let unit = definition.unit.suffix();
    unit.and_then(|unit| name.strip_suffix(unit)?.strip_suffix('_')).unwrap_or(name)
}

/// The unit as a registry writes it.
pub(super) fn unit(unit: CatalogueUnit) -> Option<Unit> {
    unit.suffix().map(|suffix| Unit::Other(suffix.to_owned()))
}

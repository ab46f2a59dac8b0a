//! polecat-ctl has no metrics of its own. `gastown_runtime::metrics` covers it: reconciles and
//! their duration by controller (`polecat`, `polecat-orphans`, `polecat-claims`), requests to the
//! API server, and watch errors.

//! Who observes the calls that this process makes: the program that counts them has a registry, and this
//! crate has none.

use std::sync::OnceLock;

use tonic::Code;

/// A call that was answered, or failed.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The service with its package.
    pub service: &'a str,
    /// The method.
    pub method: &'a str,
    /// How it ended; of a stream, how it began.
    pub code: Code,
    /// How long that took.
    pub seconds: f64,
}

static OBSERVER: OnceLock<fn(Call<'_>)> = OnceLock::new();

/// From now on every call of this process is observed. The first observer stays.
pub fn observe(observer: fn(Call<'_>)) {
    let _ = OBSERVER.set(observer);
}

/// A call of the method at `path` has ended.
pub(crate) fn ended(path: &str, code: Code, seconds: f64) {
    if let Some(observer) = OBSERVER.get() {
        let path = path.trim_start_matches('/');
        let (service, method) = path.split_once('/').unwrap_or((path, ""));
        observer(Call { service, method, code, seconds });
    }
}

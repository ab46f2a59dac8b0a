//! Why pods are drained: the values of the annotation `gastown.io/drain`, which an agent reads, and
//! which an outcome is read from.

use std::borrow::Cow;

use super::ledger::sanitize;

/// witness-ctl wants the pod restarted.
pub const UNHEALTHY: &str = "Unhealthy";
/// The time of the attempt is up, and its own agent has not ended it.
pub const DEADLINE: &str = "Deadline";
/// The pod had not started when its Polecat's spec was changed.
pub const SPEC_CHANGED: &str = "SpecChanged";
/// An older pod of the Polecat exists.
pub const DUPLICATE: &str = "Duplicate";
/// The pod could not start in time; its reason and message follow.
const START_TIMEOUT: &str = "StartTimeout: ";

/// The annotation's value for a pod that could not start in time, for this reason.
pub(super) fn start_timeout(reason: &str, message: &str) -> Cow<'static, str> {
    sanitize(&format!("{START_TIMEOUT}{reason}: {message}")).into()
}

/// The reason and the message that [`start_timeout`] wrote.
pub(super) fn read_start_timeout(value: &str) -> Option<(&str, &str)> {
    value.strip_prefix(START_TIMEOUT)?.split_once(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reasons_of_earlier_versions_are_read() {
        for sample in gastown_compat::samples("drain.txt") {
            let lines: Vec<&str> = sample.text.lines().collect();
            for reason in [UNHEALTHY, DEADLINE, SPEC_CHANGED, DUPLICATE] {
                assert!(lines.contains(&reason), "{reason} of {}", sample.version);
            }
            let read: Vec<_> = lines.iter().filter_map(|line| read_start_timeout(line)).collect();
            assert_eq!(read, [("ImagePullBackOff", "image a: b cannot be pulled")]);
        }
    }

    #[test]
    fn why_a_pod_could_not_start_is_read_as_it_was_written() {
        let value = start_timeout("ImagePullBackOff", "image a: b cannot be pulled");
        let read = read_start_timeout(&value);
        assert_eq!(read, Some(("ImagePullBackOff", "image a: b cannot be pulled")));
        assert_eq!(read_start_timeout("Terminated"), None);
    }
}

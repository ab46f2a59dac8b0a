//! Which controllers may call which methods of a gRPC service, as a table in a test: one row for each
//! method, one mark for each controller.

use prost::Message as _;

use gastown_api::rbac::Controller;

/// Checks every method of `service` (as `package.Service` in the encoded descriptors) for every caller.
/// A row is a method and a mark for each of [`Controller::ALL`], in their order: `x` may call it, `-`
/// may not. From another namespace, and with another account, nobody may. `may` gets the method, the
/// namespace and the account.
///
/// # Panics
///
/// When `may` differs from a row, and when the service has a method without a row.
pub fn check(
    descriptors: &[u8],
    service: &str,
    rows: &[(&str, &str)],
    release: &str,
    may: impl Fn(&str, &str, &str) -> bool,
) {
    let mut known = methods(descriptors, service);
    known.sort();
    let mut listed: Vec<String> = rows.iter().map(|(method, _)| (*method).to_owned()).collect();
    listed.sort();
    assert_eq!(known, listed, "the methods of {service}");
    for (method, marks) in rows {
        assert_eq!(marks.len(), Controller::ALL.len(), "{method}");
        for (account, mark) in Controller::ALL.map(Controller::name).into_iter().zip(marks.chars())
        {
            assert_eq!(may(method, release, account), mark == 'x', "{account} calls {method}");
            assert!(
                !may(method, "elsewhere", account),
                "{account} of another namespace calls {method}"
            );
        }
        assert!(
            !may(method, release, "default"),
            "anybody of the release namespace calls {method}"
        );
    }
    for account in Controller::ALL.map(Controller::name) {
        assert!(!may("Unknown", release, account), "{account} calls a method that does not exist");
    }
}

/// The names of a service's methods.
fn methods(descriptors: &[u8], service: &str) -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(descriptors).unwrap_or_default();
    let named = |file: &prost_types::FileDescriptorProto, name: &str| {
        format!("{}.{name}", file.package()) == service
    };
    let services = set.file.iter().flat_map(|f| f.service.iter().filter(|s| named(f, s.name())));
    services.flat_map(|s| s.method.iter().map(|m| m.name().to_owned())).collect()
}

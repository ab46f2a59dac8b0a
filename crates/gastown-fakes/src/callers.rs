//! Who may call what of a gRPC service, as a test writes it down: a row a method, a mark a
//! controller.

use prost::Message as _;

use gastown_api::rbac::Controller;

/// Asks about every method of `service` (as `package.Service` in the encoded descriptors) and every
/// caller. A row is a method and a mark for each of [`Controller::ALL`], in their order: `x` may call
/// it, `-` may not. From another namespace, and with another account, nobody may. `may` is asked
/// with method, namespace and account.
///
/// # Panics
///
/// When an answer is another than the rows say, and when the service has a method without a row.
pub fn check(
    descriptors: &[u8],
    service: &str,
    rows: &[(&str, &str)],
    release: &str,
    may: impl Fn(&str, &str, &str) -> bool,
) {
    let mut known = methods(descriptors, service);
    known.sort();
    let mut told: Vec<String> = rows.iter().map(|(method, _)| (*method).to_owned()).collect();
    told.sort();
    assert_eq!(known, told, "the methods of {service}");
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
        assert!(!may("Unheard", release, account), "{account} calls what is not there");
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

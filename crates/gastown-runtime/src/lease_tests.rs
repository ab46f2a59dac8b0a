//! What the Leases look like. How replicas divide the rigs by them is in `member_tests.rs`, against a
//! real API server in `tests/plane/lease.rs`.

use proptest::prelude::*;

use super::*;

fn elector() -> Elector {
    let member = Member::new("rig-ctl-a", None, Times::default(), 1, Instant::now());
    let (sender, _) = watch::channel(Arc::new(state(&member, Instant::now())));
    let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        std::future::pending::<Result<http::Response<kube::client::Body>, tower::BoxError>>().await
    });
    Elector {
        api: Api::namespaced(kube::Client::new(nobody, "ns"), "ns"),
        names: Names::new("rig-ctl"),
        member,
        objects: HashMap::new(),
        sender,
        running: Arc::default(),
        relist: Arc::default(),
        metrics: Metrics::default(),
        draining: [None; SHARDS],
    }
}

fn replica(name: &str) -> Replica {
    Replica { name: name.to_owned(), address: Some([10, 0, 0, 7].into()) }
}

#[tokio::test]
async fn a_lease_reads_as_it_was_written_and_keeps_what_others_put_there() {
    let mut elector = elector();
    let holder = Some(replica("rig-ctl-a_00000001"));
    let value = Value::Rank(3, holder.clone(), true);
    let mut written = elector.lease(&Write { expected: None, value });
    assert_eq!(written.name_any(), "gastown-rig-ctl-3");
    written.metadata.resource_version = Some("7".to_owned());
    let read = rank(&written);
    assert_eq!(read, Rank { version: 7, holder, shards: Some(SHARDS), leaves: true });
    written.annotations_mut().insert("a".to_owned(), "b".to_owned());
    elector.keep(written);

    let value = Value::Rank(3, None, false);
    let freed = elector.lease(&Write { expected: Some(7), value });
    assert_eq!(
        freed.annotations().iter().collect::<Vec<_>>(),
        [(&"a".to_owned(), &"b".to_owned())]
    );
    assert_eq!(freed.resource_version().as_deref(), Some("7"));
    assert_eq!((rank(&freed).holder, rank(&freed).shards), (None, None));

    let next = Some(replica("rig-ctl-b_00000002"));
    let taken = elector.lease(&Write { expected: Some(7), value: Value::Rank(3, next, false) });
    let spec = taken.spec.unwrap();
    assert_eq!((spec.lease_transitions, spec.lease_duration_seconds), (Some(1), Some(30)));
}

#[test]
fn a_holder_that_knows_no_shards_inherits_no_annotation_of_its_predecessor() {
    let mut lease = Lease::default();
    describe(lease.annotations_mut(), Some(&replica("new_1")), true);
    let holder =
        |name: &str| LeaseSpec { holder_identity: Some(name.to_owned()), ..LeaseSpec::default() };
    lease.spec = Some(holder("new_1"));
    assert!(rank(&lease).shards.is_some() && rank(&lease).leaves);
    lease.spec = Some(holder("old"));
    let read = rank(&lease);
    let old = Some(Replica { name: "old".to_owned(), address: None });
    assert_eq!((read.holder, read.shards, read.leaves), (old, None, false));
}

#[test]
fn rank_0_has_the_name_that_replicas_of_version_0_1_0_know() {
    let names = Names::new("polecat-ctl");
    assert_eq!(names.of(Place::Rank(0)), "gastown-polecat-ctl");
    for place in (0..RANKS).map(Place::Rank).chain([Place::Table]) {
        assert_eq!(names.place(names.of(place)), Some(place));
    }
    assert_eq!(names.place("gastown-polecat-ctl-16"), None);
}

#[test]
fn leases_of_every_release_are_read() {
    for gastown_compat::Sample { version, text } in gastown_compat::samples("replica-lease.json") {
        let lease: Lease = serde_json::from_str(&text).unwrap();
        let read = rank(&lease);
        assert!(read.holder.is_some(), "{version}");
        assert_eq!(read.shards.is_none(), version == "0.1.0", "{version}");
    }
}

#[tokio::test]
async fn version_0_1_0_reads_who_holds_rank_0_and_waits_a_minute_for_it() {
    let value = Value::Rank(0, Some(replica("rig-ctl-a_00000001")), false);
    let lease = elector().lease(&Write { expected: None, value });
    let read = gastown_compat::v0_1_0::replica(&serde_json::to_value(lease).unwrap()).unwrap();
    assert_eq!(read, ("rig-ctl-a_00000001".to_owned(), 60, 0));
}

proptest! {
    #[test]
    fn a_table_reads_as_it_was_written(owners in prop::collection::vec("|a|b_1|c", SHARDS)) {
        let owners: Owners = owners.try_into().unwrap();
        prop_assert_eq!(table_from(&table_text(&owners)), Some(owners));
    }

    #[test]
    fn any_text_is_a_table_or_none(text in r#"\{("[ab]?":\[[0-9, ]{0,20}\],?){0,3}\}|.{0,40}"#) {
        if let Some(owners) = table_from(&text) {
            prop_assert_eq!(table_from(&table_text(&owners)), Some(owners));
        }
    }
}

//! Rules of all kinds but the Polecat's own.

use gastown_api::duration;
use gastown_types::{BranchName, CommitId, GitUrl};
use serde_json::{Value, json};

use crate::fixture::{
    Fixture, bead_store, convoy, merge_request, polecat, refinery, rig, with, without, witness,
};

/// Checks that the good texts are accepted at this place of this object, and the bad ones refused
/// with a message that contains the words.
pub async fn texts(
    fixture: &Fixture,
    base: &Value,
    place: &str,
    good: &[&str],
    bad: &[&str],
    words: &[&str],
) {
    for text in good {
        fixture.accepts(&with(base.clone(), place, json!(text))).await;
    }
    let field = place.replace('/', ".");
    for text in bad {
        let words: Vec<&str> = words.iter().copied().chain([field.as_str()]).collect();
        fixture.refuses(&with(base.clone(), place, json!(text)), &words).await;
    }
}

/// Checks that the good numbers are accepted at this place, and the bad ones refused.
async fn numbers(fixture: &Fixture, base: &Value, place: &str, good: &[i64], bad: &[i64]) {
    for n in good {
        fixture.accepts(&with(base.clone(), place, json!(n))).await;
    }
    for n in bad {
        fixture.refuses(&with(base.clone(), place, json!(n)), &[&place.replace('/', ".")]).await;
    }
}

const URLS: [&str; 12] = [
    "git@github.com:org/repo.git",
    "git@host_1.example:repo",
    "ssh://git@host:2222/org/repo.git",
    "ssh://host/repo",
    "https://github.com/org/repo",
    "https://github.com/org/repo.git/",
    "https://host:8443/org/repo",
    "http://git.demo.svc:8080/repo.git",
    "file:///srv/git/repo.git",
    "https://host/~user/a+b@c%20d",
    "git@host:/srv/repo",
    "https://h/a..b/c",
];

const NO_URLS: [&str; 22] = [
    "-u",
    "--upload-pack=touch x",
    "ext::sh -c x",
    "ftp://h/r",
    "git@-oProxyCommand=x:r",
    "ssh://-oProxyCommand=x/r",
    "git@h:-r",
    "https://user:pw@h/r",
    "https://tok@h/r",
    "https://h",
    "https://h/",
    "https:///r",
    "git@h:",
    "ssh://h:0/r",
    "ssh://h:99999/r",
    "a@b://c",
    "https://h/a b",
    "https://h/a\nb",
    "file://host/r",
    "/srv/r",
    "https://h/../r",
    "https://h/$(id)",
];

#[tokio::test]
async fn repository_urls_are_those_that_the_controllers_read() {
    let fixture = Fixture::new().await;
    for url in URLS {
        assert!(url.parse::<GitUrl>().is_ok(), "{url}");
    }
    for url in NO_URLS {
        assert!(url.parse::<GitUrl>().is_err(), "{url}");
    }
    texts(&fixture, &rig(), "spec/gitURL", &URLS, &NO_URLS, &["must be a repository URL"]).await;
    texts(
        &fixture,
        &polecat(),
        "spec/kubernetes/gitRepository",
        &URLS,
        &NO_URLS,
        &["must be a repository URL"],
    )
    .await;
    fixture
        .refuses(
            &with(rig(), "spec/gitURL", json!(format!("https://h/{}", "a".repeat(2048)))),
            &["spec.gitURL", "2048"],
        )
        .await;
}

/// Texts made of parts, the same ones every time.
fn chance(parts: &[&[&str]], count: usize) -> Vec<String> {
    let mut state = 7_u64;
    let mut draw = |n: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    (0..count).map(|_| parts.iter().map(|choices| choices[draw(choices.len())]).collect()).collect()
}

/// Checks that whatever the API server accepts at a place can be read by the controllers; `parts`
/// make texts of both sorts.
pub async fn taken_means_read(
    fixture: &Fixture,
    base: &Value,
    place: &str,
    parts: &[&[&str]],
    reads: impl Fn(&str) -> bool,
) {
    let mut taken = 0;
    let texts = chance(parts, 400);
    for text in &texts {
        if fixture.takes(&with(base.clone(), place, json!(text))).await {
            assert!(reads(text), "taken, and no controller reads it: {text:?}");
            taken += 1;
        }
    }
    assert!(
        (20..380).contains(&taken),
        "the texts prove little: {taken} of {} were taken",
        texts.len()
    );
}

#[tokio::test]
async fn a_url_or_branch_that_is_taken_is_one_that_is_read() {
    let fixture = Fixture::new().await;
    let url: [&[&str]; 6] = [
        &[
            "https://",
            "http://",
            "ssh://",
            "ssh://git@",
            "git@",
            "file://",
            "",
            "ssh://-x@",
            "https://u:p@",
            "git://",
        ],
        &["host", "h.example", "1", "_h", "H-1", "-h", "", "h:"],
        &["/", "/", "/", ":", ":22/", ":65535/", ":65536/", ":70000/", ":0/", "//", ""],
        &["repo", "a/b", "a..b", "~u", "%20", "a+b@c", "..", "a/../b", ".", "-r", "a b", ""],
        &["", "", "", ".git", "/", "/..", "/-", "\n"],
        &["", "", "", "/x", ":1", ";"],
    ];
    taken_means_read(&fixture, &rig(), "spec/gitURL", &url, |t| t.parse::<GitUrl>().is_ok()).await;
    let first: &[&str] = &["", "a", "b", "_", "B1", "a/b", ".", "-", "@", "refs/", "HEAD"];
    let part: &[&str] = &[
        "", "", "a", "a", "B1", ".", "..", "-", "@", "@{", "/", "/", "//", ".lock", ".LOCK",
        ".lock/", "=", "~", " ",
    ];
    let branch: [&[&str]; 4] = [first, part, part, part];
    let place = "spec/sourceBranch";
    taken_means_read(&fixture, &merge_request(), place, &branch, |t| {
        t.parse::<BranchName>().is_ok()
    })
    .await;
}

#[tokio::test]
async fn branches_are_those_that_the_controllers_read() {
    let fixture = Fixture::new().await;
    let good =
        ["main", "feature/gt-1.2", "release/2.x", "user@work", "a", "fix-#12", "v1+2=3", "_x"];
    let bad = [
        "",
        "-D",
        "a b",
        "a..b",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a/.b",
        "a.lock",
        "a.lock/b",
        "a.",
        "HEAD",
        "a@{1}",
        "refs/heads/a",
        "a~1",
        "a^",
        "a:b",
        "a*",
        "a\nb",
        "a\\b",
        "a?",
        "a[",
    ];
    for branch in good {
        assert!(branch.parse::<BranchName>().is_ok(), "{branch}");
    }
    let places = [
        (polecat(), "spec/kubernetes/gitBranch"),
        (polecat(), "spec/kubernetes/workBranch"),
        (refinery(), "spec/targetBranch"),
        (merge_request(), "spec/sourceBranch"),
        (merge_request(), "spec/targetBranch"),
        (with(rig(), "spec/refinery", json!({})), "spec/refinery/targetBranch"),
    ];
    for (base, place) in places {
        texts(&fixture, &base, place, &good, &bad, &[]).await;
        fixture
            .refuses(&with(base, place, json!("a..b")), &["must be a branch's short name"])
            .await;
    }
}

#[tokio::test]
async fn durations_are_those_that_the_controllers_read() {
    let fixture = Fixture::new().await;
    let good = ["30s", "15m", "1h30m", "1.5h", "250ms", "0", "10us"];
    let bad = ["", "30", "s", "-5s", "5 s", "5d", "1h30", "soon"];
    assert!(
        good.iter().all(|d| duration::parse(d).is_some())
            && bad.iter().all(|d| duration::parse(d).is_none())
    );
    let template = with(rig(), "spec/witness", json!({}));
    for (base, place) in [
        (witness(), "spec/healthCheckInterval"),
        (polecat(), "spec/kubernetes/startTimeout"),
        (rig(), "spec/settings/wipRetention"),
        (witness(), "spec/stuckThreshold"),
        (bead_store(), "spec/syncInterval"),
        (template.clone(), "spec/witness/healthCheckInterval"),
        (template, "spec/witness/stuckThreshold"),
    ] {
        texts(&fixture, &base, place, &good, &bad, &["must be a duration such as 30s"]).await;
    }
}

#[tokio::test]
async fn beads_are_whatever_makes_a_branch_and_a_path() {
    let fixture = Fixture::new().await;
    let good = ["", "gt-1", "gt-a1b2.3", "my-long-prefix-x1", "BUG_7", "7"];
    let bad = ["a/b", "..", "a..b", "-a", ".a", "a b", "a.", "a;b", "a\nb"];
    for (base, place) in [(polecat(), "spec/beadID"), (merge_request(), "spec/beadID")] {
        texts(&fixture, &base, place, &good, &bad, &["must be a bead id"]).await;
        fixture.accepts(&with(base.clone(), place, json!("b".repeat(255)))).await;
        fixture.refuses(&with(base, place, json!("b".repeat(256))), &["spec.beadID", "255"]).await;
    }
    for bad in bad {
        fixture
            .refuses(
                &with(convoy(), "spec/trackedBeads", json!(["gt-1", bad])),
                &["must be a bead id", "trackedBeads[1]"],
            )
            .await;
    }
}

#[tokio::test]
async fn a_rig_has_a_repository_a_prefix_a_theme_and_a_limit() {
    let fixture = Fixture::new().await;
    fixture.accepts(&rig()).await;
    for field in ["spec/gitURL", "spec/beadsPrefix"] {
        fixture.refuses(&without(rig(), field), &["Required", &field.replace('/', ".")]).await;
    }
    let bad = ["", "a", "abcdefghijk", "Gt", "g1", "gt-"];
    texts(
        &fixture,
        &rig(),
        "spec/beadsPrefix",
        &["gt", "abcdefghij"],
        &bad,
        &["2 to 10 lowercase letters"],
    )
    .await;
    texts(&fixture, &rig(), "spec/beadsPrefix", &[], &["hq", "system", "default"], &["reserved"])
        .await;
    let themes = ["mad-max", "minerals", "wasteland"];
    texts(
        &fixture,
        &rig(),
        "spec/settings/namepoolTheme",
        &themes,
        &["", "star-wars"],
        &["one of mad-max"],
    )
    .await;
    numbers(&fixture, &rig(), "spec/settings/maxPolecats", &[1, 8, 100], &[0, -1, 101]).await;
    let twice = with(rig(), "spec/allowedNamespaces", json!(["a", "a"]));
    fixture.refuses(&twice, &["allowedNamespaces", "Duplicate"]).await;
    fixture
        .refuses(
            &with(rig(), "spec/allowedNamespaces", json!(["a".repeat(64)])),
            &["allowedNamespaces[0]"],
        )
        .await;
}

#[tokio::test]
async fn the_smaller_kinds_have_what_they_need() {
    let fixture = Fixture::new().await;
    for base in [witness(), refinery(), bead_store(), merge_request()] {
        fixture.accepts(&base).await;
        fixture.refuses(&without(base.clone(), "spec/rigRef"), &["spec.rigRef", "Required"]).await;
        fixture.refuses(&with(base, "spec/rigRef", json!("")), &["spec.rigRef"]).await;
    }
    fixture.refuses(&with(convoy(), "spec/description", json!("")), &["spec.description"]).await;
    fixture.refuses(&with(convoy(), "spec/trackedBeads", json!([])), &["spec.trackedBeads"]).await;
    numbers(&fixture, &convoy(), "spec/parallelism", &[0, 3], &[-1]).await;
    let dispatched = with(convoy(), "spec/dispatch", json!(true));
    fixture.refuses(&dispatched, &["spec.rigRef is required when spec.dispatch is true"]).await;
    fixture
        .refuses(&with(dispatched.clone(), "spec/rigRef", json!("")), &["spec.rigRef is required"])
        .await;
    fixture.accepts(&with(dispatched, "spec/rigRef", json!("web"))).await;
    texts(&fixture, &convoy(), "spec/failurePolicy", &["Continue", "Stop"], &["", "Ignore"], &[])
        .await;
    let generic = json!({ "agent": "generic" });
    fixture
        .refuses(
            &with(rig(), "spec/polecatTemplate", generic),
            &["agentConfig.command is required"],
        )
        .await;
    let mount =
        json!({ "kubernetes": { "volumeMounts": [{ "name": "git-creds", "mountPath": "/c" }] } });
    fixture
        .refuses(
            &with(rig(), "spec/polecatTemplate", mount),
            &["must be one of kubernetes.volumes"],
        )
        .await;
    numbers(&fixture, &refinery(), "spec/parallelism", &[1, 100], &[0, -1, 101]).await;
    let bad = ["", "9-", "Gt-", "g/", "-"];
    texts(&fixture, &bead_store(), "spec/prefix", &["gt-", "gt", "my.app_2-x-"], &bad, &[]).await;
    for base in [refinery(), bead_store()] {
        fixture
            .refuses(
                &with(base.clone(), "spec/gitSecretRef", json!({ "name": "" })),
                &["spec.gitSecretRef.name"],
            )
            .await;
        fixture
            .refuses(
                &with(base, "spec/gitSecretRef", json!({})),
                &["spec.gitSecretRef.name", "Required"],
            )
            .await;
    }
}

#[tokio::test]
async fn a_merge_request_names_one_commit() {
    let fixture = Fixture::new().await;
    let (sha1, sha256) = ("a".repeat(40), "0123456789abcdef".repeat(4));
    let bad =
        ["", "HEAD", "main", &"A".repeat(40), &"a".repeat(39), &"a".repeat(41), &"g".repeat(40)];
    assert!([&sha1, &sha256].iter().all(|c| c.parse::<CommitId>().is_ok()));
    texts(
        &fixture,
        &merge_request(),
        "spec/commit",
        &[&sha1, &sha256],
        &bad,
        &["40 or 64 lowercase hexadecimal digits"],
    )
    .await;
    numbers(&fixture, &merge_request(), "spec/priority", &[0, 4], &[-1, 5]).await;
    numbers(&fixture, &merge_request(), "spec/attempt", &[1, 9], &[0]).await;
    numbers(&fixture, &merge_request(), "spec/retry", &[0, 9], &[-1]).await;
    fixture
        .refuses(
            &with(merge_request(), "spec/rejected", json!({ "by": "maya" })),
            &["spec.rejected.reason"],
        )
        .await;
    fixture
        .refuses(
            &with(merge_request(), "spec/polecatRef", json!({ "name": "a" })),
            &["spec.polecatRef.uid"],
        )
        .await;
}

#[tokio::test]
async fn where_a_bead_store_s_beads_are_is_a_plain_place() {
    let fixture = Fixture::new().await;
    let base = bead_store();
    texts(&fixture, &base, "spec/git/url", &URLS, &NO_URLS, &[]).await;
    texts(
        &fixture,
        &base,
        "spec/git/branch",
        &["beads-sync", "sync/beads"],
        &["-D", "a..b", "refs/heads/x"],
        &[],
    )
    .await;
    let (good, bad) = (
        [".beads", "a/.beads", "a.b/c"],
        ["/etc", "../x", "a/../b", "a//b", "a/", ".", ".git", "a/.GIT/b", "a b"],
    );
    texts(&fixture, &base, "spec/git/path", &good, &bad, &["such as .beads"]).await;
    texts(
        &fixture,
        &base,
        "spec/writePolicy",
        &["ReadOnly", "Write", "AllowExportOnly"],
        &["Force"],
        &[],
    )
    .await;
    texts(&fixture, &base, "spec/backend", &["GitJsonl"], &["DoltSql"], &[]).await;
}

#[tokio::test]
async fn a_bead_store_names_a_server_exactly_where_a_server_has_its_beads() {
    let fixture = Fixture::new().await;
    let served = with(
        with(bead_store(), "spec/backend", json!("HttpV0")),
        "spec/http",
        json!({ "url": "http://beads.example.svc:8080" }),
    );
    fixture.accepts(&served).await;
    fixture.refuses(&without(served.clone(), "spec/http"), &["give http with that backend"]).await;
    fixture
        .refuses(&without(served.clone(), "spec/backend"), &["give http with that backend"])
        .await;
    for (place, value) in [
        ("spec/git", json!({ "branch": "beads" })),
        ("spec/git", json!({ "url": "https://host/beads" })),
        ("spec/git", json!({ "commitAuthor": "b <b@h>" })),
        ("spec/git", json!({ "path": "sub/.beads" })),
    ] {
        fixture
            .refuses(&with(served.clone(), place, value), &["git is for backend GitJsonl"])
            .await;
    }
    for place in ["spec/gitSecretRef", "spec/sshKnownHostsConfigMapRef", "spec/caConfigMapRef"] {
        fixture
            .refuses(
                &with(served.clone(), place, json!({ "name": "git" })),
                &["http.tokenSecretRef"],
            )
            .await;
    }
    let good = [
        "http://beads",
        "https://beads.example:8443/project/",
        "http://10.0.0.1:80",
        "http://[::1]:8080",
    ];
    let bad = [
        "beads:8080",
        "ftp://beads",
        "http://",
        "http://ada:pw@beads",
        "http://beads/?x=1",
        "http://beads/#x",
        "http://beads:70000",
        "http://a b",
    ];
    texts(&fixture, &served, "spec/http/url", &good, &bad, &["must be a server's URL"]).await;
    fixture
        .refuses(&with(served.clone(), "spec/http/projectId", json!("")), &["spec.http.projectId"])
        .await;
    fixture
        .refuses(
            &with(served, "spec/http/tokenSecretRef", json!({})),
            &["spec.http.tokenSecretRef.name"],
        )
        .await;
    let template = json!({ "backend": "HttpV0", "http": { "url": "http://beads" } });
    fixture.accepts(&with(rig(), "spec/beads", template)).await;
    fixture
        .refuses(
            &with(rig(), "spec/beads", json!({ "http": { "url": "http://beads" } })),
            &["give http with that backend"],
        )
        .await;
    fixture
        .refuses(
            &with(rig(), "spec/beads", json!({ "backend": "HttpV0" })),
            &["give http with that backend"],
        )
        .await;
}

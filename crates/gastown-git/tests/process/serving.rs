//! What the server of a mirror gives away.

use std::time::Duration;

use gastown_git::Git;
use gastown_git::serve::Offer;
use gastown_types::CommitId;

use crate::fixture::{Fixture, branch, git};

#[tokio::test]
async fn serving_shows_one_candidate_with_the_targets_tags_and_nothing_else() {
    let g = Fixture::new();
    let base = g.commit("one", &[("a", "1")]);
    g.push("main");
    let other = g.commit("two", &[("a", "2")]);
    git(&g.work(), &["push", "-q", "origin", "HEAD:refs/heads/secret"]);
    git(&g.work(), &["tag", "-a", "-m", "one", "v1", base.as_str()]);
    git(&g.work(), &["tag", "v2", other.as_str()]);
    git(&g.work(), &["push", "-q", "origin", "v1", "v2"]);
    let tag: CommitId = git(&g.work(), &["rev-parse", "v1"]).parse().unwrap();
    let m = g.mirror("m");
    m.refresh(&g.as_remote(), &[branch("main"), branch("secret")]).await.unwrap();
    m.keep_candidate(&base).await.unwrap();
    m.follow_tags(&g.as_remote(), &branch("main"), &base).await.unwrap();
    m.follow_tags(&g.as_remote(), &branch("secret"), &other).await.unwrap();
    let git = Git::from_env();
    let target = branch("main");
    let offer = Offer { mirror: m.path(), candidate: &base, target: &target, module: None };
    let text =
        String::from_utf8(gastown_git::serve::advertise(&git, &offer).await.unwrap()).unwrap();
    assert!(text.contains(&format!("refs/gastown/candidates/{base}")), "{text}");
    assert!(!text.contains(other.as_str()), "{text}");
    let peeled = format!("{base} refs/gastown/tags/{}/v1^{{}}", folder_of(&text));
    assert!(text.contains(&peeled) && !text.contains("/v2"), "{text}");
    let ask = async |id: &CommitId| {
        let want = format!("want {id} \n");
        let body = format!("{:04x}{want}00000009done\n", want.len() + 4);
        let mut pack =
            gastown_git::serve::answer(&git, &offer, body.into_bytes(), Duration::from_secs(60))
                .unwrap();
        let mut bytes = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut pack, &mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    assert!(ask(&base).await.contains("PACK"));
    assert!(ask(&tag).await.contains("PACK"));
    let refused = ask(&other).await;
    assert!(refused.contains("not our ref") && !refused.contains("PACK"), "{refused}");
}

/// The folder of the first tag that is shown.
fn folder_of(text: &str) -> &str {
    let (_, after) = text.split_once("refs/gastown/tags/").unwrap();
    after.split_once('/').unwrap().0
}

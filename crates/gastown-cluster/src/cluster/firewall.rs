//! Rules in the host's own firewall. Where it drops by default (container engines set FORWARD to
//! drop, desktop firewalls INPUT), pods would reach neither each other through a Service nor the API
//! server; so traffic of our bridge is accepted, by rules that carry our name and are removed with
//! the bridge.

use anyhow::Result;

use super::command::{output, run};
use super::config::{BRIDGE, TABLE};

/// The chains of iptables, as nft shows them, with the directions of our traffic.
const CHAINS: [(&str, &[&str]); 2] =
    [("FORWARD", &["iifname", "oifname"]), ("INPUT", &["iifname"])];

/// Adds our rules at the head of each chain that drops by default.
pub async fn open() -> Result<()> {
    for (chain, directions) in CHAINS {
        if drops_by_default(&list(chain).await) {
            for direction in directions {
                run(
                    "nft",
                    &[
                        "insert", "rule", "ip", "filter", chain, direction, BRIDGE, "accept",
                        "comment", TABLE,
                    ],
                )
                .await?;
            }
        }
    }
    Ok(())
}

/// Removes our rules.
pub async fn close() -> Result<()> {
    for (chain, _) in CHAINS {
        for handle in our_handles(&list(chain).await) {
            run("nft", &["delete", "rule", "ip", "filter", chain, "handle", &handle]).await?;
        }
    }
    Ok(())
}

/// Our rules that exist.
pub async fn leftovers() -> Vec<String> {
    let mut found = Vec::new();
    for (chain, _) in CHAINS {
        let handles = our_handles(&list(chain).await);
        found.extend(
            handles.into_iter().map(|handle| format!("nft rule ip filter {chain} handle {handle}")),
        );
    }
    found
}

/// A chain's text; empty where the chain does not exist, which drops nothing.
async fn list(chain: &str) -> String {
    output("nft", &["--handle", "list", "chain", "ip", "filter", chain]).await.unwrap_or_default()
}

fn drops_by_default(chain: &str) -> bool {
    chain.contains("policy drop;")
}

/// The handles of rules that carry our name.
fn our_handles(chain: &str) -> Vec<String> {
    let name = format!("comment \"{TABLE}\"");
    let ours = chain.lines().filter(|line| line.contains(&name));
    ours.filter_map(|line| line.rsplit_once("# handle "))
        .map(|(_, handle)| handle.trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: &str = "table ip filter { # handle 1
\tchain FORWARD { # handle 2
\t\ttype filter hook forward priority filter; policy drop;
\t\toifname \"gastown0\" accept comment \"gastown\" # handle 9
\t\tiifname \"gastown0\" accept comment \"gastown\" # handle 8
\t\tip saddr 192.0.2.1 accept comment \"gastown-like\" # handle 4
\t\tcounter packets 0 bytes 0 jump DOCKER-USER # handle 3
\t}
}
";

    #[test]
    fn only_rules_of_our_name_are_ours() {
        assert_eq!(our_handles(CHAIN), ["9", "8"]);
        assert_eq!(our_handles(""), Vec::<String>::new());
    }

    #[test]
    fn a_chain_that_accepts_or_is_absent_needs_no_rule() {
        assert!(drops_by_default(CHAIN));
        assert!(!drops_by_default(&CHAIN.replace("policy drop", "policy accept")));
        assert!(!drops_by_default(""));
    }
}

//! The proxy through which the pods that a controller makes reach other networks.
//!
//! The controller's own git takes it from the usual variables of its environment. Nothing else of a
//! controller uses a proxy: gRPC and the API server are in the cluster.

/// What is always reached directly: this machine, and the services of the cluster.
const DIRECT: &str = "localhost,127.0.0.1,::1,.svc";

/// The flags for the proxy of pods.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyArgs {
    /// Proxy for https that the pods of agents and gates use, such as http://proxy.example:3128
    #[arg(long, env = "GASTOWN_POD_HTTPS_PROXY")]
    pub pod_https_proxy: Option<String>,
    /// Proxy for http that the pods of agents and gates use
    #[arg(long, env = "GASTOWN_POD_HTTP_PROXY")]
    pub pod_http_proxy: Option<String>,
    /// Hosts that these pods reach directly, beside localhost and names that end in .svc:
    /// comma-separated, such as .cluster.local,10.0.0.0/8,.example
    #[arg(long, env = "GASTOWN_POD_NO_PROXY")]
    pub pod_no_proxy: Option<String>,
}

impl ProxyArgs {
    /// The environment variables of a container, none without a proxy. Programs differ in whether
    /// they read the upper or the lower case.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let set = |value: &Option<String>| value.clone().filter(|text| !text.trim().is_empty());
        let (https, http) = (set(&self.pod_https_proxy), set(&self.pod_http_proxy));
        let direct = (https.is_some() || http.is_some()).then(|| {
            let more = set(&self.pod_no_proxy).map(|hosts| format!(",{hosts}"));
            format!("{DIRECT}{}", more.unwrap_or_default())
        });
        let both = |upper, lower, value: Option<String>| {
            value.into_iter().flat_map(move |v| [(upper, v.clone()), (lower, v)])
        };
        both("HTTPS_PROXY", "https_proxy", https)
            .chain(both("HTTP_PROXY", "http_proxy", http))
            .chain(both("NO_PROXY", "no_proxy", direct))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_of_the_cluster_are_never_reached_through_the_proxy() {
        let args = ProxyArgs {
            pod_https_proxy: Some("http://proxy:3128".into()),
            pod_http_proxy: Some(String::new()),
            pod_no_proxy: Some(".example".into()),
        };
        let direct = "localhost,127.0.0.1,::1,.svc,.example".to_owned();
        let proxy = "http://proxy:3128".to_owned();
        assert_eq!(
            args.variables(),
            [
                ("HTTPS_PROXY", proxy.clone()),
                ("https_proxy", proxy),
                ("NO_PROXY", direct.clone()),
                ("no_proxy", direct),
            ]
        );
        let only_direct = ProxyArgs { pod_no_proxy: args.pod_no_proxy, ..ProxyArgs::default() };
        assert_eq!(only_direct.variables(), []);
    }
}

//! Where a server is, and the paths below it.

use std::fmt::Write as _;

use url::{Host, Url};

/// The address of a server: scheme, host, port and a path before `/v0/beads`, if a proxy wants one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    secure: bool,
    host: Host<String>,
    port: u16,
    authority: String,
    base: String,
}

/// Why a URL is no address of a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL at all.
    #[error("not a URL: {0}")]
    NotAUrl(String),
    /// Neither `http` nor `https`, or without a host.
    #[error("the URL must begin with http:// or https:// and name a host")]
    NotHttp,
    /// A name and a password in the URL would be in every status and log.
    #[error("the URL must not hold a user or a password; name a Secret instead")]
    Credentials,
    /// What the paths of the API would be appended to has an end.
    #[error("the URL must not have a query or a fragment")]
    Suffix,
}

impl Endpoint {
    /// Reads the `url` of a spec.
    pub fn parse(url: &str) -> Result<Self, EndpointError> {
        let url =
            Url::parse(url.trim()).map_err(|error| EndpointError::NotAUrl(error.to_string()))?;
        let secure = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(EndpointError::NotHttp),
        };
        let (Some(host), Some(port)) =
            (url.host().map(|host| host.to_owned()), url.port_or_known_default())
        else {
            return Err(EndpointError::NotHttp);
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EndpointError::Credentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(EndpointError::Suffix);
        }
        let authority =
            url.port().map_or_else(|| host.to_string(), |port| format!("{host}:{port}"));
        Ok(Self {
            secure,
            host,
            port,
            authority,
            base: url.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Whether it is spoken to over TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Host and port as a connection wants them.
    pub(crate) fn address(&self) -> (String, u16) {
        let host = match &self.host {
            Host::Domain(name) => name.clone(),
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => ip.to_string(),
        };
        (host, self.port)
    }

    /// Host and port as the `Host` header wants them.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// The target of a request for `path`, which is relative to `/v0/beads/`.
    pub(crate) fn target(&self, path: &str) -> String {
        format!("{}/v0/beads/{path}", self.base)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}://{}{}",
            if self.secure { "https" } else { "http" },
            self.authority,
            self.base
        )
    }
}

/// `text` as one segment of a path, or as one value of a query.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_its_port_and_its_path() {
        let endpoint = Endpoint::parse("http://beads.town.svc:8080/proxy/").unwrap();
        assert_eq!(endpoint.target("context"), "/proxy/v0/beads/context");
        assert_eq!(
            (endpoint.authority(), endpoint.address()),
            ("beads.town.svc:8080", ("beads.town.svc".to_owned(), 8080))
        );
        assert_eq!(endpoint.to_string(), "http://beads.town.svc:8080/proxy");
        assert_eq!(Endpoint::parse("https://[::1]/").unwrap().address(), ("::1".to_owned(), 443));
        assert_eq!(Endpoint::parse("https://[::1]:1/").unwrap().authority(), "[::1]:1");
    }

    #[test]
    fn what_would_leak_or_cannot_be_reached_is_refused() {
        assert_eq!(Endpoint::parse("http://ada:pw@beads/"), Err(EndpointError::Credentials));
        assert_eq!(Endpoint::parse("file:///etc/passwd"), Err(EndpointError::NotHttp));
        assert_eq!(Endpoint::parse("http://beads/?x=1"), Err(EndpointError::Suffix));
        assert_eq!(Endpoint::parse("http://beads/#x"), Err(EndpointError::Suffix));
        assert!(matches!(Endpoint::parse("beads"), Err(EndpointError::NotAUrl(_))));
    }

    #[test]
    fn a_segment_cannot_become_another_path() {
        assert_eq!(encoded("gt-1:close?x=é/.."), "gt-1%3Aclose%3Fx%3D%C3%A9%2F..");
    }
}

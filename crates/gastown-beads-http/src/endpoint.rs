//! The address of a server, and the paths below it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::{Host, Url};

/// Everything but the unreserved characters of RFC 3986 §2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The address of a server: scheme, host, port, and the path before `/v0/beads` where a proxy needs
/// one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    secure: bool,
    host: Host<String>,
    port: u16,
    authority: String,
    base: String,
}

/// Why a URL is not the address of a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL at all.
    #[error("not a URL: {0}")]
    NotAUrl(String),
    /// The scheme is neither `http` nor `https`, or the host is missing.
    #[error("the URL must begin with http:// or https:// and name a host")]
    NotHttp,
    /// It holds a user or a password, which would be in every status and log.
    #[error("the URL must not hold a user or a password; name a Secret instead")]
    Credentials,
    /// It has a query or a fragment, so the paths of the API cannot be appended to it.
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

    /// Whether requests use TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Host and port to connect to.
    pub(crate) fn address(&self) -> (String, u16) {
        let host = match &self.host {
            Host::Domain(name) => name.clone(),
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => ip.to_string(),
        };
        (host, self.port)
    }

    /// Host and port in the form of the `Host` header.
    pub fn authority(&self) -> &str {
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
    utf8_percent_encode(text, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_its_port_and_its_path() {
        let endpoint = Endpoint::parse("http://beads.web.svc:8080/proxy/").unwrap();
        assert_eq!(endpoint.target("context"), "/proxy/v0/beads/context");
        assert_eq!(
            (endpoint.authority(), endpoint.address()),
            ("beads.web.svc:8080", ("beads.web.svc".to_owned(), 8080))
        );
        assert_eq!(endpoint.to_string(), "http://beads.web.svc:8080/proxy");
        assert_eq!(Endpoint::parse("https://[::1]/").unwrap().address(), ("::1".to_owned(), 443));
        assert_eq!(Endpoint::parse("https://[::1]:1/").unwrap().authority(), "[::1]:1");
    }

    #[test]
    fn urls_that_leak_credentials_or_cannot_be_reached_are_refused() {
        assert_eq!(Endpoint::parse("http://ada:pw@beads/"), Err(EndpointError::Credentials));
        assert_eq!(Endpoint::parse("file:///etc/passwd"), Err(EndpointError::NotHttp));
        assert_eq!(Endpoint::parse("http://beads/?x=1"), Err(EndpointError::Suffix));
        assert_eq!(Endpoint::parse("http://beads/#x"), Err(EndpointError::Suffix));
        assert!(matches!(Endpoint::parse("beads"), Err(EndpointError::NotAUrl(_))));
    }

    #[test]
    fn an_encoded_segment_cannot_become_another_path() {
        assert_eq!(encoded("gt-1:close?x=é/.."), "gt-1%3Aclose%3Fx%3D%C3%A9%2F..");
    }
}

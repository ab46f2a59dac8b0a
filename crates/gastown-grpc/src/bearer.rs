//! What every request carries: the token.

use std::path::{Path, PathBuf};

use tonic::service::Interceptor;
use tonic::{Request, Status};

/// Adds a projected service-account token to each request. The token is read for each request, because
/// the kubelet rotates it.
#[derive(Clone, Debug)]
pub struct Bearer {
    token_file: PathBuf,
}

impl Bearer {
    /// The token is in `token_file`, or in the file `token` if that is a folder.
    pub fn new(token_file: &Path) -> Self {
        Self { token_file: token_file.to_owned() }
    }

    fn token(&self) -> Result<String, Status> {
        let file = if self.token_file.is_dir() {
            self.token_file.join("token")
        } else {
            self.token_file.clone()
        };
        std::fs::read_to_string(&file).map_err(|error| {
            Status::unavailable(format!("reading the token {}: {error}", file.display()))
        })
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = format!("Bearer {}", self.token()?.trim())
            .parse()
            .map_err(|_| Status::internal("the token cannot be a header's value"))?;
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(request: &Request<()>, name: &str) -> Option<String> {
        request.metadata().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned)
    }

    #[test]
    fn a_request_carries_the_token_as_it_is_now() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let mut bearer = Bearer::new(folder.path());
        let absent = bearer.call(Request::new(())).unwrap_err();
        assert_eq!(absent.code(), tonic::Code::Unavailable, "the kubelet may write it later");
        std::fs::write(&file, "old").unwrap();
        let request = bearer.call(Request::new(())).unwrap();
        assert_eq!(header(&request, "authorization").as_deref(), Some("Bearer old"));
        std::fs::write(&file, "new\n").unwrap();
        let request = bearer.call(Request::new(())).unwrap();
        assert_eq!(header(&request, "authorization").as_deref(), Some("Bearer new"));
    }
}

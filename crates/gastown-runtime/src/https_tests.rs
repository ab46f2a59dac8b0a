use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;

/// Writes a new certificate for `localhost` into the folder; returns what a client must trust.
fn certify(folder: &Path) -> CertificateDer<'static> {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("tls.crt"), pair.cert.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), pair.signing_key.serialize_pem()).unwrap();
    pair.cert.der().clone()
}

/// The response to `GET /`.
async fn get(address: SocketAddr, trusted: CertificateDer<'static>) -> io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart_and_a_broken_one_is_not() {
    // As the program does; another test may have done it before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let first = certify(folder.path());
    let drain = CancellationToken::new();
    let tls = Tls::load(folder.path(), drain.clone()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", axum::routing::get(|| async { "hello" }));
    let server = tokio::spawn({
        let (tls, drain) = (tls.clone(), drain.clone());
        async move { serve(listener, &tls, router, drain).await }
    });
    assert!(get(address, first.clone()).await.unwrap().ends_with("hello"));

    let second = certify(folder.path());
    tls.reload();
    assert!(get(address, second.clone()).await.unwrap().ends_with("hello"));
    assert!(get(address, first).await.is_err());

    std::fs::write(folder.path().join("tls.key"), "not a key").unwrap();
    tls.reload();
    assert!(
        get(address, second).await.unwrap().ends_with("hello"),
        "the last good certificate stays"
    );

    drain.cancel();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_error_names_the_missing_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let error = Tls::load(folder.path(), CancellationToken::new()).unwrap_err();
    assert!(error.to_string().ends_with("tls.crt"), "{error}");
}

//! Clients and sessions for a running server.

use gastown_beads_http::{Client, Endpoint, Options, Session, Token};
use gastown_fakes::bd_serve::{PROJECT, Server, TOKEN};

/// A client with the server's token.
pub fn client(server: &Server, options: Options) -> Client {
    let token = Token::parse(TOKEN.as_bytes()).unwrap();
    Client::new(Endpoint::parse(&server.url()).unwrap(), Some(token), options).unwrap()
}

/// A session with the server's project.
pub async fn session(server: &Server) -> Session {
    session_with(server, Options::default()).await
}

/// A session of a client with these options.
pub async fn session_with(server: &Server, options: Options) -> Session {
    client(server, options).connect(Some(PROJECT)).await.unwrap()
}

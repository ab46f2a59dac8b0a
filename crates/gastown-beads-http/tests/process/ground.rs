//! From a running server to a session with it.

use gastown_beads_http::{Client, Endpoint, Options, Session, Token};
use gastown_fakes::bd_serve::{PROJECT, Server, TOKEN};

pub fn client(server: &Server, options: Options) -> Client {
    let token = Token::parse(TOKEN.as_bytes()).unwrap();
    Client::new(Endpoint::parse(&server.url()).unwrap(), Some(token), options).unwrap()
}

pub async fn session(server: &Server) -> Session {
    session_with(server, Options::default()).await
}

pub async fn session_with(server: &Server, options: Options) -> Session {
    client(server, options).connect(Some(PROJECT)).await.unwrap()
}

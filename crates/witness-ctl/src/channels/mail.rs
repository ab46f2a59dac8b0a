//! E-mail by SMTP, text only. Nothing in a notification becomes a header or another recipient.

use std::time::Duration;

use gastown_api::{EmailChannel, MailTls};
use gastown_core::escalation::Outcome;
use gastown_types::text;
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Mailboxes, header};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};

use crate::channels::notification::Notification;

const DEADLINE: Duration = Duration::from_secs(10);
/// The longest error that is kept of a mail server, in characters.
const MAX_ERROR: usize = 512;

pub(super) async fn send(
    to: &EmailChannel,
    login: Option<(String, String)>,
    notification: &Notification,
) -> Outcome {
    let failed = |why: String| Outcome::Failed { why, after: None };
    let message = match message(to, notification) {
        Ok(message) => message,
        Err(why) => return failed(why),
    };
    let transport = match transport(to, login) {
        Ok(transport) => transport,
        Err(error) => return failed(format!("TLS to the mail server cannot be prepared: {error}")),
    };
    match tokio::time::timeout(DEADLINE, transport.send(message)).await {
        Ok(Ok(_)) => Outcome::Sent,
        Ok(Err(error)) => {
            failed(text::line(&format!("the mail server refused the mail: {error}"), MAX_ERROR))
        }
        Err(_) => failed(format!("the mail server did not accept the mail within {DEADLINE:?}")),
    }
}

fn transport(
    to: &EmailChannel,
    login: Option<(String, String)>,
) -> Result<AsyncSmtpTransport<Tokio1Executor>, lettre::transport::smtp::Error> {
    let parameters = || TlsParameters::new(to.host.clone());
    let (tls, default_port) = match to.tls {
        MailTls::TLS => (Tls::Wrapper(parameters()?), 465),
        // What a later version knows beside these is not sent in the clear.
        MailTls::StartTLS | MailTls::Unknown => (Tls::Required(parameters()?), 587),
        MailTls::None => (Tls::None, 25),
    };
    let port = to.port.and_then(|p| u16::try_from(p).ok()).unwrap_or(default_port);
    let builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&to.host)
        .port(port)
        .tls(tls)
        .timeout(Some(DEADLINE));
    Ok(match login {
        Some((user, password)) => builder.credentials(Credentials::new(user, password)).build(),
        None => builder.build(),
    })
}

fn message(to: &EmailChannel, notification: &Notification) -> Result<Message, String> {
    let mailbox = |text: &str| {
        text.parse::<Mailbox>().map_err(|e| format!("{text} is not a mail address: {e}"))
    };
    let mut all = Mailboxes::new();
    for address in &to.to {
        all.push(mailbox(address)?);
    }
    Message::builder()
        .from(mailbox(&to.from)?)
        .mailbox(header::To::from(all))
        .subject(notification.headline())
        .message_id(Some(format!("<{}@gastown.io>", notification.id())))
        .header(ContentType::TEXT_PLAIN)
        .body(notification.text())
        .map_err(|e| format!("the mail cannot be made: {e}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::TcpListener;

    use super::*;
    use crate::channels::notification::notification;

    /// A mail server that accepts one mail; returns the lines that the client sent.
    async fn server(refuse: bool) -> (u16, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            let (mut received, mut data) = (Vec::new(), false);
            write.write_all(b"220 mail.test ESMTP\r\n").await.unwrap();
            while let Ok(Some(line)) = lines.next_line().await {
                received.push(line.clone());
                let answer: &[u8] = match line.split(' ').next().unwrap_or_default() {
                    _ if data && line == "." => {
                        data = false;
                        b"250 accepted\r\n"
                    }
                    _ if data => continue,
                    "EHLO" => b"250-mail.test\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n",
                    "AUTH" => b"235 welcome\r\n",
                    "RCPT" if refuse => b"550 no such mailbox\r\n",
                    "DATA" => {
                        data = true;
                        b"354 go on\r\n"
                    }
                    "QUIT" => {
                        let _ = write.write_all(b"221 bye\r\n").await;
                        break;
                    }
                    _ => b"250 ok\r\n",
                };
                if write.write_all(answer).await.is_err() {
                    break;
                }
            }
            received
        });
        (port, task)
    }

    fn channel(port: u16) -> EmailChannel {
        EmailChannel {
            host: "127.0.0.1".into(),
            port: Some(i32::from(port)),
            tls: MailTls::None,
            from: "Gas Town <gastown@example.com>".into(),
            to: vec!["oncall@example.com".into(), "Ada <ada@example.com>".into()],
            credentials_secret_ref: None,
        }
    }

    #[tokio::test]
    async fn a_mail_goes_to_its_recipients_and_its_text_adds_none() {
        let (port, server) = server(false).await;
        let sent =
            send(&channel(port), Some(("gastown".into(), "secret".into())), &notification()).await;
        assert_eq!(sent, Outcome::Sent);
        let received = server.await.unwrap();
        let recipients: Vec<_> = received
            .iter()
            .filter_map(|l| l.strip_prefix("RCPT TO:"))
            .map(|l| l.split('>').next().unwrap())
            .collect();
        assert_eq!(recipients, ["<oncall@example.com", "<ada@example.com"]);
        assert!(received.iter().any(|l| l.starts_with("AUTH PLAIN ")));
        let headers: Vec<_> = received.iter().take_while(|l| !l.is_empty()).collect();
        assert!(headers.iter().any(|l| l.starts_with("Subject: [high] web: Toast")), "{headers:?}");
        assert!(headers.iter().all(|l| !l.starts_with("Bcc")), "{headers:?}");
        assert!(headers.iter().any(|l| *l == "Message-ID: <uid-1-high@gastown.io>"), "{headers:?}");
    }

    #[tokio::test]
    async fn a_refusal_has_the_server_s_text() {
        let (port, _server) = server(true).await;
        let Outcome::Failed { why, .. } = send(&channel(port), None, &notification()).await else {
            panic!("accepted")
        };
        assert!(why.contains("no such mailbox"), "{why}");
    }

    #[tokio::test]
    async fn a_server_without_the_configured_tls_gets_nothing() {
        let (port, server) = server(false).await;
        let to = EmailChannel { tls: MailTls::StartTLS, ..channel(port) };
        let login = Some(("gastown".to_owned(), "secret".to_owned()));
        assert!(matches!(send(&to, login, &notification()).await, Outcome::Failed { .. }));
        let received = server.await.unwrap();
        assert!(
            received
                .iter()
                .all(|l| !l.starts_with("AUTH") && !l.starts_with("MAIL") && !l.contains("Toast")),
            "{received:?}"
        );
    }

    #[tokio::test]
    async fn an_invalid_address_is_named() {
        let to = EmailChannel { to: vec!["nobody\r\nRCPT TO:<x@y.z>".into()], ..channel(9) };
        let Outcome::Failed { why, .. } = send(&to, None, &notification()).await else {
            panic!("accepted")
        };
        assert!(why.contains("not a mail address"), "{why}");
    }
}

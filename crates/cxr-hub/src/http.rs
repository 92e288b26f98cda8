//! One request and its answer, in pieces.
//!
//! Each exchange runs on a thread of its own, so that a stop flag is heard at once, even while a
//! server stays silent: the thread is then left alone, and ends at the connection's next time limit.

use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use hf_hub::Cache;
use hf_hub::api::sync::{Api, ApiBuilder};
use ureq::RequestBuilder;
use ureq::config::RedirectAuthHeaders;
use ureq::http::HeaderMap;

use crate::repository::encoded;
use crate::{HubError, HubFile, Options, Repository, Token};

/// How an attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another attempt may succeed, after a pause that the server may have named.
    Later {
        reason: String,
        after: Option<Duration>,
    },
    /// Another attempt, asked differently, may succeed at once.
    Again { reason: String },
    /// Another attempt would not help.
    Fatal(HubError),
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Fatal(error)
    }
}

type Call = Box<dyn FnOnce() -> Result<ureq::http::Response<ureq::Body>, ureq::Error> + Send>;

/// A request that can be sent.
pub(crate) struct Request {
    url: String,
    call: Call,
}

impl Request {
    /// The address that is asked.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

/// Whose address is asked: only the hub's gets the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host {
    Hub,
    Other,
}

/// An HTTP client that follows redirects and honours the environment's proxy.
pub(crate) struct Client {
    agent: ureq::Agent,
    /// For the hub's addresses and listings.
    api: Api,
    authorization: Option<String>,
    patience: Duration,
    offline: bool,
}

impl Client {
    pub(crate) fn new(options: &Options) -> Result<Self, HubError> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("cxr-hub/", env!("CARGO_PKG_VERSION")))
            // Lengths and ranges are those of the file, not of a compressed form of it.
            .accept_encoding("identity")
            // A renamed repository redirects within the hub; its storage is another host.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(options.patience))
            .timeout_recv_response(Some(options.patience))
            .timeout_per_read(Some(options.patience))
            .build();
        let token = options.token.as_ref().map(Token::as_str);
        // Left to itself `hf-hub` looks for a token beside its cache; no path has a zero byte.
        let nowhere = Cache::new(PathBuf::from("\0/hub"));
        let api = ApiBuilder::from_cache(nowhere)
            .with_endpoint(options.endpoint.as_str().to_owned())
            .with_token(token.map(str::to_owned))
            .with_user_agent("cxr-hub", env!("CARGO_PKG_VERSION"))
            .with_progress(false)
            .build()
            .map_err(|error| HubError::Request {
                url: options.endpoint.to_string(),
                source: Box::new(error),
            })?;
        Ok(Self {
            agent: config.new_agent(),
            api,
            authorization: token.map(|token| format!("Bearer {token}")),
            patience: options.patience,
            offline: options.offline,
        })
    }

    /// The address of a file of the hub.
    pub(crate) fn file_url(&self, file: &HubFile) -> String {
        let repository = self.api.repo(file.repository().for_addresses());
        repository.url(&encoded(file.path()))
    }

    /// Asks the hub for the listing of a repository.
    pub(crate) fn listing(&self, repository: &Repository) -> Request {
        let repository = self.api.repo(repository.for_addresses());
        let call = repository.info_request();
        let url = call.uri_ref().map(ToString::to_string).unwrap_or_default();
        let call = call
            .query("blobs", "true")
            .config()
            .http_status_as_error(false)
            .timeout_connect(Some(self.patience))
            .timeout_recv_response(Some(self.patience))
            .timeout_per_read(Some(self.patience))
            .build();
        Request {
            url,
            call: Box::new(|| call.call()),
        }
    }

    /// Asks for bytes.
    pub(crate) fn get(&self, host: Host, url: &str, headers: &[(&str, String)]) -> Request {
        let call = self.with_headers(self.agent.get(url), host, headers);
        Request {
            url: url.to_owned(),
            call: Box::new(|| call.call()),
        }
    }

    /// Sends bytes by POST.
    pub(crate) fn post(
        &self,
        host: Host,
        url: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
    ) -> Request {
        let call = self.with_headers(self.agent.post(url), host, headers);
        // A hub looks at every file of a commit before it answers.
        let call = call
            .config()
            .timeout_recv_response(Some(self.patience.saturating_mul(10)))
            .build();
        Request {
            url: url.to_owned(),
            call: Box::new(move || call.send(&body)),
        }
    }

    /// Sends bytes, or a file from its position to its end, by PUT.
    pub(crate) fn put(
        &self,
        url: &str,
        headers: &[(&str, String)],
        body: impl ureq::AsSendBody + Send + 'static,
    ) -> Request {
        let call = self.with_headers(self.agent.put(url), Host::Other, headers);
        Request {
            url: url.to_owned(),
            call: Box::new(move || call.send(body)),
        }
    }

    fn with_headers<B>(
        &self,
        mut call: RequestBuilder<B>,
        host: Host,
        headers: &[(&str, String)],
    ) -> RequestBuilder<B> {
        if let (Host::Hub, Some(authorization)) = (host, &self.authorization) {
            call = call.header("authorization", authorization);
        }
        for (name, value) in headers {
            call = call.header(*name, value);
        }
        call
    }

    /// Sends the request and waits for the head of the answer.
    pub(crate) fn send(&self, request: Request, stop: &AtomicBool) -> Result<Response, Failure> {
        let Request { url, call } = request;
        if self.offline {
            return Err(HubError::Offline { url }.into());
        }
        // A few pieces of read-ahead: the network fills them while the last one is hashed.
        let (sender, receiver) = sync_channel(4);
        std::thread::Builder::new()
            .name("cxr-hub".into())
            .spawn(move || exchange(call, &sender))
            .map_err(|error| later(format!("cannot start a thread: {error}")))?;
        match wait(&receiver, stop)? {
            Message::Head(status, headers) => Ok(Response {
                status,
                headers: *headers,
                body: receiver,
            }),
            Message::NoHead(error) => Err(classify(&url, *error)),
            Message::Piece(_) | Message::BodyFailed(_) | Message::End => {
                Err(later("the answer has no head".into()))
            }
        }
    }
}

enum Message {
    Head(u16, Box<HeaderMap>),
    NoHead(Box<ureq::Error>),
    Piece(Vec<u8>),
    BodyFailed(std::io::Error),
    End,
}

const PIECE: usize = 256 << 10;

/// Runs on the exchange's thread. A send that fails means that nobody waits any more.
fn exchange(call: Call, sender: &SyncSender<Message>) {
    let response = match call() {
        Ok(response) => response,
        Err(error) => {
            let _ = sender.send(Message::NoHead(Box::new(error)));
            return;
        }
    };
    let (head, body) = response.into_parts();
    let head = Message::Head(head.status.as_u16(), Box::new(head.headers));
    if sender.send(head).is_err() {
        return;
    }
    let mut reader = body.into_reader();
    loop {
        let mut piece = vec![0; PIECE];
        let message = match reader.read(&mut piece) {
            Ok(0) => Message::End,
            Ok(length) => {
                piece.truncate(length);
                Message::Piece(piece)
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => Message::BodyFailed(error),
        };
        let goes_on = matches!(message, Message::Piece(_));
        if sender.send(message).is_err() || !goes_on {
            return;
        }
    }
}

fn wait(receiver: &Receiver<Message>, stop: &AtomicBool) -> Result<Message, Failure> {
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(HubError::Interrupted.into());
        }
        match receiver.recv_timeout(Duration::from_millis(50)) {
            Ok(message) => return Ok(message),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(later("the exchange ended unexpectedly".into()));
            }
        }
    }
}

fn later(reason: String) -> Failure {
    Failure::Later {
        reason,
        after: None,
    }
}

/// Permanent failures are kept apart from those that may pass.
fn classify(url: &str, error: ureq::Error) -> Failure {
    match error {
        ureq::Error::Io(_)
        | ureq::Error::Timeout(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Protocol(_) => later(error.to_string()),
        _ => Failure::Fatal(HubError::Request {
            url: url.to_owned(),
            source: Box::new(error),
        }),
    }
}

/// The head of an answer, and its body as it arrives.
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: HeaderMap,
    body: Receiver<Message>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn content_length(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }

    /// The next bytes of the body, or `None` at its end.
    pub(crate) fn next_piece(&self, stop: &AtomicBool) -> Result<Option<Vec<u8>>, Failure> {
        match wait(&self.body, stop)? {
            Message::Piece(piece) => Ok(Some(piece)),
            Message::End => Ok(None),
            Message::BodyFailed(error) => Err(later(format!("the connection was lost: {error}"))),
            Message::Head(..) | Message::NoHead(_) => Err(later("the answer has two heads".into())),
        }
    }

    /// The whole body, if it is not longer than `limit`.
    pub(crate) fn bytes(&self, limit: usize, stop: &AtomicBool) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.next_piece(stop)? {
            if bytes.len() + piece.len() > limit {
                return Err(later(format!("the answer is longer than {limit} bytes")));
            }
            bytes.extend(piece);
        }
        Ok(bytes)
    }

    /// What an answer means that is not the wanted one.
    pub(crate) fn failure(&self, url: &str) -> Failure {
        match self.status {
            408 | 425 | 429 | 500 | 502 | 503 | 504 => Failure::Later {
                reason: format!("status {}", self.status),
                after: self
                    .header("retry-after")
                    .and_then(|text| retry_after(text, SystemTime::now())),
            },
            status => Failure::Fatal(HubError::Status {
                url: url.to_owned(),
                status,
                hint: match status {
                    401 | 403 => {
                        "it is not public, or not there; what the hub shows to some only needs \
                         `HF_TOKEN`, or a login with `hf auth login`"
                    }
                    404 | 410 => "it is not there (any more): check the manifest, or the name",
                    409 | 412 => "somebody else changed it in the meantime: try again",
                    _ => "expected success",
                },
            }),
        }
    }
}

/// Seconds, or a date (RFC 9110, 10.2.3); a date that has passed asks for no pause.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RepositoryKind;

    fn addresses(kind: RepositoryKind, revision: &str, path: &str) -> [String; 2] {
        let options = Options {
            endpoint: "https://hub.example/".parse().unwrap(),
            ..Options::default()
        };
        let client = Client::new(&options).unwrap();
        let repository = Repository::new(kind, "a/b.c", revision).unwrap();
        let file = HubFile::new(repository.clone(), path).unwrap();
        [
            client.listing(&repository).url().to_owned(),
            client.file_url(&file),
        ]
    }

    #[test]
    fn addresses_are_the_hubs() {
        assert_eq!(
            addresses(RepositoryKind::Model, "main", "model.safetensors"),
            [
                "https://hub.example/api/models/a/b.c/revision/main",
                "https://hub.example/a/b.c/resolve/main/model.safetensors"
            ]
        );
        assert_eq!(
            addresses(RepositoryKind::Dataset, "refs/pr/1", "x y/é#.zip"),
            [
                "https://hub.example/api/datasets/a/b.c/revision/refs%2Fpr%2F1",
                "https://hub.example/datasets/a/b.c/resolve/refs%2Fpr%2F1/x%20y/%C3%A9%23.zip"
            ]
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        // RFC 9110's own example of a date, 784111777 seconds after 1970.
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let seconds =
            |text, now| retry_after(text, at(now)).map(|duration: Duration| duration.as_secs());
        assert_eq!(seconds("120", 0), Some(120));
        assert_eq!(seconds(date, 784_111_770), Some(7));
        assert_eq!(seconds(date, 784_111_780), Some(0));
        assert_eq!(seconds("soon", 0), None);
        assert_eq!(seconds("-1", 0), None);
    }
}

//! An HTTP server on this machine that misbehaves to order.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
    headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        Some(value)
    }

    /// Where the wanted rest begins.
    pub(crate) fn range(&self) -> Option<usize> {
        let first = self.header("range")?.strip_prefix("bytes=")?;
        Some(first.strip_suffix('-')?.parse().unwrap())
    }
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Send so many bytes of the body, then hang up.
    pub(crate) cut: usize,
    /// Stay silent after `cut` bytes for so long.
    pub(crate) silence: Duration,
    /// Say `Content-Length`; without it the body ends where the connection does.
    pub(crate) with_length: bool,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            cut: usize::MAX,
            silence: Duration::ZERO,
            with_length: true,
        }
    }

    pub(crate) fn ok(body: &[u8]) -> Self {
        Self {
            body: body.to_vec(),
            ..Self::status(200)
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn cut(mut self, cut: usize) -> Self {
        self.cut = cut;
        self
    }

    /// What a good server answers: the whole file, or the rest where that is asked for and the
    /// file is still the one that `If-Range` names.
    pub(crate) fn file(request: &Request, body: &[u8], etag: &str) -> Self {
        let unchanged = request.header("if-range").is_none_or(|known| known == etag);
        let reply = match request.range().filter(|_| unchanged) {
            Some(first) if first >= body.len() => return Self::status(416),
            Some(first) => Self::rest(body, first),
            None => Self::ok(body),
        };
        match etag {
            "" => reply,
            _ => reply.with("etag", etag),
        }
    }

    /// Status 206 with everything from `first`.
    pub(crate) fn rest(body: &[u8], first: usize) -> Self {
        let range = format!("bytes {first}-{}/{}", body.len() - 1, body.len());
        Self {
            body: body[first..].to_vec(),
            ..Self::status(206)
        }
        .with("content-range", range)
    }
}

#[derive(Clone)]
pub(crate) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    sent: Arc<AtomicUsize>,
}

impl Server {
    /// Answers every request by `reply`, which gets it and how many came before it.
    pub(crate) fn start(reply: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            sent: Arc::default(),
        };
        let (shared, reply) = (server.clone(), Arc::new(reply));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (shared, reply) = (shared.clone(), Arc::clone(&reply));
                // A client that hangs up ends its own thread only.
                std::thread::spawn(move || shared.answer(stream?, &*reply));
            }
        });
        server
    }

    fn answer(
        &self,
        mut stream: TcpStream,
        reply: &dyn Fn(&Request, usize) -> Reply,
    ) -> std::io::Result<()> {
        let request = read_request(&stream)?;
        let before = {
            let mut requests = self.requests.lock().unwrap();
            requests.push(request.clone());
            requests.len() - 1
        };
        let reply = reply(&request, before);
        let mut head = format!(
            "HTTP/1.1 {} Whatever\r\nconnection: close\r\n",
            reply.status
        );
        for (name, value) in &reply.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if reply.with_length {
            head += &format!("content-length: {}\r\n", reply.body.len());
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        for piece in reply.body[..reply.cut.min(reply.body.len())].chunks(1000) {
            stream.write_all(piece)?;
            self.sent.fetch_add(piece.len(), Ordering::SeqCst);
        }
        stream.flush()?;
        std::thread::sleep(reply.silence);
        // Hang up politely: a reset could take back what was sent.
        stream.shutdown(std::net::Shutdown::Write)?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        let _ = stream.read(&mut [0; 1]);
        Ok(())
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Bytes of bodies sent so far.
    pub(crate) fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }
}

fn read_request(stream: &TcpStream) -> std::io::Result<Request> {
    let mut reader = BufReader::new(stream);
    let mut next = || {
        let mut line = String::new();
        reader.read_line(&mut line).map(|_| line)
    };
    let first = next()?;
    let mut headers = Vec::new();
    loop {
        let line = next()?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut words = first.split(' ').map(str::to_owned);
    let mut request = Request {
        method: words.next().unwrap_or_default(),
        path: words.next().unwrap_or_default(),
        body: Vec::new(),
        headers,
    };
    let length = request.header("content-length").unwrap_or("0");
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body)?;
    request.body = body;
    Ok(request)
}

/// A file's worth of bytes in which any shift or repetition shows.
pub(crate) fn content(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

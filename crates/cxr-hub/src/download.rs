//! From an address to a verified part: ranges, attempts, pauses.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::http::{Client, Failure, Host, Request, Response};
use crate::part::{Expected, Origin, Part};
use crate::{Event, FileName, HubError, Observer, Options};

/// What every step of a call needs.
pub(crate) struct Session<'a> {
    pub(crate) client: Client,
    pub(crate) options: &'a Options,
    pub(crate) observer: &'a mut dyn Observer,
    pub(crate) stop: &'a AtomicBool,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        options: &'a Options,
        observer: &'a mut dyn Observer,
        stop: &'a AtomicBool,
    ) -> Result<Self, HubError> {
        Ok(Self {
            client: Client::new(options)?,
            options,
            observer,
            stop,
        })
    }

    /// Asks until there is an answer that `accept` takes, or no attempt is left; `name` is only
    /// named in events.
    pub(crate) fn ask<T>(
        &mut self,
        name: &str,
        request: impl Fn(&Client) -> Result<Request, HubError>,
        accept: impl Fn(&Response, &str, &AtomicBool) -> Result<T, Failure>,
    ) -> Result<T, HubError> {
        let mut attempts = Attempts::default();
        loop {
            let request = request(&self.client)?;
            let url = request.url().to_owned();
            let answer = self.client.send(request, self.stop);
            match answer.and_then(|response| accept(&response, &url, self.stop)) {
                Ok(found) => return Ok(found),
                Err(failure) => attempts.after(failure, self, name, &url)?,
            }
        }
    }

    pub(crate) fn check_stop(&self) -> Result<(), HubError> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(HubError::Interrupted),
            false => Ok(()),
        }
    }

    fn pause(&self, duration: Duration) -> Result<(), HubError> {
        let begin = Instant::now();
        loop {
            self.check_stop()?;
            let left = duration.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

/// Counts the attempts in a row that brought nothing new.
#[derive(Default)]
pub(crate) struct Attempts {
    failures: u32,
}

impl Attempts {
    /// Pauses before the next attempt, or says that there is none.
    pub(crate) fn after(
        &mut self,
        failure: Failure,
        session: &mut Session<'_>,
        name: &str,
        url: &str,
    ) -> Result<(), HubError> {
        self.failures += 1;
        let options = session.options;
        let (reason, pause) = match failure {
            Failure::Fatal(error) => return Err(error),
            Failure::Again { reason } => (reason, Some(Duration::ZERO)),
            Failure::Later {
                reason,
                after: None,
            } => (reason, Some(options.pause(self.failures))),
            Failure::Later {
                reason,
                after: Some(pause),
            } if pause > options.longest_retry_after => {
                let seconds = pause.as_secs();
                let reason = format!("{reason}, and the server asks for a pause of {seconds} s");
                (reason, None)
            }
            Failure::Later { reason, after } => (reason, after),
        };
        let may_follow = self.failures < options.attempts;
        let Some(pause) = pause.filter(|_| may_follow) else {
            return Err(HubError::GaveUp {
                url: url.to_owned(),
                attempts: self.failures,
                reason,
            });
        };
        session.observer.on(&Event::Retrying {
            file: name,
            reason: &reason,
            pause,
        });
        session.pause(pause)
    }

    fn made_progress(&mut self) {
        self.failures = 0;
    }
}

/// One file, one address, one part.
pub(crate) struct Download<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) name: &'a FileName,
    pub(crate) expected: &'a Expected,
    pub(crate) url: &'a str,
    host: Host,
    pub(crate) part: Part,
    /// Bytes that came over the network.
    pub(crate) transferred: u64,
    /// Whether the part has bytes of more than one answer.
    patched: bool,
}

impl<'a> Download<'a> {
    /// Takes up the part that an earlier call left, or begins one.
    pub(crate) fn open(
        session: &mut Session<'_>,
        folder: &'a Path,
        name: &'a FileName,
        expected: &'a Expected,
        (host, url): (Host, &'a str),
    ) -> Result<Self, HubError> {
        let mut part = Part::open(folder, name, expected)?;
        part.hash_on_disk(|position, bytes| {
            session.observer.on(&Event::Hashing {
                file: name.as_str(),
                position,
                bytes,
            });
            session.check_stop()
        })?;
        Ok(Self {
            folder,
            name,
            expected,
            url,
            host,
            patched: part.length() > 0,
            part,
            transferred: 0,
        })
    }

    /// Fetches and verifies. Bytes put together from several answers that do not give the right
    /// digest are fetched once more in one piece: the file may have changed in between.
    pub(crate) fn run(mut self, session: &mut Session<'_>) -> Result<Self, HubError> {
        let mut may_start_over = true;
        loop {
            self.transfer(session)?;
            let found = self.part.digest();
            if found == self.expected.digest {
                return Ok(self);
            }
            if self.patched && may_start_over {
                may_start_over = false;
                self.start_over(session, "its digest is wrong")?;
                continue;
            }
            self.part.delete()?;
            return Err(HubError::WrongDigest {
                url: self.url.to_owned(),
                expected: self.expected.digest,
                found,
            });
        }
    }

    /// Attempt after attempt, until all bytes are here.
    fn transfer(&mut self, session: &mut Session<'_>) -> Result<(), HubError> {
        let mut attempts = Attempts::default();
        let mut furthest = self.part.length();
        while let Err(failure) = self.attempt(session) {
            // Only what was never reached before counts: a server without ranges that always
            // breaks off at the same place makes no progress.
            if self.part.length() > furthest {
                furthest = self.part.length();
                attempts.made_progress();
            }
            attempts.after(failure, session, self.name.as_str(), self.url)?;
        }
        Ok(())
    }

    fn attempt(&mut self, session: &mut Session<'_>) -> Result<(), Failure> {
        session.check_stop()?;
        let told = self.part.origin().and_then(|origin| origin.bytes);
        if let Some(bytes) = self.expected.bytes.or(told) {
            if bytes == self.part.length() {
                return Ok(());
            }
            self.check_space(session.options, bytes)?;
        }
        let response = session
            .client
            .send(self.request(&session.client), session.stop)?;
        let bytes = self.accept(&response, session)?;
        if let Some(bytes) = bytes {
            self.check_space(session.options, bytes)?;
        }
        session.observer.on(&Event::Started {
            file: self.name.as_str(),
            url: self.url,
            from: self.part.length(),
            bytes,
        });
        self.receive(&response, bytes, session)
    }

    /// Asks for what is missing, provided that the file is still the same.
    fn request(&self, client: &Client) -> Request {
        let mut headers = Vec::new();
        if self.part.length() > 0 {
            headers.push(("range", format!("bytes={}-", self.part.length())));
            let origin = self.part.origin().filter(|origin| origin.url == self.url);
            if let Some(validator) = origin.and_then(Origin::validator) {
                headers.push(("if-range", validator.to_owned()));
            }
        }
        client.get(self.host, self.url, &headers)
    }

    /// Decides by the head of an answer whether its body continues the part, starts it over or is
    /// of no use, and gives the file's length, where anybody knows it.
    fn accept(
        &mut self,
        response: &Response,
        session: &mut Session<'_>,
    ) -> Result<Option<u64>, Failure> {
        let at = self.part.length();
        let range = match response.status {
            200 => None,
            206 if at > 0 => Some(
                response
                    .header("content-range")
                    .and_then(ContentRange::parse),
            ),
            416 if at > 0 => {
                self.start_over(session, "the server has no such range")?;
                return Err(again("the server has no such range"));
            }
            _ => return Err(response.failure(self.url)),
        };
        let served = match &range {
            None => response.content_length(),
            Some(range) => range.as_ref().and_then(|range| range.bytes),
        };
        // Before anything is dropped: a page of a hotel's network has the wrong size too.
        if let (Some(expected), Some(found)) = (self.expected.bytes, served)
            && expected != found
        {
            return Err(Failure::Fatal(HubError::WrongSize {
                url: self.url.to_owned(),
                expected,
                found,
            }));
        }
        let owned = |name| response.header(name).map(str::to_owned);
        let origin = Origin {
            digest: self.expected.digest,
            url: self.url.to_owned(),
            bytes: served.or(self.expected.bytes),
            etag: owned("etag"),
            last_modified: owned("last-modified"),
        };
        match range {
            None if at > 0 => {
                let same_file = self.part.origin().is_some_and(|old| *old == origin);
                let reason = match same_file {
                    true => "the server sends whole files only",
                    false => "the server's file changed",
                };
                self.start_over(session, reason)?;
            }
            None => {}
            Some(range) => {
                let continues = range.is_some_and(|range| range.first == at);
                if !continues || self.part.origin().is_some_and(|old| changed(old, &origin)) {
                    let reason = match continues {
                        true => "the server's file changed",
                        false => "the server sent another range",
                    };
                    self.start_over(session, reason)?;
                    return Err(again(reason));
                }
                self.patched = true;
            }
        }
        let bytes = origin.bytes;
        self.part.set_origin(origin)?;
        Ok(bytes)
    }

    fn receive(
        &mut self,
        response: &Response,
        bytes: Option<u64>,
        session: &mut Session<'_>,
    ) -> Result<(), Failure> {
        while let Some(piece) = response.next_piece(session.stop)? {
            let reached = self.part.length() + piece.len() as u64;
            if let Some(expected) = bytes
                && reached > expected
            {
                self.part.clear(self.expected)?;
                return Err(Failure::Fatal(HubError::WrongSize {
                    url: self.url.to_owned(),
                    expected,
                    found: reached,
                }));
            }
            self.part.append(&piece)?;
            self.transferred += piece.len() as u64;
            session.observer.on(&Event::Received {
                file: self.name.as_str(),
                position: self.part.length(),
                bytes,
            });
        }
        match bytes {
            Some(bytes) if self.part.length() < bytes => Err(Failure::Later {
                reason: format!(
                    "the body ended after {} of {bytes} bytes",
                    self.part.length()
                ),
                after: None,
            }),
            _ => Ok(()),
        }
    }

    fn start_over(&mut self, session: &mut Session<'_>, reason: &str) -> Result<(), HubError> {
        session.observer.on(&Event::StartedOver {
            file: self.name.as_str(),
            reason,
        });
        self.patched = false;
        self.part.clear(self.expected)
    }

    fn check_space(&self, options: &Options, bytes: u64) -> Result<(), HubError> {
        let missing = bytes.saturating_sub(self.part.length());
        check_space(self.folder, missing, options.reserve)
    }
}

/// Whether the volume of `folder` has room for `bytes` more and `reserve` beside them.
///
/// # Errors
/// [`HubError::DiskSpace`] when it has not; [`HubError::Io`] when it cannot be asked.
pub fn check_space(folder: &Path, bytes: u64, reserve: u64) -> Result<(), HubError> {
    let available =
        fs4::available_space(folder).map_err(HubError::io("ask for free space in", folder))?;
    let needed = bytes.saturating_add(reserve);
    if needed > available {
        return Err(HubError::DiskSpace {
            folder: folder.to_owned(),
            needed,
            available,
        });
    }
    Ok(())
}

fn again(reason: &str) -> Failure {
    Failure::Again {
        reason: reason.to_owned(),
    }
}

/// Whether a server's file is not the one whose bytes we have. Another server's marks say nothing.
fn changed(old: &Origin, new: &Origin) -> bool {
    let differ = |old: &Option<String>, new: &Option<String>| matches!((old, new), (Some(old), Some(new)) if old != new);
    let lengths_differ = matches!((old.bytes, new.bytes), (Some(old), Some(new)) if old != new);
    lengths_differ
        || old.url == new.url
            && (differ(&old.etag, &new.etag) || differ(&old.last_modified, &new.last_modified))
}

/// `Content-Range: bytes FIRST-LAST/BYTES` (RFC 9110, 14.4).
#[derive(Debug, PartialEq, Eq)]
struct ContentRange {
    first: u64,
    bytes: Option<u64>,
}

impl ContentRange {
    fn parse(text: &str) -> Option<Self> {
        let (range, bytes) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        let bytes = match bytes.trim() {
            "*" => None,
            bytes => Some(bytes.parse().ok()?),
        };
        // The rest in one piece: nothing else was asked for.
        let fits = first <= last && bytes.is_none_or(|bytes| last.checked_add(1) == Some(bytes));
        fits.then_some(Self { first, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_range_is_the_rest_of_the_file() {
        let parse = |text| ContentRange::parse(text).map(|range| (range.first, range.bytes));
        assert_eq!(parse("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse("bytes 5-9/*"), Some((5, None)));
        for text in [
            "bytes 5-8/10",
            "bytes 9-5/10",
            "bytes */10",
            "bytes 5-18446744073709551615/10",
            "bytes 5-9",
            "items 5-9/10",
            "",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

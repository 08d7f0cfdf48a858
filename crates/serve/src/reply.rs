//! Answers.

use crate::events::Events;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// In this time an answer has to be taken, however slowly.
const TAKEN_IN: Duration = Duration::from_secs(30);

/// What every answer says: nothing from elsewhere, in no frame, kept nowhere, and of no use to another site.
const ALWAYS: &str = "Content-Security-Policy: default-src 'none'; style-src 'self'; script-src 'self'; \
connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'\r\n\
X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\n\
Cross-Origin-Resource-Policy: same-origin\r\nCross-Origin-Opener-Policy: same-origin\r\n\
Cache-Control: no-store\r\nConnection: close\r\n";

/// Tells events for as long as it runs and the other side listens.
pub type Telling = Box<dyn FnOnce(&mut Events) -> io::Result<()> + Send>;

/// What a handler gives back.
pub enum Reply {
    /// A whole answer.
    Whole(Response),
    /// Events.
    Stream(Telling),
}

/// A whole answer.
#[derive(Debug)]
pub struct Response {
    status: u16,
    kind: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Response {
    /// An answer of this media type.
    pub fn new(status: u16, kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, kind, headers: Vec::new(), body: body.into() }
    }

    /// A page.
    pub fn html(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::new(status, "text/html; charset=utf-8", body)
    }

    /// Words.
    pub fn text(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    /// The way to another page of this server.
    pub fn see_other(to: &str) -> Self {
        Self::text(303, "").header("Location", to)
    }

    /// The answer with one header more; line breaks in it are taken out.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.replace(['\r', '\n'], " ")));
        self
    }
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        Self::Whole(response)
    }
}

/// A status and a sentence.
pub(crate) fn refusal(status: u16, reason: &str) -> Response {
    Response::text(status, format!("{status} {}: {reason}.\n", phrase(status)))
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        303 => "See Other",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Error",
    }
}

/// Writes an answer; `head` leaves the body out.
pub(crate) fn send(stream: &mut TcpStream, response: &Response, head: bool) -> io::Result<()> {
    let own: String = response.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let start = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{ALWAYS}{own}\r\n",
        response.status,
        phrase(response.status),
        response.kind,
        response.body.len()
    );
    let end = Instant::now() + TAKEN_IN;
    write(stream, start.as_bytes(), end)?;
    if !head {
        write(stream, &response.body, end)?;
    }
    Ok(())
}

/// The head of an event stream.
pub(crate) fn send_stream_head(stream: &mut TcpStream) -> io::Result<()> {
    let start = format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n{ALWAYS}\r\n");
    write(stream, start.as_bytes(), Instant::now() + TAKEN_IN)
}

/// Writes all bytes until `end` at most.
pub(crate) fn write(stream: &mut TcpStream, bytes: &[u8], end: Instant) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        match stream.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => rest = &rest[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Ends a connection so that the other side sees the answer, even where it is still sending.
pub(crate) fn end(stream: &mut TcpStream) {
    use std::io::Read;
    const MOST: usize = 1024 * 1024;
    let wait = Duration::from_millis(500);
    if stream.shutdown(Shutdown::Write).is_err() || stream.set_read_timeout(Some(wait)).is_err() {
        return;
    }
    let (until, mut read, mut piece) = (Instant::now() + 2 * wait, 0, [0u8; 8192]);
    while let Ok(n) = stream.read(&mut piece) {
        read += n;
        if n == 0 || read > MOST || Instant::now() > until {
            break;
        }
    }
}

//! Reading one request from somebody who is not trusted: bounded in bytes and in time.

use crate::url::{self, Fields};
use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Most bytes before the body.
const MOST_HEAD: usize = 16 * 1024;
/// Most lines in the head.
const MOST_HEADERS: usize = 64;
/// Most bytes of a body.
pub const MOST_BODY: usize = 64 * 1024;
/// In this time a request has to be here, body and all.
const IN_TIME: Duration = Duration::from_secs(10);

/// What is asked to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Show something.
    Get,
    /// Show only whether it is there.
    Head,
    /// Do something.
    Post,
}

/// One request.
#[derive(Debug)]
pub struct Request {
    /// What is asked to be done.
    pub method: Method,
    /// The decoded path, from its first slash on.
    pub path: String,
    /// Names and values behind the question mark.
    pub query: Fields,
    /// The body.
    pub body: Vec<u8>,
    /// Names in small letters.
    headers: Vec<(String, String)>,
}

/// Why there is no request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// The other side went away or sent nothing: nobody is there to be answered.
    Gone,
    /// A status and a sentence.
    Refused(u16, String),
}

fn refused<T>(status: u16, reason: impl Into<String>) -> Result<T, Bad> {
    Err(Bad::Refused(status, reason.into()))
}

impl Request {
    /// The value of a header that is there once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }

    /// The first value of that name in the address.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Every value of that name in the address.
    pub fn fields<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.query.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn cookie(&self, name: &str) -> Option<&str> {
        let all = self.headers.iter().filter(|(n, _)| n == "cookie");
        let pairs =
            all.flat_map(|(_, value)| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.into_iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// Reads one request.
    pub(crate) fn read(stream: &mut TcpStream) -> Result<Self, Bad> {
        let end = Instant::now() + IN_TIME;
        let mut bytes = Vec::new();
        let length = loop {
            if let Some(length) = head_length(&bytes) {
                break length;
            }
            if bytes.len() > MOST_HEAD {
                return refused(431, format!("the head of a request may have {MOST_HEAD} bytes"));
            }
            more(stream, &mut bytes, end)?;
        };
        if length > MOST_HEAD {
            return refused(431, format!("the head of a request may have {MOST_HEAD} bytes"));
        }
        let mut body = bytes.split_off(length);
        let mut request = parse(&bytes)?;
        let wanted = request.body_length()?;
        while body.len() < wanted {
            more(stream, &mut body, end)?;
        }
        body.truncate(wanted);
        request.body = body;
        Ok(request)
    }

    fn body_length(&self) -> Result<usize, Bad> {
        if self.headers.iter().any(|(n, _)| n == "transfer-encoding") {
            return refused(411, "a body must come with its length (Content-Length), not in chunks");
        }
        if !self.headers.iter().any(|(n, _)| n == "content-length") {
            return Ok(0);
        }
        let Some(value) = self.header("content-length") else {
            return refused(400, "Content-Length stands there twice");
        };
        match value.parse::<usize>() {
            Ok(n) if n <= MOST_BODY && value.bytes().all(|b| b.is_ascii_digit()) => Ok(n),
            Ok(n) => refused(413, format!("the body has {n} bytes; {MOST_BODY} are the most")),
            Err(_) => refused(400, "Content-Length is no number"),
        }
    }
}

/// Where the head ends: after its first empty line.
fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

/// Waits for more bytes, until `end` at most.
fn more(stream: &mut TcpStream, into: &mut Vec<u8>, end: Instant) -> Result<(), Bad> {
    let left = end.saturating_duration_since(Instant::now());
    let late = |into: &[u8]| match into.is_empty() {
        true => Err(Bad::Gone),
        false => refused(408, format!("the request was not here within {} seconds", IN_TIME.as_secs())),
    };
    if left.is_zero() {
        return late(into);
    }
    stream.set_read_timeout(Some(left)).map_err(|_| Bad::Gone)?;
    let mut piece = [0u8; 8192];
    match stream.read(&mut piece) {
        Ok(0) => Err(Bad::Gone),
        Ok(n) => {
            into.extend_from_slice(&piece[..n]);
            Ok(())
        }
        Err(e) if e.kind() == std::io::ErrorKind::Interrupted => Ok(()),
        Err(e) if [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut].contains(&e.kind()) => {
            late(into)
        }
        Err(_) => Err(Bad::Gone),
    }
}

fn parse(head: &[u8]) -> Result<Request, Bad> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return refused(400, "the head of the request is not whole"),
        Err(httparse::Error::TooManyHeaders) => {
            return refused(431, format!("a request may have {MOST_HEADERS} headers"));
        }
        Err(error) => return refused(400, format!("this is no HTTP/1.1 request: {error}")),
    }
    let method = match parsed.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        Some("POST") => Method::Post,
        _ => return refused(405, "the methods are GET, HEAD and POST"),
    };
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (Some(path), Some(query)) = (url::decode(path, false), url::fields(query)) else {
        return refused(400, "the address holds a broken percent-encoding");
    };
    // Two slashes would name a host where the path is sent back as the place to go to.
    if !path.starts_with('/') || path[1..].starts_with(['/', '\\']) {
        return refused(400, "the address must begin with one slash");
    }
    let text = |value: &[u8]| String::from_utf8(value.into()).ok();
    let pairs = parsed.headers.iter().map(|h| Some((h.name.to_ascii_lowercase(), text(h.value)?)));
    let Some(headers) = pairs.collect::<Option<Vec<_>>>() else {
        return refused(400, "a header is not UTF-8");
    };
    Ok(Request { method, path, query, body: Vec::new(), headers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(head: &str) -> u16 {
        match parse(head.as_bytes()) {
            Err(Bad::Refused(status, _)) => status,
            _ => 200,
        }
    }

    #[test]
    fn a_head_is_path_query_headers_and_cookies() {
        let head = "GET /a%20b?run=x%2Fy&run=z HTTP/1.1\r\nHost: h\r\nCookie: a=1; sibo-7=t\r\n\r\n";
        let request = parse(head.as_bytes()).unwrap();
        assert_eq!((request.path.as_str(), request.field("run")), ("/a b", Some("x/y")));
        assert_eq!(request.fields("run").collect::<Vec<_>>(), ["x/y", "z"]);
        assert_eq!((request.cookie("sibo-7"), request.cookie("b")), (Some("t"), None));
        assert_eq!(request.header("host"), Some("h"));
    }

    #[test]
    fn what_stands_twice_is_not_there() {
        let request = parse(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").unwrap();
        assert_eq!(request.header("host"), None);
        let twice = parse(b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n").unwrap();
        assert!(matches!(twice.body_length(), Err(Bad::Refused(400, _))));
    }

    #[test]
    fn nonsense_has_its_status() {
        assert_eq!(status("DELETE / HTTP/1.1\r\n\r\n"), 405);
        assert_eq!(status("GET /%zz HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(status("GET http://x/ HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(status("GET //x/ HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(status("hello\r\n\r\n"), 400);
        let many: String = (0..70).map(|i| format!("h{i}: 1\r\n")).collect();
        assert_eq!(status(&format!("GET / HTTP/1.1\r\n{many}\r\n")), 431);
        let chunked = parse(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        assert!(matches!(chunked.body_length(), Err(Bad::Refused(411, _))));
    }
}

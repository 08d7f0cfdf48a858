//! The listener: one thread for each connection, a limit to their number, and an end when it is asked for.

use crate::guard::{self, Entry};
use crate::request::{Bad, Method};
use crate::{Events, Reply, Request, ServeError, Token, reply};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Connections at a time; a browser opens six, and an open page holds one or two.
pub const MOST_CONNECTIONS: usize = 64;
/// How often the listener looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);
/// So long an end waits for answers under way.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The wish that a server ends.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on the server ends.
    pub fn ask(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it is to end.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A server that listens on the loopback address.
pub struct Server {
    listener: TcpListener,
    port: u16,
    token: Token,
    stop: Stop,
}

/// A connection that counts as long as it lives.
struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn take(taken: &Arc<AtomicUsize>) -> Option<Self> {
        let before = taken.fetch_add(1, Ordering::SeqCst);
        let seat = Self(taken.clone());
        (before < MOST_CONNECTIONS).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Server {
    /// Listens on this port of 127.0.0.1; on any that is free where it is 0.
    ///
    /// # Errors
    /// The port is taken, or the system refuses.
    pub fn bind(port: u16) -> Result<Self, ServeError> {
        let token = Token::random()?;
        let failed = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::AddrInUse => ServeError::PortTaken { port },
            _ => ServeError::Listen { port, source },
        };
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        Ok(Self { listener, port, token, stop: Stop::default() })
    }

    /// The address to open first; it holds the token.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}/?token={}", self.port, self.token.text())
    }

    /// By which it is ended.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Answers until it is asked to stop. A handler that panics ends its own connection and no other.
    pub fn run(self, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        let handler = Arc::new(handler);
        let taken = Arc::new(AtomicUsize::new(0));
        while !self.stop.asked() {
            let Ok((mut stream, _)) = self.listener.accept() else {
                // Nobody is there, or too many files are open: both pass.
                std::thread::sleep(LOOK);
                continue;
            };
            if stream.set_nonblocking(false).is_err() || stream.set_nodelay(true).is_err() {
                continue;
            }
            let Some(seat) = Seat::take(&taken) else {
                let _ = stream.set_nonblocking(true);
                let _ =
                    reply::send(&mut stream, &reply::refusal(503, "too many connections are open"), false);
                continue;
            };
            let (handler, token, stop, port) =
                (handler.clone(), self.token.clone(), self.stop.clone(), self.port);
            let spawned = std::thread::Builder::new().name("connection".into()).spawn(move || {
                let _seat = seat;
                converse(stream, port, &token, &stop, handler.as_ref());
            });
            // Without a thread the connection is dropped, and the next one may find one.
            drop(spawned);
        }
        let until = Instant::now() + LAST_WORDS;
        while taken.load(Ordering::SeqCst) > 0 && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
    }
}

/// One connection: one request, one answer.
fn converse(
    mut stream: TcpStream,
    port: u16,
    token: &Token,
    stop: &Stop,
    handler: &dyn Fn(&Request) -> Reply,
) {
    let request = match Request::read(&mut stream) {
        Ok(request) => request,
        Err(Bad::Gone) => return,
        Err(Bad::Refused(status, reason)) => {
            if reply::send(&mut stream, &reply::refusal(status, &reason), false).is_ok() {
                reply::end(&mut stream);
            }
            return;
        }
    };
    let answer = match guard::look(&request, port, token) {
        Entry::Answer(response) => Reply::Whole(response),
        Entry::Open => handler(&request),
    };
    // A failure to answer means that the other side is gone.
    match answer {
        Reply::Whole(response) => {
            if reply::send(&mut stream, &response, request.method == Method::Head).is_ok() {
                reply::end(&mut stream);
            }
        }
        Reply::Stream(tell) => {
            if reply::send_stream_head(&mut stream).is_ok() {
                let _ = tell(&mut Events::new(stream, stop.clone()));
            }
        }
    }
}

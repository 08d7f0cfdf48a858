//! Server-sent events: words to a page that is open.

use crate::reply;
use crate::server::Stop;
use std::io::{self, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A listener that takes nothing for so long is gone.
const TAKEN_IN: Duration = Duration::from_secs(10);
/// After so much silence a remark is sent, which finds out whether somebody still listens.
const SILENCE: Duration = Duration::from_secs(15);
/// How often a waiting stream looks whether the server is to end.
const LOOK: Duration = Duration::from_millis(50);

/// The writing end of an event stream.
pub struct Events {
    stream: TcpStream,
    stop: Stop,
    last: Instant,
}

impl Events {
    pub(crate) fn new(stream: TcpStream, stop: Stop) -> Self {
        Self { stream, stop, last: Instant::now() }
    }

    /// Sends one event; `data` may have several lines.
    ///
    /// # Errors
    /// Nobody listens any more, or the server is to end.
    pub fn send(&mut self, name: &str, data: &str) -> io::Result<()> {
        let mut text = format!("event: {name}\n");
        for line in data.split('\n') {
            text.push_str("data: ");
            text.push_str(line.trim_end_matches('\r'));
            text.push('\n');
        }
        text.push('\n');
        self.write(&text)
    }

    /// Waits a while.
    ///
    /// # Errors
    /// Nobody listens any more, or the server is to end.
    pub fn wait(&mut self, time: Duration) -> io::Result<()> {
        let until = Instant::now() + time;
        loop {
            self.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// Fails where nobody listens any more or the server is to end.
    ///
    /// # Errors
    /// As it says.
    pub fn check(&mut self) -> io::Result<()> {
        if self.stop.asked() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if self.hung_up() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if self.last.elapsed() >= SILENCE {
            self.write(": still here\n\n")?;
        }
        Ok(())
    }

    /// A listener has nothing more to say: an end of what it sends is its end.
    fn hung_up(&mut self) -> bool {
        if self.stream.set_nonblocking(true).is_err() {
            return true;
        }
        let mut piece = [0u8; 64];
        let gone = match self.stream.read(&mut piece) {
            Ok(n) => n == 0,
            Err(e) => e.kind() != io::ErrorKind::WouldBlock,
        };
        gone || self.stream.set_nonblocking(false).is_err()
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        if self.stop.asked() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.last = Instant::now();
        reply::write(&mut self.stream, text.as_bytes(), Instant::now() + TAKEN_IN)
    }
}

//! A web server for one person on one machine: pages and event streams on the loopback address, behind a token.
//!
//! What it refuses, before a handler sees it ([`guard`]): another `Host` than its own (a page elsewhere whose name was
//! made to point at this machine), another `Origin`, a request that a browser says comes from another site, and
//! whoever does not hold the token. The token stands in the address that is opened first; from then on it is a cookie
//! that no other site's request carries (`SameSite=Strict`) and no script reads (`HttpOnly`).
//!
//! HTTP/1.1 is read by `httparse`, within limits of size and time (`request`). A connection carries one request and
//! has a thread of its own, so that a slow one keeps nobody waiting; there are at most [`MOST_CONNECTIONS`]. The crate
//! knows nothing of what it serves, and it never prints.

mod events;
pub mod guard;
mod reply;
mod request;
mod server;
pub mod url;

pub use events::Events;
pub use guard::Token;
pub use reply::{Reply, Response, Telling};
pub use request::{MOST_BODY, Method, Request};
pub use server::{MOST_CONNECTIONS, Server, Stop};

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody else listens there.
    #[error(
        "port {port} of 127.0.0.1 is in use by another program; choose another, or 0 for any that is free"
    )]
    PortTaken {
        /// The port that was asked for.
        port: u16,
    },
    /// The system refused.
    #[error("cannot listen on 127.0.0.1, port {port}: {source}")]
    Listen {
        /// The port that was asked for.
        port: u16,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The system gave no random numbers.
    #[error("the system gives no random numbers for the token: {reason}")]
    Random {
        /// The system's reason.
        reason: String,
    },
}

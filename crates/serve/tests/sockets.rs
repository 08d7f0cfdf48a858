//! The server over real sockets: who is let in, what is too much, and that one client does not hold up another.

use sibo_serve::{MOST_BODY, MOST_CONNECTIONS, Reply, Response, Server, Stop};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

struct Running {
    port: u16,
    token: String,
    stop: Stop,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn start() -> Self {
        let server = Server::bind(0).unwrap();
        let address = server.address();
        let (host, token) = address.split_once("/?token=").unwrap();
        let port = host.rsplit(':').next().unwrap().parse().unwrap();
        let stop = server.stop();
        let thread = std::thread::spawn(move || {
            server.run(|request| match request.path.as_str() {
                "/echo" => Response::text(200, request.body.clone()).into(),
                "/large" => Response::text(200, vec![b'x'; 8 << 20]).into(),
                "/fault" => panic!("a handler's own fault"),
                "/tick" => Reply::Stream(Box::new(|events| {
                    for n in 0..1000 {
                        events.send("tick", &format!("{n}\nsecond line"))?;
                        events.wait(Duration::from_millis(20))?;
                    }
                    Ok(())
                })),
                path => Response::html(200, format!("page {path}")).into(),
            });
        });
        Running { port, token: token.into(), stop, thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// The whole answer to what is sent as it stands; `PORT` and `TOKEN` are filled in.
    fn ask(&self, text: &str) -> String {
        let text = text.replace("PORT", &self.port.to_string()).replace("TOKEN", &self.token);
        let mut stream = self.connect();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn status(&self, text: &str) -> u16 {
        let answer = self.ask(text);
        answer
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .unwrap_or_else(|| panic!("no status: {answer:?}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.ask();
        self.thread.take().unwrap().join().unwrap();
    }
}

const IN: &str = "Host: 127.0.0.1:PORT\r\nCookie: a=b; sibo-PORT=TOKEN\r\n";

#[test]
fn only_who_holds_the_token_is_let_in() {
    let server = Running::start();
    let with =
        |headers: &str| server.status(&format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n{headers}\r\n"));
    assert_eq!(with(""), 403);
    assert_eq!(with("Cookie: sibo-PORT=0123456789abcdef0123456789abcdef\r\n"), 403);
    assert_eq!(with("Cookie: sibo-PORT=\r\n"), 403);
    assert_eq!(with("Cookie: sibo-PORT=TOKEN\r\n"), 200);
    assert_eq!(with("Authorization: Bearer TOKEN\r\n"), 200);
    assert_eq!(with("Authorization: Bearer nothing\r\n"), 403);
    assert_eq!(
        server
            .status("GET /?token=wrong HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nCookie: sibo-PORT=TOKEN\r\n\r\n"),
        403
    );
    let said = server.ask("GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n\r\n");
    assert!(said.contains("open the address that it printed"), "{said}");
}

#[test]
fn the_token_leaves_the_address_and_becomes_a_cookie() {
    let server = Running::start();
    let answer = server.ask("GET /a%20b?token=TOKEN&of=x%2Fy HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n");
    let cookie =
        format!("Set-Cookie: sibo-{}={}; Path=/; HttpOnly; SameSite=Strict\r\n", server.port, server.token);
    assert!(
        answer.starts_with("HTTP/1.1 303 ") && answer.contains("Location: /a%20b?of=x/y\r\n"),
        "{answer}"
    );
    assert!(answer.contains(&cookie), "{answer}");
}

#[test]
fn other_hosts_and_origins_are_refused() {
    let server = Running::start();
    let with =
        |headers: &str| server.status(&format!("GET / HTTP/1.1\r\nCookie: sibo-PORT=TOKEN\r\n{headers}\r\n"));
    assert_eq!(with("Host: 127.0.0.1:PORT\r\n"), 200);
    for host in ["rebound.example:PORT", "127.0.0.1", "127.0.0.1:1", "[::1]:PORT", ""] {
        assert_eq!(with(&format!("Host: {host}\r\n")), 403, "{host}");
    }
    assert_eq!(with(""), 403);
    assert_eq!(with("Host: 127.0.0.1:PORT\r\nHost: 127.0.0.1:PORT\r\n"), 403);
    let own = "Host: 127.0.0.1:PORT\r\n";
    for origin in
        ["http://evil.example", "null", "https://127.0.0.1:PORT", "http://127.0.0.1:1", "http://127.0.0.1"]
    {
        assert_eq!(with(&format!("{own}Origin: {origin}\r\n")), 403, "{origin}");
    }
    assert_eq!(with(&format!("{own}Origin: http://127.0.0.1:PORT\r\n")), 200);
    for site in ["cross-site", "same-site"] {
        assert_eq!(with(&format!("{own}Sec-Fetch-Site: {site}\r\n")), 403, "{site}");
    }
    assert_eq!(with(&format!("{own}Sec-Fetch-Site: same-origin\r\n")), 200);
    let answer = server.ask(&format!("GET / HTTP/1.1\r\n{IN}\r\n"));
    assert!(!answer.to_lowercase().contains("access-control-"), "{answer}");
    assert!(answer.contains("Content-Security-Policy: default-src 'none';"), "{answer}");
}

#[test]
fn requests_have_limits() {
    let server = Running::start();
    let long = "x".repeat(20_000);
    assert_eq!(server.status(&format!("GET /{long} HTTP/1.1\r\n{IN}\r\n")), 431);
    let body = "y".repeat(MOST_BODY);
    let post = |length: usize, body: &str| {
        server.ask(&format!("POST /echo HTTP/1.1\r\n{IN}Content-Length: {length}\r\n\r\n{body}"))
    };
    assert!(post(MOST_BODY, &body).ends_with(&body));
    let answer = post(MOST_BODY + 1, &(body.clone() + "y"));
    assert!(
        answer.starts_with("HTTP/1.1 413 ") && answer.contains("65537 bytes; 65536 are the most"),
        "{answer}"
    );
    assert!(post(usize::MAX, "").starts_with("HTTP/1.1 413 "));
    let chunked = format!("POST /echo HTTP/1.1\r\n{IN}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(server.status(&chunked), 411);
    assert_eq!(server.status(&format!("PUT / HTTP/1.1\r\n{IN}\r\n")), 405);
    assert_eq!(server.status("nonsense\r\n\r\n"), 400);
}

#[test]
fn head_has_no_body_and_a_fault_ends_one_connection() {
    let server = Running::start();
    let answer = server.ask(&format!("HEAD /x HTTP/1.1\r\n{IN}\r\n"));
    assert!(answer.contains("Content-Length: 7\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert_eq!(server.ask(&format!("GET /fault HTTP/1.1\r\n{IN}\r\n")), "");
    assert_eq!(server.status(&format!("GET / HTTP/1.1\r\n{IN}\r\n")), 200);
}

#[test]
fn slow_clients_hold_nobody_up() {
    let server = Running::start();
    let mut idle: Vec<TcpStream> = (0..20).map(|_| server.connect()).collect();
    idle.iter_mut().for_each(|stream| stream.write_all(b"GET / HT").unwrap());
    // Ten that ask for eight megabytes and take none of it.
    let want = format!("GET /large HTTP/1.1\r\n{IN}\r\n");
    let want = want.replace("PORT", &server.port.to_string()).replace("TOKEN", &server.token);
    let mut greedy: Vec<TcpStream> = (0..10).map(|_| server.connect()).collect();
    greedy.iter_mut().for_each(|stream| stream.write_all(want.as_bytes()).unwrap());
    let began = Instant::now();
    assert_eq!(server.status(&format!("GET / HTTP/1.1\r\n{IN}\r\n")), 200);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let said = {
        let mut answer = String::new();
        idle[0].read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
}

#[test]
fn too_many_connections_are_told_so() {
    let server = Running::start();
    let held: Vec<TcpStream> = (0..MOST_CONNECTIONS).map(|_| server.connect()).collect();
    let until = Instant::now() + Duration::from_secs(5);
    let told = loop {
        let mut answer = String::new();
        let _ = server.connect().read_to_string(&mut answer);
        if answer.contains("too many connections") || Instant::now() > until {
            break answer;
        }
    };
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    drop(held);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.status(&format!("GET / HTTP/1.1\r\n{IN}\r\n")), 200);
}

#[test]
fn events_come_one_by_one_and_end_with_the_server() {
    let server = Running::start();
    let mut stream = server.connect();
    let ask = format!("GET /tick HTTP/1.1\r\n{IN}\r\n");
    let ask = ask.replace("PORT", &server.port.to_string()).replace("TOKEN", &server.token);
    stream.write_all(ask.as_bytes()).unwrap();
    let mut seen = String::new();
    let mut piece = [0u8; 512];
    while !seen.contains("event: tick\ndata: 3\ndata: second line\n\n") {
        let n = stream.read(&mut piece).unwrap();
        assert!(n > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&piece[..n]));
    }
    assert!(seen.contains("Content-Type: text/event-stream"), "{seen}");
    let began = Instant::now();
    drop(server);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let _ = stream.read_to_string(&mut seen);
    assert!(!seen.contains("data: 999\n"));
}

#[test]
fn a_taken_port_is_a_sentence() {
    let server = Running::start();
    let error = Server::bind(server.port).err().unwrap().to_string();
    let expected = format!("port {} of 127.0.0.1 is in use by another program; choose another", server.port);
    assert!(error.starts_with(&expected), "{error}");
}

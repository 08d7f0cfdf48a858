//! Who may ask: the only place where a request is let in.

use crate::request::{Method, Request};
use crate::{Response, ServeError, reply};

/// The secret of one server: 128 random bits as 32 hexadecimal digits.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token from the system's random numbers.
    ///
    /// # Errors
    /// The system has none.
    pub fn random() -> Result<Self, ServeError> {
        let mut bytes = [0u8; 16];
        getrandom::fill(&mut bytes).map_err(|e| ServeError::Random { reason: e.to_string() })?;
        Ok(Self(bytes.iter().map(|b| format!("{b:02x}")).collect()))
    }

    /// The token as it stands in the address.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether `text` is the token; takes as long for a near miss as for any other text of its length.
    pub fn is(&self, text: &str) -> bool {
        let (own, given) = (self.0.as_bytes(), text.as_bytes());
        own.len() == given.len() && own.iter().zip(given).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
    }
}

/// What becomes of a request.
pub(crate) enum Entry {
    /// It goes on to the handler.
    Open,
    /// It is answered here.
    Answer(Response),
}

/// Looks at host, origin and token.
pub(crate) fn look(request: &Request, port: u16, token: &Token) -> Entry {
    let own = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    if !request.header("host").is_some_and(|host| own.iter().any(|o| o.eq_ignore_ascii_case(host))) {
        return refuse(&format!(
            "this server answers to {} and {} only, and the request names another host",
            own[0], own[1]
        ));
    }
    if let Some(origin) = request.header("origin")
        && !own.iter().any(|o| origin.eq_ignore_ascii_case(&format!("http://{o}")))
    {
        return refuse("the request comes from a page of another origin");
    }
    // The address with the token may be opened from anywhere: from a terminal, a mail, another page.
    if request.method == Method::Get
        && let Some(given) = request.field("token")
    {
        return if token.is(given) { enter(request, port, token) } else { refuse(NO_TOKEN) };
    }
    if request.header("sec-fetch-site").is_some_and(|site| !["same-origin", "none"].contains(&site)) {
        return refuse("the browser says that the request was made for another site's page");
    }
    let bearer = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let name = cookie_name(port);
    if bearer.is_some_and(|given| token.is(given)) || request.cookie(&name).is_some_and(|c| token.is(c)) {
        return Entry::Open;
    }
    refuse(NO_TOKEN)
}

const NO_TOKEN: &str =
    "the token is missing or is not this server's: open the address that it printed when it started";

/// Cookies do not tell ports apart, so the name does.
fn cookie_name(port: u16) -> String {
    format!("sibo-{port}")
}

/// Takes the token out of the address and puts it into the cookie.
fn enter(request: &Request, port: u16, token: &Token) -> Entry {
    let rest: Vec<String> = request
        .query
        .iter()
        .filter(|(name, _)| name != "token")
        .map(|(name, value)| format!("{}={}", crate::url::encode(name), crate::url::encode(value)))
        .collect();
    let path = crate::url::encode(&request.path);
    let to = if rest.is_empty() { path } else { format!("{path}?{}", rest.join("&")) };
    let cookie = format!("{}={}; Path=/; HttpOnly; SameSite=Strict", cookie_name(port), token.text());
    Entry::Answer(Response::see_other(&to).header("Set-Cookie", &cookie))
}

fn refuse(reason: &str) -> Entry {
    Entry::Answer(reply::refusal(403, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_differ() {
        let (a, b) = (Token::random().unwrap(), Token::random().unwrap());
        assert_eq!(a.text().len(), 32);
        assert_ne!(a.text(), b.text());
        assert!(a.is(a.text()) && !a.is(b.text()) && !a.is("") && !a.is(&a.text()[..31]));
    }
}

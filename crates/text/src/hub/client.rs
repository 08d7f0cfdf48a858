//! The hub's protocol: what a repository holds, where a file lies, and its bytes.

use std::io::Read;
use std::time::Duration;

use ureq::http::{Response, header};
use ureq::{Agent, Body, config::RedirectAuthHeaders};

use super::{HubError, RepoId, Settings, pick};

/// Largest listing that is read. The largest repositories' are a few MB.
const LISTING_LIMIT: u64 = 64 << 20;

/// Redirects within the hub that a question for a file's head follows (a renamed repository, a cache).
const HOPS: usize = 5;

/// A repository's commit and the files in it.
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

/// A file on the hub: where, how large, and under what name its blob is kept.
pub(super) struct Remote {
    pub(super) url: String,
    pub(super) etag: String,
    pub(super) bytes: u64,
}

/// One session with the hub.
pub(super) struct Client<'a> {
    settings: &'a Settings,
    agent: Agent,
}

impl<'a> Client<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("sibo/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)));
        // A server on this machine is not behind the proxy.
        if ["http://127.0.0.1", "http://localhost"].iter().any(|here| settings.endpoint.starts_with(here)) {
            config = config.proxy(None);
        }
        Client { settings, agent: config.build().new_agent() }
    }

    /// The commit of a revision and its files.
    pub(super) fn listing(&self, repo: &RepoId) -> Result<Listing, HubError> {
        let kind = if repo.url_prefix().is_empty() { "models" } else { "datasets" };
        let revision = escape(repo.revision(), false);
        let url = format!("{}/api/{kind}/{}/revision/{revision}", self.settings.endpoint, repo.id());
        let mut response = self.authorised(self.agent.get(&url)).call().map_err(|e| self.broken(&url, &e))?;
        self.check(repo, &response, &format!("revision {:?}", repo.revision()))?;
        let text = response
            .body_mut()
            .with_config()
            .limit(LISTING_LIMIT)
            .read_to_vec()
            .map_err(|e| self.broken(&url, &e))?;
        let answer = |why: String| HubError::Answer { url: url.clone(), why };
        let json: serde_json::Value =
            serde_json::from_slice(&text).map_err(|e| answer(format!("broken JSON: {e}")))?;
        let commit = json["sha"].as_str().filter(|sha| pick::safe(sha) && !sha.contains('/'));
        let commit = commit.ok_or_else(|| answer("it names no commit".into()))?.to_owned();
        let files = json["siblings"].as_array().ok_or_else(|| answer("it lists no files".into()))?;
        let names = files.iter().filter_map(|file| file["rfilename"].as_str());
        Ok(Listing { commit, files: names.filter(|name| pick::safe(name)).map(str::to_owned).collect() })
    }

    /// Where a file of a commit lies.
    pub(super) fn head(&self, repo: &RepoId, commit: &str, name: &str) -> Result<Remote, HubError> {
        let url = format!(
            "{}/{}{}/resolve/{commit}/{}",
            self.settings.endpoint,
            repo.url_prefix(),
            repo.id(),
            escape(name, true)
        );
        let mut at = url.clone();
        for _ in 0..HOPS {
            // The headers of the hub's own answer count; a store elsewhere has other etags.
            let request =
                self.authorised_head(&at).config().max_redirects(0).max_redirects_will_error(false).build();
            let response = request.call().map_err(|e| self.broken(&at, &e))?;
            let within = text(&response, header::LOCATION.as_str()).filter(|to| to.starts_with('/'));
            if let Some(path) = within.filter(|_| response.status().is_redirection()) {
                at = format!("{}{path}", self.settings.endpoint);
                continue;
            }
            if !response.status().is_redirection() {
                self.check(repo, &response, &format!("file {name:?}"))?;
            }
            return remote(url, &response);
        }
        Err(HubError::Answer { url, why: "it redirects without end".into() })
    }

    /// A file's bytes from an offset on, and the offset at which they really begin (0 where the
    /// server does not give parts).
    pub(super) fn get(&self, url: &str, from: u64) -> Result<(impl Read + use<>, u64), HubError> {
        let mut request = self.authorised(self.agent.get(url));
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let response = request.call().map_err(|e| self.broken(url, &e))?;
        let status = response.status().as_u16();
        let starts_at = match status {
            206 => from,
            200 => 0,
            // What is here is no beginning of what the server has: start again.
            416 if from > 0 => return self.get(url, 0),
            status if status >= 500 || status == 429 => {
                return Err(HubError::Network { url: url.to_owned(), why: format!("status {status}") });
            }
            status => return Err(HubError::Answer { url: url.to_owned(), why: format!("status {status}") }),
        };
        Ok((response.into_body().into_reader(), starts_at))
    }

    /// A connection that failed, in words.
    pub(super) fn broken(&self, url: &str, error: &dyn std::error::Error) -> HubError {
        let mut why = error.to_string();
        if let Some(cause) = error.source() {
            why += &format!(": {cause}");
        }
        HubError::Network { url: url.to_owned(), why }
    }

    fn authorised<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.settings.token {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    fn authorised_head(&self, url: &str) -> ureq::RequestBuilder<ureq::typestate::WithoutBody> {
        self.authorised(self.agent.head(url))
    }

    /// A status that is not a success, in words.
    fn check(&self, repo: &RepoId, response: &Response<Body>, what: &str) -> Result<(), HubError> {
        let status = response.status().as_u16();
        let said = text(response, "x-error-message");
        let code = text(response, "x-error-code");
        let refused = |advice| Err(HubError::Refused { repo: repo.clone(), status, advice });
        match (status, code.as_deref()) {
            (200..=299, _) => Ok(()),
            (_, Some("GatedRepo")) | (403, _) => refused(format!(
                "Accept its terms at {}/{}{} and set HF_TOKEN to a token that may read it",
                self.settings.endpoint,
                repo.url_prefix(),
                repo.id()
            )),
            (401, _) if self.settings.token.is_none() => {
                refused("Either there is no such repository, or it is private: set HF_TOKEN to a token that may read it".into())
            }
            (401, _) => refused("The token (HF_TOKEN) is not valid, or may not read it, or there is no such repository".into()),
            (404, code) => {
                let what = if code == Some("RepoNotFound") { "repository" } else { what };
                Err(HubError::Missing { repo: repo.clone(), what: what.to_owned(), said })
            }
            _ => {
                let url = format!("{}/{}", self.settings.endpoint, repo.id());
                Err(HubError::Network { url, why: format!("status {status}{}", said.map(|s| format!(" ({s})")).unwrap_or_default()) })
            }
        }
    }
}

/// A header's text.
fn text(response: &Response<Body>, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// Size and etag of a file from the hub's answer; those of the linked file where it is kept elsewhere.
fn remote(url: String, response: &Response<Body>) -> Result<Remote, HubError> {
    let etag = text(response, "x-linked-etag").or_else(|| text(response, "etag"));
    let etag = etag.map(|tag| tag.trim_start_matches("W/").trim_matches('"').to_owned());
    let bytes = text(response, "x-linked-size").or_else(|| text(response, "content-length"));
    let bytes = bytes.and_then(|n| n.parse().ok());
    match (etag.filter(|tag| pick::safe(tag) && !tag.contains('/')), bytes) {
        (Some(etag), Some(bytes)) => Ok(Remote { url, etag, bytes }),
        _ => Err(HubError::Answer { url, why: "it gives no etag or no size, as a hub does".into() }),
    }
}

/// Percent-encode what may not stand in an address; slashes stay where `paths`.
fn escape(part: &str, paths: bool) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || (paths && byte == b'/');
    part.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

//! Where the cache is, which hub is asked, and with what token: the environment of `huggingface_hub`.

use std::path::PathBuf;

/// The hub that is asked where `HF_ENDPOINT` names no other.
const ENDPOINT: &str = "https://huggingface.co";

/// How the hub is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// The hub's address, without a slash at the end (`HF_ENDPOINT`).
    pub endpoint: String,
    /// The folder of the cache (`HF_HUB_CACHE`, else `HF_HOME/hub`).
    pub cache: PathBuf,
    /// The access token (`HF_TOKEN`, else the file that `hf auth login` writes).
    pub token: Option<String>,
    /// Never go online (`HF_HUB_OFFLINE`).
    pub offline: bool,
}

impl Settings {
    /// From the process's environment.
    pub fn from_env() -> Self {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    /// From variables given by `var`; an empty one counts as absent.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Self {
        let var = |name: &str| var(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let home = || PathBuf::from(var("HOME").or_else(|| var("USERPROFILE")).unwrap_or_else(|| ".".into()));
        let path = |name: &str| var(name).map(|text| expand_home(&text, &home()));
        let shared = path("XDG_CACHE_HOME").unwrap_or_else(|| home().join(".cache"));
        let hf_home = path("HF_HOME").unwrap_or_else(|| shared.join("huggingface"));
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
        let from_file = || std::fs::read_to_string(token_file).ok().map(|t| t.trim().to_owned());
        Settings {
            endpoint: var("HF_ENDPOINT")
                .unwrap_or_else(|| ENDPOINT.to_owned())
                .trim_end_matches('/')
                .to_owned(),
            cache: path("HF_HUB_CACHE")
                .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
                .unwrap_or_else(|| hf_home.join("hub")),
            token: var("HF_TOKEN").or_else(from_file).filter(|token| !token.is_empty()),
            offline: var("HF_HUB_OFFLINE")
                .is_some_and(|v| ["1", "on", "yes", "true"].contains(&v.to_ascii_lowercase().as_str())),
        }
    }
}

/// The token stays out of logs.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "(set)"))
            .field("offline", &self.offline)
            .finish()
    }
}

fn expand_home(text: &str, home: &std::path::Path) -> PathBuf {
    match text.strip_prefix("~/") {
        Some(rest) => home.join(rest),
        None => PathBuf::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(vars: &[(&str, &str)]) -> Settings {
        let vars: Vec<(String, String)> = vars.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Settings::from_vars(move |name| vars.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
    }

    #[test]
    fn the_cache_is_where_python_has_it() {
        let cache = |vars: &[(&str, &str)]| with(vars).cache;
        assert_eq!(cache(&[("HOME", "/h")]), PathBuf::from("/h/.cache/huggingface/hub"));
        assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), PathBuf::from("/x/huggingface/hub"));
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "~/hf")]), PathBuf::from("/h/hf/hub"));
        assert_eq!(cache(&[("HF_HOME", "/y"), ("HF_HUB_CACHE", "/c")]), PathBuf::from("/c"));
    }

    #[test]
    fn endpoint_token_and_offline() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let home = folder.path().display().to_string();
        std::fs::write(folder.path().join("token"), "hf_file\n").expect("writes");
        let set = with(&[
            ("HF_HOME", &home),
            ("HF_ENDPOINT", "https://mirror.example/"),
            ("HF_HUB_OFFLINE", "True"),
        ]);
        assert_eq!(
            (set.endpoint.as_str(), set.token.as_deref(), set.offline),
            ("https://mirror.example", Some("hf_file"), true)
        );
        let set = with(&[("HF_HOME", &home), ("HF_TOKEN", "hf_env"), ("HF_HUB_OFFLINE", "0")]);
        assert_eq!(
            (set.endpoint.as_str(), set.token.as_deref(), set.offline),
            (ENDPOINT, Some("hf_env"), false)
        );
        assert!(!format!("{set:?}").contains("hf_env"), "a token never reaches a log");
    }
}

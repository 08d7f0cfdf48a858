//! Against a small hub on loopback: what it is asked, what lands in the cache, and what it refuses.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// One request as the server saw it.
#[derive(Debug, Clone)]
struct Asked {
    method: String,
    path: String,
    token: Option<String>,
    range: Option<usize>,
}

/// A repository on the test hub, and how the hub misbehaves.
#[derive(Default, Clone)]
struct Shop {
    files: Vec<(&'static str, Vec<u8>)>,
    token: Option<&'static str>,
    gated: bool,
    /// Break the connection after so many bytes of a body, for the first `n` bodies.
    break_after: Option<(usize, usize)>,
    /// Send other bytes than the checksum says.
    damaged: bool,
    /// Ignore `Range`.
    no_ranges: bool,
}

struct Server {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    fn open(shop: Shop) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
        let url = format!("http://{}", listener.local_addr().expect("it has an address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        std::thread::spawn(move || {
            let mut shop = shop;
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, &mut shop, &log);
            }
        });
        Server { url, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no test panicked here").clone()
    }

    fn bodies(&self) -> Vec<Asked> {
        self.asked().into_iter().filter(|a| a.method == "GET" && a.path.contains("/resolve/")).collect()
    }

    fn hub(&self, cache: &Path) -> Settings {
        Settings { endpoint: self.url.clone(), cache: cache.to_owned(), token: None, offline: false }
    }
}

fn answer(stream: TcpStream, shop: &mut Shop, log: &Mutex<Vec<Asked>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut parts = first.split(' ').map(str::to_owned);
    let (method, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut asked = Asked { method, path, token: None, range: None };
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => asked.token = Some(value.to_owned()),
            "range" => asked.range = value.trim_start_matches("bytes=").trim_end_matches('-').parse().ok(),
            _ => {}
        }
    }
    log.lock().expect("no test panicked here").push(asked.clone());
    reply(stream, shop, &asked)
}

fn reply(mut out: TcpStream, shop: &mut Shop, asked: &Asked) -> std::io::Result<()> {
    let plain = |status: &str, extra: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\n{extra}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    if shop.gated {
        return out.write_all(plain("403 Forbidden", "X-Error-Code: GatedRepo\r\n", "").as_bytes());
    }
    if shop.token.is_some_and(|token| asked.token.as_deref() != Some(&format!("Bearer {token}"))) {
        return out.write_all(plain("401 Unauthorized", "", "").as_bytes());
    }
    let path = asked
        .path
        .trim_start_matches("/api/models")
        .trim_start_matches("/api/datasets")
        .trim_start_matches("/datasets");
    if asked.path.starts_with("/api/") {
        let listing: Vec<_> =
            shop.files.iter().map(|(name, _)| serde_json::json!({"rfilename": name})).collect();
        let body = serde_json::json!({"sha": COMMIT, "siblings": listing}).to_string();
        return match path {
            "/org/tiny/revision/main" | "/org/tiny/revision/v1.5" => {
                out.write_all(plain("200 OK", "", &body).as_bytes())
            }
            p if p.starts_with("/org/tiny/") => {
                out.write_all(plain("404 Not Found", "X-Error-Code: RevisionNotFound\r\n", "").as_bytes())
            }
            _ => out.write_all(
                plain(
                    "404 Not Found",
                    "X-Error-Code: RepoNotFound\r\nX-Error-Message: Repository not found\r\n",
                    "",
                )
                .as_bytes(),
            ),
        };
    }
    let name = path.strip_prefix(&format!("/org/tiny/resolve/{COMMIT}/")).unwrap_or_default();
    let Some((_, bytes)) = shop.files.iter().find(|(known, _)| *known == name) else {
        return out.write_all(plain("404 Not Found", "X-Error-Code: EntryNotFound\r\n", "").as_bytes());
    };
    send_file(out, shop.clone(), shop, bytes.clone(), name, asked)
}

/// Large files have a sha256 for an etag and, on HEAD, a redirect elsewhere; small ones neither.
fn send_file(
    mut out: TcpStream,
    now: Shop,
    shop: &mut Shop,
    bytes: Vec<u8>,
    name: &str,
    asked: &Asked,
) -> std::io::Result<()> {
    let sum: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    let large = name.ends_with(".safetensors");
    if asked.method == "HEAD" {
        let head = if large {
            format!(
                "HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/x\r\nX-Linked-Etag: \"{sum}\"\r\nX-Linked-Size: {}\r\nContent-Length: 0\r\n",
                bytes.len()
            )
        } else {
            format!("HTTP/1.1 200 OK\r\nETag: W/\"{}\"\r\nContent-Length: {}\r\n", &sum[..40], bytes.len())
        };
        return out.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes());
    }
    let from = asked.range.filter(|_| !now.no_ranges);
    let mut body = bytes[from.unwrap_or(0)..].to_vec();
    if now.damaged && large {
        body[0] ^= 1;
    }
    let status = if from.is_some() { "206 Partial Content" } else { "200 OK" };
    out.write_all(
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len())
            .as_bytes(),
    )?;
    match now.break_after {
        Some((at, times)) if large && times > 0 => {
            shop.break_after = Some((at, times - 1));
            out.write_all(&body[..at.min(body.len())])
        }
        _ => out.write_all(&body),
    }
}

fn model() -> Shop {
    let weights: Vec<u8> = (0..70_001u32).map(|i| (i * 7 % 251) as u8).collect();
    let files = vec![
        ("config.json", b"{\"model_type\": \"bert\"}".to_vec()),
        ("tokenizer.json", b"{}".to_vec()),
        ("model.safetensors", weights.clone()),
        ("pytorch_model.bin", b"pickled".to_vec()),
        ("additional_chat_templates/rag.jinja", b"{{ x }}".to_vec()),
        ("README.md", b"hello".to_vec()),
    ];
    Shop { files, ..Shop::default() }
}

fn repo(text: &str) -> RepoId {
    RepoId::parse(Kind::Model, text).expect("a name")
}

fn get(settings: Settings, text: &str) -> Result<Snapshot, HubError> {
    Hub::new(settings).snapshot(&repo(text), None, &mut |_| {})
}

#[test]
fn a_model_lands_in_the_cache_of_huggingface_hub() {
    let cache = tempfile::tempdir().expect("a temporary folder");
    let server = Server::open(model());
    let mut told = Vec::new();
    let got = Hub::new(server.hub(cache.path()))
        .snapshot(&repo("org/tiny"), None, &mut |p| {
            if let Progress::File { name, number, of, bytes } = p {
                told.push((name.to_owned(), number, of, bytes));
            }
        })
        .expect("fetched");
    let root = cache.path().join("models--org--tiny");
    assert_eq!(got.folder, root.join("snapshots").join(COMMIT));
    assert_eq!(std::fs::read_to_string(root.join("refs/main")).expect("a ref"), COMMIT);
    assert_eq!(std::fs::read(got.folder.join("model.safetensors")).expect("weights"), model().files[2].1);
    assert_eq!(
        std::fs::read_to_string(got.folder.join("additional_chat_templates/rag.jinja")).expect("a template"),
        "{{ x }}"
    );
    assert!(!got.folder.join("pytorch_model.bin").exists() && !got.folder.join("README.md").exists());
    #[cfg(unix)]
    assert!(std::fs::read_link(got.folder.join("config.json")).expect("a link").starts_with("../../blobs"));
    assert_eq!(told.last().expect("files"), &("model.safetensors".to_owned(), 4, 4, 70_001));
    assert!(
        std::fs::read_dir(root.join("blobs"))
            .expect("blobs")
            .flatten()
            .all(|e| !e.file_name().to_string_lossy().contains("incomplete"))
    );
}

#[test]
fn a_second_time_no_body_is_fetched_and_offline_needs_no_hub() {
    let cache = tempfile::tempdir().expect("a temporary folder");
    let server = Server::open(model());
    let first = get(server.hub(cache.path()), "org/tiny@v1.5").expect("fetched");
    let asked = server.asked().len();
    let again = get(server.hub(cache.path()), "org/tiny@v1.5").expect("there");
    assert_eq!(server.asked().len(), asked + 1, "only the listing");
    assert_eq!(again.folder, first.folder);
    let offline = Settings { offline: true, ..server.hub(cache.path()) };
    assert_eq!(
        get(offline.clone(), "org/tiny@v1.5").expect("cached"),
        Snapshot { from_cache: true, ..first.clone() }
    );
    let by_commit = get(server.hub(cache.path()), &format!("org/tiny@{COMMIT}")).expect("cached");
    assert!(by_commit.from_cache && server.asked().len() == asked + 1, "a commit never changes");
    let unplugged = Settings { endpoint: "http://127.0.0.1:9".into(), ..offline.clone() };
    assert!(get(Settings { offline: false, ..unplugged }, "org/tiny@v1.5").expect("cached").from_cache);
    let said = get(offline, "org/other").expect_err("not cached").to_string();
    assert!(said.contains("no complete copy") && said.contains("HF_HUB_OFFLINE"), "{said}");
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    for no_ranges in [false, true] {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let server = Server::open(Shop { break_after: Some((30_000, 2)), no_ranges, ..model() });
        let got = get(server.hub(cache.path()), "org/tiny").expect("fetched in three pieces");
        assert_eq!(std::fs::read(got.folder.join("model.safetensors")).expect("weights"), model().files[2].1);
        let ranges: Vec<_> = server
            .bodies()
            .iter()
            .filter(|a| a.path.ends_with("model.safetensors"))
            .map(|a| a.range)
            .collect();
        assert_eq!(ranges, [None, Some(30_000), Some(if no_ranges { 30_000 } else { 60_000 })]);
    }
}

#[test]
fn a_download_given_up_is_no_model_and_is_taken_up_later() {
    let cache = tempfile::tempdir().expect("a temporary folder");
    let broken = Server::open(Shop { break_after: Some((100, 99)), ..model() });
    let said = get(broken.hub(cache.path()), "org/tiny").expect_err("it breaks each time").to_string();
    assert!(said.contains("the connection ended after 400 of 70001 bytes"), "{said}");
    let offline = Settings { offline: true, ..broken.hub(cache.path()) };
    get(offline, "org/tiny").expect_err("half a model is no model");
    let server = Server::open(model());
    get(server.hub(cache.path()), "org/tiny").expect("fetched");
    let bodies = server.bodies();
    assert_eq!(bodies.iter().map(|a| a.range).collect::<Vec<_>>(), [Some(400)], "the rest of one file");
}

#[test]
fn damaged_bytes_are_thrown_away() {
    let cache = tempfile::tempdir().expect("a temporary folder");
    let server = Server::open(Shop { damaged: true, ..model() });
    let said = get(server.hub(cache.path()), "org/tiny").expect_err("another checksum").to_string();
    assert!(said.contains("sha256") && said.contains("was announced"), "{said}");
    assert!(!cache.path().join("models--org--tiny/refs/main").exists());
    let left = std::fs::read_dir(cache.path().join("models--org--tiny/blobs")).expect("blobs").count();
    assert_eq!(left, 3, "the small files only");
}

#[test]
fn a_sharded_model_needs_every_shard() {
    let index = br#"{"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors", "c": "model-1-of-2.safetensors"}}"#;
    let sharded = |second: &'static str| Shop {
        files: vec![
            ("config.json", b"{}".to_vec()),
            ("model.safetensors.index.json", index.to_vec()),
            ("model-1-of-2.safetensors", vec![1; 17]),
            (second, vec![2; 19]),
        ],
        ..Shop::default()
    };
    let cache = tempfile::tempdir().expect("a temporary folder");
    let server = Server::open(sharded("model-2-of-2.safetensors"));
    let got = get(server.hub(cache.path()), "org/tiny").expect("fetched");
    assert_eq!(std::fs::read(got.folder.join("model-2-of-2.safetensors")).expect("a shard"), vec![2; 19]);
    std::fs::remove_file(got.folder.join("model-1-of-2.safetensors")).expect("a link");
    get(Settings { offline: true, ..server.hub(cache.path()) }, "org/tiny").expect_err("a shard is gone");
    let server = Server::open(sharded("model-3-of-2.safetensors"));
    let other = tempfile::tempdir().expect("a temporary folder");
    let said = get(server.hub(other.path()), "org/tiny").expect_err("a shard is absent").to_string();
    assert!(said.contains("no such file \"model-2-of-2.safetensors\", which its index names"), "{said}");
}

#[test]
fn refusals_say_what_to_do() {
    let cache = tempfile::tempdir().expect("a temporary folder");
    let said = |shop: Shop, token: Option<&str>, name: &str| {
        let server = Server::open(shop);
        let settings = Settings { token: token.map(str::to_owned), ..server.hub(cache.path()) };
        get(settings, name).expect_err("refused").to_string()
    };
    let private = || Shop { token: Some("hf_good"), ..model() };
    assert!(said(private(), None, "org/tiny").contains("set HF_TOKEN to a token that may read it"));
    assert!(said(private(), Some("hf_bad"), "org/tiny").contains("The token (HF_TOKEN) is not valid"));
    let gated = said(Shop { gated: true, ..model() }, Some("hf_good"), "org/tiny");
    assert!(
        gated.contains("Accept its terms at http://127.0.0.1:")
            && gated.contains("/org/tiny and set HF_TOKEN"),
        "{gated}"
    );
    assert_eq!(
        said(model(), None, "org/none"),
        "org/none: the hub has no such repository (Repository not found)"
    );
    assert_eq!(said(model(), None, "org/tiny@v9"), "org/tiny@v9: the hub has no such revision \"v9\"");
    let nobody = Settings {
        endpoint: "http://127.0.0.1:9".into(),
        cache: cache.path().into(),
        token: None,
        offline: false,
    };
    let unreachable = get(nobody, "org/tiny").expect_err("nobody listens").to_string();
    assert!(unreachable.contains("127.0.0.1:9") && unreachable.contains("HF_ENDPOINT"), "{unreachable}");
}

#[test]
fn a_good_token_is_sent_to_the_hub() {
    let cache = tempfile::tempdir().expect("a temporary folder");
    let server = Server::open(Shop { token: Some("hf_good"), ..model() });
    let settings = Settings { token: Some("hf_good".into()), ..server.hub(cache.path()) };
    get(settings, "org/tiny").expect("fetched");
    assert!(server.asked().iter().all(|a| a.token.as_deref() == Some("Bearer hf_good")));
}

#[test]
fn pickled_weights_are_refused_with_how_to_convert() {
    let cache = tempfile::tempdir().expect("a temporary folder");
    let without = |keep: &str| {
        let mut shop = model();
        shop.files.retain(|(name, _)| {
            !name.ends_with(".safetensors") && (!name.ends_with(".bin") || *name == keep)
        });
        let server = Server::open(shop);
        let said = get(server.hub(cache.path()), "org/tiny").expect_err("nothing to read").to_string();
        assert!(server.bodies().is_empty(), "nothing is fetched for nothing");
        said
    };
    let said = without("pytorch_model.bin");
    assert!(
        said.contains("pytorch_model.bin, a pickled file") && said.contains("from_pretrained('org/tiny')"),
        "{said}"
    );
    assert!(without("").contains("it has no model.safetensors"));
}

#[test]
fn a_data_set_is_fetched_by_folder() {
    let files = vec![
        ("qnli/train-00000-of-00001.parquet", vec![1; 11]),
        ("qnli/validation-00000-of-00001.parquet", vec![2; 13]),
        ("qnli-extra/train.parquet", vec![3; 7]),
        ("README.md", vec![4; 5]),
    ];
    let server = Server::open(Shop { files, ..Shop::default() });
    let cache = tempfile::tempdir().expect("a temporary folder");
    let data = RepoId::parse(Kind::Dataset, "org/tiny").expect("a name");
    let hub = Hub::new(server.hub(cache.path()));
    let got = hub.snapshot(&data, Some("qnli"), &mut |_| {}).expect("fetched");
    assert!(got.folder.starts_with(cache.path().join("datasets--org--tiny")));
    assert_eq!(
        std::fs::read(got.folder.join("qnli/validation-00000-of-00001.parquet")).expect("a file"),
        vec![2; 13]
    );
    assert_eq!(server.bodies().len(), 2);
    let said = hub.snapshot(&data, Some("rte"), &mut |_| {}).expect_err("no such folder").to_string();
    assert!(said.contains("no .parquet, .json, .jsonl, .csv or .tsv file below \"rte\""), "{said}");
}

#[test]
fn only_names_of_repositories_parse() {
    let parse =
        |text: &str| RepoId::parse(Kind::Model, text).map(|r| (r.id().to_owned(), r.revision().to_owned()));
    let some = |id: &str, revision: &str| Some((id.to_owned(), revision.to_owned()));
    assert_eq!(parse("meta-llama/Llama-3.2-1B"), some("meta-llama/Llama-3.2-1B", "main"));
    assert_eq!(parse("a/b@refs/pr/3"), some("a/b", "refs/pr/3"));
    for bad in ["b", "./b", "../b", "a/b/c", "a/b@", "a/..", "/a/b", "a/b@../../x", "a b/c", "a/b--c"] {
        assert_eq!(parse(bad), None, "{bad}");
    }
}

#[test]
fn half_a_data_set_is_not_taken_for_the_whole() {
    let part = vec![("qnli/a.parquet", vec![1; 11])];
    let cache = tempfile::tempdir().expect("a temporary folder");
    let data = RepoId::parse(Kind::Dataset, "org/tiny").expect("a name");
    let settings = Server::open(Shop { files: part, ..Shop::default() }).hub(cache.path());
    let get = |offline: bool| {
        let hub = Hub::new(Settings { offline, ..settings.clone() });
        hub.snapshot(&data, Some("qnli"), &mut |_| {})
    };
    get(false).expect("fetched");
    assert!(get(true).expect("whole").from_cache);
    let mark = cache.path().join(format!(".locks/datasets--org--tiny/{COMMIT}.qnli.unfinished"));
    std::fs::write(&mark, "").expect("as a killed download leaves it");
    get(true).expect_err("perhaps half");
    get(false).expect("taken up");
    assert!(!mark.exists() && get(true).is_ok());
}

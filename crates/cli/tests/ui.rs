//! `sibo ui` as a program: over real sockets, on runs that are whole, growing, broken and huge.

mod common;

use common::Place;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The program, listening; ended when dropped.
pub(crate) struct Ui {
    child: Child,
    port: u16,
    token: String,
}

impl Ui {
    fn start(place: &Place, words: &[&str]) -> Self {
        let mut all = vec!["ui", "--quiet"];
        all.extend(words);
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("sibo"));
        command
            .current_dir(place.path())
            .args(&all)
            .env("HF_HUB_OFFLINE", "1")
            .env("HF_HOME", "/nonexistent");
        command.env_remove("SIBO_MODELS").env_remove("SIBO_DATA");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (host, token) =
            line.trim().split_once("/?token=").unwrap_or_else(|| panic!("no address: {line:?}"));
        let port = host.strip_prefix("http://127.0.0.1:").unwrap().parse().unwrap();
        Ui { child, port, token: token.into() }
    }

    fn open(&self, request: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let (port, token, length) = (self.port, &self.token, body.len());
        let text = format!(
            "{request} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: sibo-{port}={token}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).unwrap();
        stream
    }

    /// Status and body.
    fn get(&self, path: &str) -> (u16, String) {
        let mut answer = String::new();
        self.open(&format!("GET {path}"), "").read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.into())
    }

    fn page(&self, path: &str) -> String {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{body}");
        assert!(body.starts_with("<!doctype html>") && body.ends_with("</html>\n"), "{path}");
        body
    }
}

impl Drop for Ui {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn step(n: usize, loss: f64) -> String {
    format!(
        "{{\"kind\":\"step\",\"step\":{n},\"loss\":{loss},\"grad_norm\":0.5,\"tokens\":90,\"seconds\":0.5,\"tokens_per_second\":180.0}}\n"
    )
}

const RECIPE: &str = "model = \"llama-tied\"\ndata = \"rows.jsonl\"\noutput_dir = \"runs/a\"\n\
[adapter]\nmethod = \"lora\"\n[adapter.sibo]\nlambda = 0.35\n";

fn run(place: &Place, name: &str, steps: usize) {
    place.write(&format!("runs/{name}/recipe.toml"), RECIPE);
    place.write(
        &format!("runs/{name}/metrics.jsonl"),
        (1..=steps).map(|n| step(n, 3.0 / n as f64)).collect::<String>(),
    );
}

fn append(place: &Place, name: &str, text: &str) {
    let path = place.join(&format!("runs/{name}/metrics.jsonl"));
    std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn runs_are_listed_with_what_is_wrong_with_them() {
    let place = Place::with("llama-tied");
    run(&place, "whole", 12);
    std::fs::create_dir_all(place.join("runs/whole/adapter")).unwrap();
    run(&place, "a <b>/deeper", 3);
    place.write("runs/early/recipe.toml", RECIPE);
    place.write("runs/lost/metrics.jsonl", step(1, 2.0));
    run(&place, "bad", 2);
    append(&place, "bad", "{\"kind\": \n");
    place.write("runs/study/report.json", "{\"schema\": 99}");
    let huge = place.join("runs/huge/metrics.jsonl");
    run(&place, "huge", 1);
    std::fs::File::options().write(true).open(&huge).unwrap().set_len(3 << 30).unwrap();

    let ui = Ui::start(&place, &[]);
    let list = ui.page("/");
    assert!(list.contains("6 runs and 1 study below runs"), "{list}");
    assert!(list.contains("lora, lambda 0.35, on llama-tied"), "{list}");
    assert!(list.contains("a &lt;b&gt;/deeper") && !list.contains("a <b>"), "{list}");
    assert!(
        list.contains("state finished\">finished") && list.contains("state training\">training"),
        "{list}"
    );
    assert!(list.contains("no step is done yet") && list.contains("no recipe.toml"), "{list}");
    assert!(list.contains("report schema 99"), "{list}");

    let view = |name: &str| ui.page(&format!("/view?of={name}"));
    let whole = view("whole");
    assert!(
        whole.contains("whole is finished: 12 steps, loss 0.2500.")
            && whole.contains("<svg class=\"plot wide\"")
    );
    assert!(view("bad").contains("metrics.jsonl, line 3: "), "the broken line is named");
    assert!(view("bad").contains("<svg class=\"plot wide\""), "what came before it is shown");
    assert!(view("huge").contains("67108864 bytes are the most"));
    assert!(view("a%20%3Cb%3E/deeper").contains("step 3"));
    assert!(view("study").contains("report schema 99"));
    let two = ui.page("/view?of=whole&of=a%20%3Cb%3E%2Fdeeper");
    assert!(two.contains("Where the recipes differ"), "{two}");
}

#[test]
fn names_do_not_lead_out_of_the_folder() {
    let place = Place::with("llama-tied");
    run(&place, "in", 1);
    place.write("secret/recipe.toml", RECIPE);
    place.write("secret/metrics.jsonl", step(1, 2.0));
    let ui = Ui::start(&place, &[]);
    for name in ["../secret", "in/../../secret", "/etc", "..%2Fsecret", "in/", "none"] {
        let (status, body) = ui.get(&format!("/view?of={name}"));
        assert_eq!(status, 400, "{name}");
        assert!(body.contains("No run or study is called"), "{name}: {body}");
    }
    for path in ["/../secret/recipe.toml", "/runs/in/recipe.toml", "/%2e%2e/secret/recipe.toml", "/x"] {
        assert_eq!(ui.get(path).0, 404, "{path}");
    }
    assert_eq!(ui.get("/view").0, 400);
    let nine: String = (0..9).map(|i| format!("of={i}&")).collect();
    assert!(ui.get(&format!("/view?{nine}")).1.contains("9 were chosen; 8 fit on one page"));
}

#[test]
fn nobody_is_let_in_without_the_token() {
    let place = Place::with("llama-tied");
    run(&place, "in", 1);
    let ui = Ui::start(&place, &[]);
    for path in
        ["/", "/events", "/view?of=in", "/view/events?of=in", "/similarity", "/playground", "/style.css"]
    {
        for (host, extra) in [("127.0.0.1", ""), ("rebound.example", "cookie"), ("127.0.0.1", "origin")] {
            let mut stream = TcpStream::connect(("127.0.0.1", ui.port)).unwrap();
            let cookie = format!("Cookie: sibo-{}={}\r\n", ui.port, ui.token);
            let extra = match extra {
                "cookie" => cookie,
                "origin" => cookie + "Origin: http://127.0.0.1:1\r\n",
                _ => String::new(),
            };
            let text = format!("GET {path} HTTP/1.1\r\nHost: {host}:{}\r\n{extra}\r\n", ui.port);
            stream.write_all(text.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 403 "), "{path}, {host}, {extra}: {answer}");
        }
    }
}

#[test]
fn an_open_page_hears_of_every_step() {
    let place = Place::with("llama-tied");
    run(&place, "live", 4);
    let ui = Ui::start(&place, &[]);
    let mut stream = ui.open("GET /view/events?of=live", "");
    let mut seen = String::new();
    let mut wait_for = |wanted: &str| {
        let until = Instant::now() + Duration::from_secs(30);
        let mut piece = [0u8; 65536];
        while !seen.contains(wanted) {
            assert!(Instant::now() < until, "no `{wanted}` in {seen:.2000}");
            let n = stream.read(&mut piece).unwrap();
            assert!(n > 0, "the stream ended");
            seen.push_str(&String::from_utf8_lossy(&piece[..n]));
        }
    };
    wait_for("live is training: step 4, loss 0.7500, 180 tokens/s.");
    append(&place, "live", &step(5, 0.4321));
    wait_for("live is training: step 5, loss 0.4321, 180 tokens/s.");
    std::fs::create_dir_all(place.join("runs/live/adapter")).unwrap();
    wait_for("event: said\ndata: live is finished: 5 steps, loss 0.4321.");
    let (_, list) = ui.get("/");
    assert!(list.contains("state finished"), "{list}");
}

#[test]
fn pages_ask_for_nothing_elsewhere() {
    let place = Place::with("llama-tied");
    run(&place, "in", 4);
    let ui = Ui::start(&place, &[]);
    for path in ["/", "/view?of=in", "/similarity", "/style.css", "/page.js", "/ui.js"] {
        let (status, text) = ui.get(path);
        assert_eq!(status, 200, "{path}");
        for asks in ["http:", "https:", "@import", "url(", "<script>", " style=\"", " onclick"] {
            assert!(!text.contains(asks), "{path}: {asks}");
        }
    }
}

#[test]
fn an_empty_folder_and_a_taken_port_are_sentences() {
    let place = Place::with("llama-tied");
    let ui = Ui::start(&place, &[]);
    assert!(ui.page("/").contains("Nothing is below runs yet."));
    let port = ui.port.to_string();
    common::fails(&mut place.sibo(&["ui", "--port", &port]), 1, &["in use by another program", &port]);
    place.write("file", "");
    common::fails(&mut place.sibo(&["ui", "file"]), 1, &["file: is a file"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_it() {
    let place = Place::with("llama-tied");
    let mut ui = Ui::start(&place, &[]);
    let held = ui.open("GET /events", "");
    let status =
        std::process::Command::new("kill").args(["-INT", &ui.child.id().to_string()]).status().unwrap();
    assert!(status.success());
    let until = Instant::now() + Duration::from_secs(10);
    let code = loop {
        if let Some(status) = ui.child.try_wait().unwrap() {
            break status.code();
        }
        assert!(Instant::now() < until, "it goes on after Ctrl-C");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(code, Some(0));
    drop(held);
}

/// Events of an answer: name and data.
fn events(answer: &str) -> Vec<(String, serde_json::Value)> {
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("text/event-stream"), "{answer}");
    let one = |event: &str| {
        let (name, data) = event.strip_prefix("event: ")?.split_once("\ndata: ")?;
        Some((name.to_string(), serde_json::from_str(data).expect("JSON")))
    };
    body.split("\n\n").filter_map(one).collect()
}

fn ask(ui: &Ui, form: &str) -> Vec<(String, serde_json::Value)> {
    let mut answer = String::new();
    ui.open("POST /playground/ask", form).read_to_string(&mut answer).unwrap();
    events(&answer)
}

/// What a column said, and how it ended.
fn said(events: &[(String, serde_json::Value)], column: usize) -> (String, String) {
    let own = |name: &'static str| events.iter().filter(move |(n, d)| n == name && d["column"] == column);
    let text = own("piece").map(|(_, d)| d["text"].as_str().unwrap()).collect();
    let end = own("end").map(|(_, d)| d["words"].as_str().unwrap().to_string()).collect();
    (text, end)
}

#[test]
fn the_playground_says_what_generate_says() {
    let place = Place::with("llama-gqa");
    let adapter = place.adapter("llama-gqa-sibo-35");
    common::succeeds(&mut place.sibo(&["export", &adapter, "--as-plain-lora", "--output", "models/plain"]));
    let ui = Ui::start(&place, &["--model", "llama-gqa", "--adapter", &adapter]);
    let drawn = ["--temperature", "0.9", "--top-k", "20", "--seed", "7"];
    for (form, words) in [("", &[][..]), ("&temperature=0.9&top_k=20&seed=7", &drawn)] {
        let generate = |adapter: Option<&str>| {
            let mut all = vec!["generate", "--model", "llama-gqa", "--max-new-tokens", "9", "--quiet"];
            all.extend(words);
            all.extend(adapter.into_iter().flat_map(|a| ["--adapter", a]));
            all.push("what is the sum of one and two ?");
            common::succeeds(&mut place.sibo(&all)).trim_end_matches('\n').to_string()
        };
        let text = "text=what+is+the+sum+of+one+and+two+%3f&max_new_tokens=9";
        let all = ask(&ui, &format!("{text}&column=base&column=0&column=0:0&column=0:0.35{form}"));
        assert_eq!(all.last().unwrap().0, "done", "{all:?}");
        let [base, own, none, same] = [0, 1, 2, 3].map(|column| said(&all, column));
        assert_eq!(base.0, generate(None));
        assert_eq!(own.0, generate(Some(&adapter)));
        // Another lambda than the adapter's own: 0 is the same tensors as a plain LoRA.
        assert_eq!(none.0, generate(Some("plain")));
        assert_eq!(same.0, own.0);
        assert!(base.0 != own.0 && own.0 != none.0 && own.1.contains("tokens in"), "{all:?}");
    }
}

#[test]
fn an_encoder_gives_probabilities_and_similarity() {
    let place = Place::with("bert-classifier");
    let ui = Ui::start(&place, &["--model", "bert-classifier"]);
    let all = ask(&ui, "text=the+river+is+red&second=a+bridge&column=base");
    let classes = &all.iter().find(|(name, _)| name == "classes").unwrap_or_else(|| panic!("{all:?}")).1;
    let sum: f64 =
        classes["classes"].as_array().unwrap().iter().map(|c| c["probability"].as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-9, "{classes}");
    let html = &all.iter().find(|(name, _)| name == "similarity").unwrap().1["html"];
    assert!(html.as_str().unwrap().contains("<svg class=\"plot wide\""), "{html}");
    let other = ask(&ui, "text=the+river+is+red&column=base");
    assert_ne!(other.iter().find(|(name, _)| name == "classes").unwrap().1, *classes);
}

#[test]
fn the_playground_refuses_in_words_and_goes_on() {
    let place = Place::with("llama-gqa");
    let ui = Ui::start(&place, &["--model", "llama-gqa"]);
    for (form, part) in
        [("text=&column=base", "no text"), ("text=a&column=3", "names no adapter"), ("%zz", "cannot be read")]
    {
        let all = ask(&ui, form);
        assert_eq!(all[0].0, "failed");
        assert!(all[0].1["sentence"].as_str().unwrap().contains(part), "{all:?}");
    }
    // One that is withdrawn in the middle, and one too long for the model, keep nobody from the next.
    drop(ui.open("POST /playground/ask", "text=one+two&column=base&max_new_tokens=1024"));
    let long = format!("text={}&column=base&max_new_tokens=5", "one+".repeat(3000));
    assert!(ask(&ui, &long).iter().any(|(name, _)| name == "done" || name == "failed"));
    assert_eq!(ask(&ui, "text=one+two&column=base&max_new_tokens=3").last().unwrap().0, "done");
    assert_eq!(ui.get("/playground/ask").0, 404);
    let none = Ui::start(&place, &[]);
    assert!(none.page("/playground").contains("No model is loaded."));
    let mut answer = String::new();
    none.open("POST /playground/ask", "text=a&column=base").read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    common::fails(&mut place.sibo(&["ui", "--adapter", "x"]), 2, &["--model"]);
}

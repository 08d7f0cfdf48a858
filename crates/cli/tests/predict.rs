//! `sibo predict`: a trained class head asked about texts without labels, its classes by the names that it learned.

mod common;

use common::{Place, fails, succeeds};
use serde_json::Value;

/// RTE's head, trained for some steps, in `out/`.
fn trained() -> Place {
    let place = Place::with("bert-pooler");
    place.rte();
    let train =
        ["train", "--model", "bert-pooler", "--task", "rte", "--output-dir", "out", "--max-steps", "6"];
    let more = [
        "--target-modules",
        "query,value",
        "--set",
        "training.cutoff_len=29",
        "--lambda",
        "0",
        "--learning-rate",
        "0.01",
    ];
    succeeds(place.sibo(&train).args(more));
    place
}

/// The answer's name, and the scores.
type Judged = (String, Vec<f32>);

/// The pairs of RTE's test rows, and what `sibo eval` kept of each: the answer's name and the scores.
fn asked(place: &Place) -> (Vec<[String; 2]>, Vec<Judged>) {
    let text = std::fs::read_to_string(place.join("data/glue/RTE/dev.tsv")).unwrap();
    let pair = |line: &str| {
        let parts: Vec<&str> = line.split('\t').collect();
        [parts[1].to_string(), parts[2].to_string()]
    };
    let pairs = text.lines().skip(1).map(pair).collect();
    let eval = [
        "eval",
        "--model",
        "bert-pooler",
        "--adapter",
        "out/adapter",
        "--tasks",
        "rte",
        "--output",
        "results",
    ];
    succeeds(place.sibo(&eval).arg("--log_samples"));
    let names = place.names("results");
    let file = names.iter().find(|name| name.starts_with("samples_rte")).unwrap();
    let samples = std::fs::read_to_string(place.join("results").join(file)).unwrap();
    let one = |line: &str| {
        let sample: Value = serde_json::from_str(line).unwrap();
        let mut scores = vec![];
        texts_of(&sample["resps"], &mut scores);
        let scores = scores.iter().map(|s| s.parse().unwrap()).collect();
        (sample["filtered_resps"][0].as_str().unwrap().to_string(), scores)
    };
    (pairs, samples.lines().map(one).collect())
}

fn texts_of(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Array(all) => all.iter().for_each(|v| texts_of(v, into)),
        Value::String(text) => into.push(text.clone()),
        _ => {}
    }
}

fn predicted(place: &Place, words: &[&str], stdin: &str) -> Vec<Value> {
    let out = succeeds(place.sibo(&["predict", "--json"]).args(words).write_stdin(stdin));
    serde_json::from_str(&out).unwrap()
}

#[test]
fn predictions_are_those_of_the_evaluation() {
    let place = trained();
    let (pairs, judged) = asked(&place);
    let with = ["--model", "bert-pooler", "--adapter", "out/adapter"];
    let lines: String = pairs.iter().map(|[a, b]| format!("{a}\t{b}\n")).collect();
    let found = predicted(&place, &[&with[..], &["--batch-size", "3"]].concat(), &lines);
    assert_eq!((found.len(), judged.len()), (14, 14));
    for ((row, pair), (answer, scores)) in found.iter().zip(&pairs).zip(&judged) {
        assert_eq!((row["text_a"].as_str(), row["text_b"].as_str()), (Some(&*pair[0]), Some(&*pair[1])));
        assert_eq!(row["label"].as_str(), Some(answer.as_str()));
        let share = 1.0 / (1.0 + (scores[1] - scores[0]).exp());
        let own = row["probabilities"]["entailment"].as_f64().unwrap();
        assert!((own - f64::from(share)).abs() < 1e-5, "{row}, {scores:?}");
    }
    let moved = |j: &Judged| (j.1[0] - judged[0].1[0]).abs() > 1e-3;
    assert!(judged.iter().any(moved), "one answer to all shows little");
    // Rows of a file, by the names of its columns.
    let rows: String = pairs
        .iter()
        .map(|[a, b]| serde_json::json!({"s1": a, "s2": b, "idx": 3}).to_string() + "\n")
        .collect();
    place.write("new.jsonl", rows);
    let of_file =
        predicted(&place, &[&with[..], &["--file", "new.jsonl", "--columns", "s1,s2"]].concat(), "");
    assert_eq!(of_file, predicted(&place, &with, &lines));
    // An adapter that is carried away from its run still knows its classes; so does the model that it is merged into.
    std::fs::create_dir(place.join("elsewhere")).unwrap();
    std::fs::rename(place.join("out/adapter"), place.join("elsewhere/own")).unwrap();
    let moved = ["--model", "bert-pooler", "--adapter", "elsewhere/own"];
    assert_eq!(predicted(&place, &moved, &lines), of_file);
    succeeds(place.sibo(&["merge", "--output", "merged"]).args(moved));
    let merged = predicted(&place, &["--model", "merged"], &lines);
    fails(&mut place.sibo(&["predict", "--model", "merged", "alone"]), 2, &["rte and reads pairs of texts"]);
    let names = |rows: &[Value]| rows.iter().map(|row| row["label"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&merged), names(&of_file));
    let table = succeeds(place.sibo(&["predict", &pairs[0][0], "--text-b", &pairs[0][1]]).args(moved));
    assert!(table.starts_with("class ") && table.contains("not_entailment"), "{table}");
}

#[test]
fn what_cannot_be_asked_is_said() {
    let place = trained();
    let with = ["predict", "--model", "bert-pooler", "--adapter", "out/adapter"];
    fails(
        place.sibo(&with).arg("the river"),
        2,
        &["row 1 of the texts given", "rte", "pairs of texts", "--text-b"],
    );
    fails(place.sibo(&with).args(["a", "b", "--text-b", "c"]), 2, &["--text-b belongs to one text"]);
    fails(place.sibo(&with).write_stdin("a\tb\n\tb\n"), 1, &["row 2 of stdin", "empty text"]);
    fails(place.sibo(&with).write_stdin(" \n"), 1, &["stdin: no text in it"]);
    fails(
        &mut place.sibo(&["predict", "--model", "bert-pooler", "a"]),
        2,
        &["bert-pooler: has no class head"],
    );
    // A checkpoint's adapter knows its run, and stays a head of pairs.
    let step = place.names("out/checkpoints")[0].clone();
    let of_step = format!("out/checkpoints/{step}/adapter");
    let early = ["predict", "--model", "bert-pooler", "--adapter", &of_step];
    fails(place.sibo(&early).arg("the river"), 2, &["rte and reads pairs of texts"]);
    let csv = place.write("a.csv", "text,label\na river,1\n");
    fails(place.sibo(&with).arg("--file").arg(&csv), 2, &["a.csv", "JSON lines and parquet"]);
    fails(place.sibo(&with).args(["--file", "a.csv", "--text-b", "c"]), 2, &["cannot be used with"]);
    // The last line ends with its tab: the second text is there, and empty.
    fails(place.sibo(&with).write_stdin("a\tb\nc\t\n"), 1, &["row 2 of stdin", "empty text"]);
    let marked = predicted(&place, &with[1..], "\u{feff}a river\tthe town\r\n\n");
    assert_eq!((marked.len(), &marked[0]["text_a"]), (1, &Value::from("a river")));
    place.write("out/adapter/head.json", "{\"id2label\": [\"a\"]}");
    fails(place.sibo(&with).arg("a"), 1, &["head.json", "no description of a class head"]);
    // Of another task with as many classes, the numbers are of other words.
    place.write(
        "out/adapter/head.json",
        r#"{"task": "mrpc", "id2label": {"0": "not_equivalent", "1": "equivalent"}}"#,
    );
    let eval = ["eval", "--model", "bert-pooler", "--adapter", "out/adapter", "--tasks", "rte"];
    let told = place.sibo(&eval).output().unwrap().stderr;
    let told = String::from_utf8(told).unwrap();
    assert!(
        told.contains("this head learned other classes of mrpc")
            && told.contains("equivalent for not_entailment"),
        "{told}"
    );
}

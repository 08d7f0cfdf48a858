use super::*;
use serde_json::json;
use std::path::PathBuf;

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The message of reading these bytes as a parquet file, or nothing where they are read.
fn said(bytes: &[u8]) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.parquet");
    std::fs::write(&path, bytes).unwrap();
    records(&path).err().map(|e| e.to_string())
}

#[test]
fn every_type_is_the_json_that_it_stands_for() {
    let rows = records(&data("parquet/types.parquet")).unwrap();
    assert_eq!(rows.iter().map(|row| row.place).collect::<Vec<_>>(), [1, 2, 3].map(Place::Row));
    let column =
        |name: &str| Value::from(rows.iter().map(|row| row.named(name).unwrap()).collect::<Vec<_>>());
    let expected = json!({
        "text": ["a", null, "grün"], "large": ["x", "y", null], "named": ["one", "two", "one"],
        "yes": [true, null, false], "tiny": [-1, null, 3], "unsigned": [9_223_372_036_854_775_808u64, 0, null],
        "half": [0.5, null, -2.0], "single": [3.8, null, null], "double": [1e-300, null, 0.1],
        "list": [["a", null], [], null], "lists": [[[1], []], null, [null, [2, 3]]],
        "struct": [{"n": 1, "s": null}, null, {"n": null, "s": "z"}],
        "turns": [[{"role": "user", "content": "hi"}], [], null],
    });
    let expected = expected.as_object().unwrap();
    expected.iter().for_each(|(name, values)| assert_eq!(&column(name), values, "{name}"));
    assert_eq!(rows[0].json().unwrap().len(), expected.len());
    assert_eq!(rows[2].named("struct.s"), Some("z".into()));
}

#[test]
fn columns_of_other_types_are_left_and_named() {
    let rows = records(&data("hub/ARC-Easy/data/test-00000-of-00001.parquet")).unwrap();
    assert_eq!(rows.len(), 3, "two row groups");
    let shown = rows[2].shown();
    assert!(
        shown.ends_with("`answerKey`; of a type that is not read: `picture` (bytes), `when` (timestamp)"),
        "{shown}"
    );
    let e = records(&data("parquet/bytes.parquet")).unwrap_err().to_string();
    assert!(
        e.contains("none of its columns holds text, numbers, lists or structs: `picture` (bytes)"),
        "{e}"
    );
}

#[test]
fn faults_of_files_are_sentences() {
    let whole = std::fs::read(data("parquet/alpaca.parquet")).unwrap();
    assert_eq!(said(&whole), None);
    let e = said(&whole[..whole.len() - 9]).unwrap();
    assert!(e.contains("f.parquet: cut short: a parquet file ends with PAR1"), "{e}");
    let e = said(b"<html>Sign in to read this file</html>").unwrap();
    assert!(
        e.contains("f.parquet: no parquet file: one begins with PAR1, this one of 38 bytes does not"),
        "{e}"
    );
    assert!(said(b"PAR1").unwrap().contains("no parquet file"));
    let mut locked = whole.clone();
    let end = locked.len() - 4;
    locked[end..].copy_from_slice(b"PARE");
    assert!(said(&locked).unwrap().contains("encrypted"));
    let e = records(&data("parquet/brotli.parquet")).unwrap_err().to_string();
    assert!(
        e.contains("column `instruction` is compressed with BROTLI; snappy, zstd, gzip and none are read"),
        "{e}"
    );
}

/// Bytes turned all over the files: what comes is rows or a sentence, in the time and memory of a small file.
#[test]
fn damage_is_a_sentence_or_other_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.parquet");
    let files = ["parquet/types.parquet", "hub/rte/train-00001-of-00002.parquet", "parquet/alpaca.parquet"];
    let (mut refused, mut asserted) = (0, 0);
    for name in files {
        let whole = std::fs::read(data(name)).unwrap();
        for at in (4..whole.len() - 4).step_by(2) {
            let mut turned = whole.clone();
            turned[at] ^= [0x01, 0x80, 0xff][at % 3];
            std::fs::write(&path, &turned).unwrap();
            let said = records(&path).err().map(|e| e.to_string()).unwrap_or_default();
            refused += usize::from(!said.is_empty());
            asserted += usize::from(said.contains(DAMAGED));
        }
    }
    assert!(refused > 300 && asserted > 0, "{refused} {asserted}");
}

//! Real tokenizers against ids that transformers 5.24 gave. They are not in the repository:
//! `scripts/get-models`, then `SIBO_MODELS=... cargo test -p sibo-text -- --ignored`.

use sibo_text::{
    EncodeOptions, Message, Purpose, Sample, StreamDecoder, Template, Tokenizer, encode_example,
};

fn load(name: &str) -> Tokenizer {
    let root = std::env::var("SIBO_MODELS").unwrap_or_else(|_| "../../models".into());
    Tokenizer::from_folder(&std::path::Path::new(&root).join(name)).expect("scripts/get-models has been run")
}

const ASKED: [u32; 38] = [
    1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182,
    2, 198, 1, 4093, 198, 1780, 314, 19173, 47, 19842, 281, 582, 6330, 30, 2, 198, 1, 520, 9531,
];

#[test]
#[ignore = "needs scripts/get-models smollm2-135m"]
fn smollm2() {
    let tokenizer = load("smollm2-135m");
    tokenizer.check_vocabulary(49_152).expect("its own vocabulary");
    let text = "3.14 naïve 日本 🎸\t\n  x = [1234]";
    let ids = tokenizer.encode(text, None).expect("encodes").ids;
    let wanted = [
        35, 30, 33, 36, 15486, 46494, 17097, 241, 115, 40993, 15107, 232, 133, 197, 3805, 1792, 446, 933, 33,
        34, 35, 36, 77,
    ];
    assert_eq!(ids, wanted);
    let mut stream = StreamDecoder::new();
    let pieces = ids.iter().map(|id| stream.push(&tokenizer, *id).expect("decodes"));
    assert_eq!(pieces.collect::<String>(), text);

    let template = Template::choose("chat", &tokenizer, 0).expect("it has one");
    let turns = vec![
        Message::new("user", "What is photosynthesis? Answer in one sentence."),
        Message::new("assistant", "Plants eat light."),
    ];
    let row = template.render(&Sample::Chat(turns), Purpose::Training).expect("renders");
    let options =
        EncodeOptions { cutoff: 512, train_on_inputs: false, add_eos: true, cut: Default::default() };
    let row = encode_example(&tokenizer, &row, &options).expect("encodes");
    assert_eq!(row.input_ids[..row.prompt_len - 1], ASKED);
    assert_eq!(row.input_ids.last(), Some(&2));
}

#[test]
#[ignore = "needs scripts/get-models minilm-l6 antiberty sapiens"]
fn encoders() {
    let pair = |name: &str, first: &str, second: &str| {
        let got = load(name).encode_pair(first, second, Some(20)).expect("encodes");
        (got.ids, got.type_ids)
    };
    let (ids, types) = pair(
        "minilm-l6",
        "What came into force after the new constitution was herald?",
        "As of that day, the new constitution heralding the Second Republic came into force.",
    );
    let wanted = [
        101, 2054, 2234, 2046, 2486, 2044, 1996, 2047, 4552, 102, 2004, 1997, 2008, 2154, 1010, 1996, 2047,
        4552, 9536, 102,
    ];
    assert_eq!((ids, types), (wanted.to_vec(), [[0; 10], [1; 10]].concat()));
    let (ids, types) = pair("antiberty", "EVQLVESGGG", "QVQ");
    assert_eq!(ids, [2, 8, 22, 18, 14, 22, 8, 20, 10, 10, 10, 3, 18, 22, 18, 3]);
    assert_eq!(types, [vec![0; 12], vec![1; 4]].concat());
    let (ids, types) = pair("sapiens-vh", "EVQLVESGGG", "QVQ");
    assert_eq!(ids, [0, 7, 21, 17, 13, 21, 7, 19, 9, 9, 9, 2, 2, 17, 21, 17, 2]);
    assert_eq!(types, [0; 17]);
}

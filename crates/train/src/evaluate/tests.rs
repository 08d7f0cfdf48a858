use super::*;
use crate::data::{Label, Limits};
use crate::prepare;
use crate::testing;
use sibo_model::{Batch, LoadOptions, Row};
use sibo_tasks::example::{Target, Text};
use sibo_text::Template;

struct Made {
    _dir: tempfile::TempDir,
    model: Model,
    tokenizer: Tokenizer,
    template: Template,
}

fn made(kind: &str, classes: Option<usize>) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let folder = testing::folder(dir.path(), kind);
    let model = Model::load(&folder, &LoadOptions { classes, ..LoadOptions::default() }).unwrap().model;
    let tokenizer = Tokenizer::from_folder(&folder).unwrap();
    let template = Template::choose("plain", &tokenizer, 0).unwrap();
    Made { _dir: dir, model, tokenizer, template }
}

fn split(examples: Vec<Example>) -> Split {
    let rows = examples.len();
    Split {
        examples,
        file: "made/up.tsv".into(),
        rows_in_file: rows + 2,
        official_rows: None,
        rows_in_split: rows,
        notes: vec!["made up".into()],
        variant: None,
        own_solutions: true,
    }
}

fn ask(m: &Made, task: &Task, split: &Split, options: &EvalOptions) -> Result<TaskEvaluation, Error> {
    let asked = Asked { model: &m.model, tokenizer: &m.tokenizer, template: &m.template };
    let mut seen = vec![];
    let out =
        evaluate(asked, task, split, options, &mut |done, of| seen.push((done, of)), &AtomicBool::new(false));
    if out.is_ok() {
        assert_eq!(seen.last(), Some(&(split.examples.len(), split.examples.len())));
    }
    out
}

fn pairs() -> Vec<Example> {
    let texts = [
        ("who is it?", "his dog"),
        ("where is the box", "in the house"),
        ("what", "red"),
        ("is it old?", "no"),
    ];
    let of = |(i, (a, b)): (usize, (&str, &str))| Example {
        id: 5 + 2 * i as u64,
        text: Text::Pair(a.into(), b.into()),
        target: Target::Class((i % 2) as u32),
    };
    texts.into_iter().enumerate().map(of).collect()
}

fn question(id: u64, question: &str, choices: &[&str], gold: usize) -> Example {
    let choices = choices.iter().map(|c| c.to_string()).collect();
    Example {
        id,
        text: Text::Question { question: question.into(), passage: None, scored: None },
        target: Target::Choice { choices, gold },
    }
}

#[test]
fn a_class_head_is_measured_row_by_row() {
    let m = made("bert", Some(2));
    let task = Task::named("qnli").unwrap();
    let split = split(pairs());
    let out = ask(&m, &task, &split, &EvalOptions { batch: 3, ..EvalOptions::default() }).unwrap();
    let limits = Limits { cutoff: 512, train_on_inputs: false };
    let mut right = 0;
    for (example, sample) in split.examples.iter().zip(&out.samples) {
        let row = crate::data::for_classes(
            &task,
            std::slice::from_ref(example),
            &m.tokenizer,
            m.model.arch(),
            &limits,
        )
        .unwrap();
        let alone = m.model.class_scores(&Batch::new(m.model.arch(), &[row.rows[0].row.clone()]).unwrap());
        let class = u32::from(alone.row(0)[1] > alone.row(0)[0]);
        assert_eq!(sample.filtered, [task.spec().labels[class as usize].clone()]);
        let is_right = row.rows[0].label == Label::Class(class);
        right += usize::from(is_right);
        assert_eq!(sample.metrics, [(Metric::Acc, f64::from(u8::from(is_right)))]);
        assert_eq!((sample.doc_id, sample.responses.len()), (example.id, 2));
    }
    assert_eq!(out.result.scores[0].score.value, right as f64 / 4.0);
    assert_eq!((out.result.effective, out.result.original), (4, 4));
    assert_eq!(out.result.config["notes"][0], "made up");
    let said =
        ask(&m, &Task::named("stsb").unwrap(), &split, &EvalOptions::default()).unwrap_err().to_string();
    assert_eq!(said, "task `stsb` needs a head with 1 output, and this model's has 2");
    let said =
        ask(&m, &Task::named("gsm8k").unwrap(), &split, &EvalOptions::default()).unwrap_err().to_string();
    assert!(said.contains("is for language models"), "{said}");
}

#[test]
fn a_class_head_says_once_how_many_rows_it_shortened() {
    let m = made("bert", Some(2));
    let task = Task::named("qnli").unwrap();
    let of = |cutoff| EvalOptions { batch: 3, cutoff, ..EvalOptions::default() };
    let whole = ask(&m, &task, &split(pairs()), &of(512)).unwrap();
    assert_eq!(whole.notes, Vec::<String>::new());
    let cut = ask(&m, &task, &split(pairs()), &of(6)).unwrap();
    let [note] = &cut.notes[..] else { panic!("one note: {:?}", cut.notes) };
    assert!(note.ends_with("rows were shortened to 6 tokens"), "{note}");
    assert_ne!(cut.samples[0].responses, whole.samples[0].responses);
    assert_eq!(cut.result.effective, 4);
}

#[test]
fn choices_are_scored_as_each_would_be_alone() {
    let m = made("llama", None);
    let task = Task::named("arc-easy").unwrap();
    let rows = vec![
        question(3, "Which is it?", &["a box", "the old dog", "an ox"], 1),
        question(4, "Who is in the house?", &["nobody", "his dog and her dog"], 0),
        question(9, "Is it red?", &["yes", "no", "it was"], 2),
    ];
    let options = EvalOptions { protocol: Protocol::LmEval, batch: 2, ..EvalOptions::default() };
    let out = ask(&m, &task, &split(rows.clone()), &options).unwrap();
    let mut right = [0, 0];
    for (example, sample) in rows.iter().zip(&out.samples) {
        let Target::Choice { choices, gold } = &example.target else { panic!() };
        let request = task.choose(example, Protocol::LmEval).unwrap();
        let likelihood = |continuation: &String| {
            let (before, after) =
                sibo_text::encode_continuation(&m.tokenizer, &request.contexts[0], continuation).unwrap();
            let ids = [before.clone(), after].concat();
            let batch = Batch::new(m.model.arch(), &[Row { ids: ids.clone(), ..Row::default() }]).unwrap();
            let mut sum = 0.0;
            m.model.hidden_states(&batch, |layer, states| {
                if layer == m.model.arch().layers {
                    let mut scores = m.model.token_scores(states);
                    sibo_kernels::loss::log_softmax(&mut scores);
                    sum = (before.len()..ids.len())
                        .map(|t| f64::from(scores.row(t - 1)[ids[t] as usize]))
                        .sum();
                }
            });
            sum
        };
        let expected: Vec<f64> = request.continuations.iter().map(likelihood).collect();
        let found: Vec<f64> = sample.responses.iter().map(|r| r.parse().unwrap()).collect();
        assert!(expected.iter().zip(&found).all(|(a, b)| (a - b).abs() < 1e-4), "{expected:?} {found:?}");
        let best = |norm: &dyn Fn(usize) -> f64| {
            (0..choices.len()).max_by(|a, b| norm(*a).total_cmp(&norm(*b))).unwrap()
        };
        right[0] += usize::from(best(&|i| expected[i]) == *gold);
        right[1] += usize::from(best(&|i| expected[i] / choices[i].len() as f64) == *gold);
    }
    let values: Vec<f64> = out.result.scores.iter().map(|s| s.score.value).collect();
    assert_eq!(values, right.map(|r| r as f64 / 3.0));
    let named: Vec<Metric> = out.result.scores.iter().map(|s| s.metric).collect();
    assert_eq!(named, [Metric::Acc, Metric::AccNorm]);
}

#[test]
fn a_shared_context_gives_what_whole_rows_give() {
    use super::shared::{Tree, score};
    let ids = |seed: u64, n: u64| {
        (0..n).map(|i| 3 + testing::number(100 * seed + i, 68) as u32).collect::<Vec<_>>()
    };
    let trees = [
        Tree { context: ids(1, 7), continuations: vec![ids(2, 3), ids(3, 1), ids(4, 5)] },
        Tree { context: ids(5, 1), continuations: vec![ids(6, 2)] },
        Tree { context: ids(7, 4), continuations: vec![ids(8, 1), ids(9, 1)] },
    ];
    // With an injection that acts: the adapter's B is zero until it is moved.
    let mut model = testing::model("llama-gqa", testing::sibo_lora(&["q_proj", "up_proj"]));
    model.params_mut().iter_mut().for_each(|p| p.value.iter_mut().for_each(|v| *v += 0.07));
    let found = score(&model, &trees).unwrap();
    for (tree, found) in trees.iter().zip(&found) {
        for (continuation, found) in tree.continuations.iter().zip(found) {
            let row = Row { ids: [tree.context.clone(), continuation.clone()].concat(), ..Row::default() };
            let learned = continuation.iter().map(|id| i64::from(*id));
            let labels = std::iter::repeat_n(-100, tree.context.len()).chain(learned).collect();
            let batch = Batch::new(model.arch(), &[row]).unwrap();
            let alone = model.row_scores(&batch, &[labels])[0].log_prob;
            assert!((alone - found).abs() < 1e-5, "{alone} {found}");
        }
    }
    let broken = Tree { context: vec![4, 900], continuations: vec![vec![5]] };
    assert!(score(&model, &[broken]).unwrap_err().to_string().contains("token id 900 is out of range"));
}

#[test]
fn written_answers_are_read_and_recorded_for_each_reading() {
    let m = made("llama", None);
    let task = Task::named("gsm8k").unwrap();
    let row = |id, question: &str, gold: &str| Example {
        id,
        text: Text::Question { question: question.into(), passage: None, scored: None },
        target: Target::Answer { gold: gold.into(), solution: None },
    };
    let rows = split(vec![
        row(3, "What is 7 + 5?", "12"),
        row(4, "How many dogs are in the house and the old box?", "3"),
        row(8, "1?", "2"),
    ]);
    let options = EvalOptions { max_new_tokens: Some(9), batch: 2, ..EvalOptions::default() };
    let out = ask(&m, &task, &rows, &options).unwrap();
    let filters: Vec<&str> = out.result.scores.iter().map(|s| s.filter.as_str()).collect();
    assert_eq!(filters, ["last-number", "strict-match"]);
    assert_eq!(out.samples.len(), 6);
    assert_eq!(out.result.without_answer.len(), 2);
    // Each row is written as it would be alone.
    for (i, example) in rows.examples.iter().enumerate() {
        let alone = ask(&m, &task, &split(vec![example.clone()]), &options).unwrap();
        assert_eq!(alone.samples[0].responses, out.samples[2 * i].responses);
        let request = task.generate(example, Protocol::Clean).unwrap();
        let rendered = crate::data::render_prompt(&request.prompt, &m.template).unwrap();
        let ids = sibo_text::encode_prompt(&m.tokenizer, &rendered).unwrap();
        let mut new = sibo_model::greedy(&m.model, &[ids], 9, m.tokenizer.stop_ids()).unwrap().remove(0);
        new.retain(|id| !m.tokenizer.stop_ids().contains(id));
        assert_eq!(out.samples[2 * i].responses[0], m.tokenizer.decode(&new).unwrap());
    }
    let beams = ask(&m, &task, &rows, &EvalOptions { beams: Some(3), ..options }).unwrap();
    assert!(beams.samples[0].arguments[0].1.contains("\"num_beams\":3"));
}

#[test]
fn gold_texts_are_judged_by_what_each_token_alone_would_have() {
    let m = made("llama", None);
    let task = Task::named("gsm8k").unwrap();
    let row = |id: u64, question: &str, gold: &str, solution: &str| Example {
        id,
        text: Text::Question { question: question.into(), passage: None, scored: None },
        target: Target::Answer { gold: gold.into(), solution: Some(solution.into()) },
    };
    let rows = vec![
        row(3, "How old is the dog?", "17", "It is 9 and 8.\n#### 17"),
        row(4, "Where is it?", "3", "In the house are 3.\n#### 3"),
        row(8, "What is red and old?", "241", "the box\n#### 241"),
    ];
    for protocol in [Protocol::Clean, Protocol::LmEval] {
        let options = EvalOptions { protocol, by: By::Likelihood, batch: 2, ..EvalOptions::default() };
        let out = ask(&m, &task, &split(rows.clone()), &options).unwrap();
        let names: Vec<String> =
            out.result.scores.iter().map(|s| format!("{},{}", s.metric.name(), s.filter)).collect();
        let wanted = ["loglik_token,reasoning", "loglik_token,answer", "loglik,reasoning", "loglik,answer"];
        assert_eq!(names, wanted);
        for (at, (metric, filter, predictions)) in out.predictions.iter().enumerate() {
            let Predictions::Each(values) = predictions else { panic!() };
            let mut mean = 0.0;
            for (example, value) in rows.iter().zip(values) {
                let Target::Answer { gold, solution: Some(solution) } = &example.target else { panic!() };
                let space = if protocol == Protocol::LmEval { " " } else { "" };
                let text = format!("{space}{}", if filter == "answer" { gold } else { solution });
                let request = task.generate(example, protocol).unwrap();
                let shown = crate::data::render_prompt(&request.prompt, &m.template).unwrap().prompt;
                // The tokens that the whole text has, unless one straddles the joint: what is written begins anew.
                let before = m.tokenizer.encode_prompt(&shown).unwrap();
                let joint = m.tokenizer.encode_prompt(&format!("{shown}{text}")).unwrap();
                let apart = [before.clone(), m.tokenizer.encode_bare(&text).unwrap()].concat();
                let whole = if joint.starts_with(&before) { joint } else { apart };
                let sum: f64 = (before.len()..whole.len())
                    .map(|t| {
                        let part = Row { ids: whole[..=t].to_vec(), ..Row::default() };
                        let mut labels = vec![-100; t];
                        labels.push(i64::from(whole[t]));
                        let batch = Batch::new(m.model.arch(), &[part]).unwrap();
                        m.model.row_scores(&batch, &[labels])[0].log_prob
                    })
                    .sum();
                let tokens = (whole.len() - before.len()) as f64;
                let expected = if *metric == Metric::Loglik { sum } else { sum / tokens };
                assert!((value - expected).abs() < 1e-4, "{protocol} {filter}: {value} for {expected}");
                mean += expected / rows.len() as f64;
            }
            assert!((out.result.scores[at].score.value - mean).abs() < 1e-4);
            assert!(out.result.scores[at].score.stderr.unwrap() > 0.0);
        }
        assert_eq!(out.samples.len(), 6);
        assert_eq!(out.result.config["judged_by"], "likelihood");
    }
    let options =
        EvalOptions { protocol: Protocol::LlmAdapters, by: By::Likelihood, ..EvalOptions::default() };
    assert_eq!(ask(&m, &task, &split(rows.clone()), &options).unwrap().samples.len(), 6);
    // Of solutions that another model wrote, those count that reach the right answer.
    let mut others = rows.clone();
    others.push(row(9, "Who is it?", "5", "It was 2 and 2, so 4."));
    let others = Split { own_solutions: false, ..split(others) };
    let options = EvalOptions { by: By::Likelihood, ..EvalOptions::default() };
    let out = ask(&m, &task, &others, &options).unwrap();
    let found: Vec<(&str, usize)> = out.predictions.iter().map(|(_, f, p)| (f.as_str(), p.len())).collect();
    assert_eq!(found[..2], [("answer", 4), ("others-reasoning", 3)]);
    assert_eq!(out.result.effective, 4);
    let choices = vec![question(3, "Which is it?", &["a box", "the old dog"], 1)];
    let out = ask(&m, &Task::named("arc-easy").unwrap(), &split(choices), &options).unwrap();
    assert_eq!(out.samples[0].target, "the correct answer is answer2");
}

#[test]
fn an_interruption_keeps_the_rows_that_are_done() {
    let m = made("bert", Some(2));
    let task = Task::named("qnli").unwrap();
    let asked = Asked { model: &m.model, tokenizer: &m.tokenizer, template: &m.template };
    let options = EvalOptions { batch: 1, ..EvalOptions::default() };
    let flag = AtomicBool::new(false);
    let mut stop_at_2 = |done: usize, _: usize| flag.store(done == 2, Ordering::Relaxed);
    let out = evaluate(asked, &task, &split(pairs()), &options, &mut stop_at_2, &flag).unwrap();
    assert!(out.interrupted && out.result.effective == 2 && out.samples.len() == 2);
}

#[test]
fn a_model_without_an_answer_is_refused() {
    let m = made("bert", None);
    let said = ask(&m, &Task::named("qnli").unwrap(), &split(pairs()), &EvalOptions::default()).unwrap_err();
    assert!(said.to_string().contains("needs a model with an answer"), "{said}");
    assert_eq!(prepare::class_outputs(&Task::named("stsb").unwrap()), Some(1));
}

//! Rows together are rows alone.

use sibo_model::{Decoder, Dropout, Labels, Model};
use sibo_tests::measure::{Input, far_apart, gradients, hidden, names, scores};
use sibo_tests::table::{Boost, Case};

/// Of the largest entry, in f32: issue 4.
const CLOSE: f32 = 1e-5;
/// The same for sums of gradients.
const GRADIENT: f32 = 1e-6;
/// Tensors below this share of the largest gradient are held to the absolute error that it allows: the gradient of
/// BERT's key bias is zero but for rounding, since softmax ignores what is added to all scores of a query.
const NOISE: f32 = 1e-1;

pub(super) fn batch_is_alone(case: &Case) -> Vec<String> {
    let mut model = case.trained();
    let input = Input::usual(&model);
    let together = scores(&model, &input.batch(&model));
    let mut wrong = Vec::new();
    let mut sum = 0.0;
    for row in 0..input.rows.len() {
        let one = input.select(&[row]);
        let alone = scores(&model, &one.batch(&model)).remove(0);
        let name = format!("scores of row {row}");
        wrong.extend(far_apart([(name.as_str(), &together[row][..], &alone[..])], CLOSE, 0.0));
        sum += model.loss(&one.batch(&model), &one.labels).loss_sum;
    }
    let whole = model.loss(&input.batch(&model), &input.labels).loss_sum;
    if (whole - sum).abs() > f64::from(CLOSE) * sum.abs() {
        wrong.push(format!("loss {whole}, row by row {sum}"));
    }
    wrong
}

pub(super) fn packed_is_unpacked(case: &Case) -> Vec<String> {
    let model = case.trained();
    let input = Input::usual(&model);
    let order = [2, 0, 3, 1];
    let packed = hidden(&model, &input.select(&order).batch(&model));
    let mut wrong = Vec::new();
    for (place, row) in order.into_iter().enumerate() {
        let alone = hidden(&model, &input.select(&[row]).batch(&model));
        for (layer, (a, b)) in packed.iter().zip(&alone).enumerate() {
            let name = format!("layer {layer} of row {row}");
            wrong.extend(far_apart([(name.as_str(), &a[place][..], &b[0][..])], CLOSE, 0.0));
        }
    }
    wrong
}

/// With dropout: the masks are addressed, so the micro-batches see those of the whole batch.
pub(super) fn accumulated_is_whole(case: &Case) -> Vec<String> {
    let mut model = case.trained();
    let input = Input::new(&model, &[6, 2, 9, 3, 5], 40);
    let names = names(&model);
    let mut wrong = Vec::new();
    for dropout in [None, Some(Dropout { seed: 17, epoch: 4, base: true })] {
        let whole = gradients(&mut model, &input, dropout, false).1;
        model.params_mut().zero_grads();
        for part in [&[3, 0][..], &[4], &[1, 2]] {
            let part = input.select(part);
            let batch = part.batch(&model);
            model.forward_backward(&batch, &part.labels, 1.0, dropout, false);
        }
        let parts: Vec<Vec<f32>> = model.params().iter().map(|p| p.grad.clone()).collect();
        let pairs =
            names.iter().zip(parts.iter().zip(&whole)).map(|(n, (a, b))| (n.as_str(), &a[..], &b[..]));
        wrong.extend(far_apart(pairs, GRADIENT, NOISE));
    }
    wrong
}

/// Token by token and in chunks that are uneven between rows; then rows are dropped, repeated and reordered.
pub(super) fn cached_is_recomputed(case: &Case) -> Option<Vec<String>> {
    if !case.backbone.family.is_decoder() {
        return None;
    }
    let model = case.trained();
    // `dynamic` scaling has no exact cache beyond its original length of 5.
    let lengths = if case.backbone.name == "llama-dynamic" { [5, 5, 5] } else { [9, 9, 9] };
    let input = Input::new(&model, &lengths, 40);
    let rows: Vec<Vec<u32>> = input.rows.iter().map(|r| r.ids.clone()).collect();
    let whole = scores(&model, &input.batch(&model));
    let vocab = model.arch().vocab;
    let at = |row: usize, t: usize| &whole[row][t * vocab..(t + 1) * vocab];
    let mut wrong = Vec::new();
    let mut decoder = Decoder::new(&model, 3);
    for t in 0..lengths[0] {
        let fed = decoder.feed(&rows.iter().map(|r| vec![r[t]]).collect::<Vec<_>>());
        for row in 0..3 {
            let name = format!("row {row}, token {t}");
            wrong.extend(far_apart([(name.as_str(), fed.row(row), at(row, t))], CLOSE, 0.0));
        }
    }
    wrong.extend(chunks(&model, &rows, at));
    Some(wrong)
}

fn chunks<'a>(model: &Model, rows: &[Vec<u32>], at: impl Fn(usize, usize) -> &'a [f32]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut decoder = Decoder::new(model, 3);
    let mut compare = |what: &str, got: &[f32], row: usize, t: usize| {
        let name = format!("{what}: row {row}, token {t}");
        wrong.extend(far_apart([(name.as_str(), got, at(row, t))], CLOSE, 0.0));
    };
    let first: Vec<Vec<u32>> = vec![rows[0][..2].to_vec(), rows[1][..1].to_vec(), rows[2][..3].to_vec()];
    let fed = decoder.feed(&first);
    for (row, t) in [(0, 1), (1, 0), (2, 2)] {
        compare("first chunk", fed.row(row), row, t);
    }
    // Rows 2, 1, 1: row 0 leaves, row 1 is repeated, the order turns.
    decoder.select(&[2, 1, 1]);
    let fed = decoder.feed(&[rows[2][3..4].to_vec(), rows[1][1..4].to_vec(), rows[1][1..2].to_vec()]);
    for (place, row, t) in [(0, 2, 3), (1, 1, 3), (2, 1, 1)] {
        compare("second chunk", fed.row(place), row, t);
    }
    let fed = decoder.feed(&[rows[2][4..].to_vec(), rows[1][4..].to_vec(), rows[1][2..].to_vec()]);
    for (place, row) in [(0, 2), (1, 1), (2, 1)] {
        compare("third chunk", fed.row(place), row, rows[row].len() - 1);
    }
    wrong
}

/// A head's loss is taken in chunks of 256 labelled tokens; a batch with more of them is still the sum of its parts.
#[test]
fn more_labels_than_a_chunk() {
    for case in Case::all().into_iter().filter(|c| c.method.name == "lora-saved" && c.boost == Boost::Sibo) {
        if !case.backbone.family.is_decoder() {
            continue;
        }
        let mut model = case.trained();
        let input = Input::new(&model, &[19; 41], 40);
        let names = names(&model);
        let (whole, together) = gradients(&mut model, &input, None, false);
        let scores = model.row_scores(&input.batch(&model), tokens(&input));
        model.params_mut().zero_grads();
        let mut sum = 0.0;
        for row in 0..input.rows.len() {
            let one = input.select(&[row]);
            let batch = one.batch(&model);
            let loss = model.forward_backward(&batch, &one.labels, 1.0, None, false).loss_sum;
            assert!((loss + scores[row].log_prob).abs() < 1e-5 * loss.abs(), "{}: row {row}", case.name());
            sum += loss;
        }
        assert!((whole - sum).abs() < 1e-6 * sum, "{}: {whole} is not {sum}", case.name());
        let alone: Vec<Vec<f32>> = model.params().iter().map(|p| p.grad.clone()).collect();
        let pairs =
            names.iter().zip(together.iter().zip(&alone)).map(|(n, (a, b))| (n.as_str(), &a[..], &b[..]));
        // Forty times as many terms as in `accumulated_is_whole`.
        let wrong = far_apart(pairs, CLOSE, NOISE);
        assert!(wrong.is_empty(), "{}: {}", case.name(), wrong.join("\n"));
    }
}

fn tokens(input: &Input) -> &[Vec<i64>] {
    match &input.labels {
        Labels::Tokens(labels) => labels,
        _ => &[],
    }
}

//! Samples side by side: the rows that the two arms of a study's first pair answer most differently.

use super::{Finding, Study};
use sibo_report::{Cell, Column, Table};
use sibo_tasks::metrics::Predictions;
use sibo_tasks::{Example, SplitName, Target, Task, Wanted};
use sibo_train::cells::{Pairing, Question};
use sibo_train::own_rows::OwnRows;
use sibo_train::recipe::Source;

/// Rows in each direction.
const MOST: usize = 5;
/// Characters of a row's text that are shown.
const LENGTH: usize = 240;

/// What the section says.
pub(super) const NOTE: &str = "The rows that the two answer most differently over the seeds, in both directions: what a difference is \
    made of, not how large it is.";

/// The table; none where there is no pair, or its rows are not at hand any more.
pub(super) fn table(
    study: &Study,
    f: &Finding,
    question: Option<&Question>,
) -> anyhow::Result<Option<Table>> {
    let (Some(pair), Some(question)) = (f.pairs.first(), question) else { return Ok(None) };
    let [a, b] = [&pair.a, &pair.b].map(|arm| answers(f, question, arm));
    let rows = rows(study, question)?;
    let lengths = a.iter().chain(&b).map(|p| p.len());
    if a.is_empty() || b.is_empty() || lengths.clone().any(|n| n != rows.len()) {
        return Ok(None);
    }
    let shown = most_different(&a, &b, rows.len());
    if shown.is_empty() {
        return Ok(None);
    }
    let names = study.tasks.iter().find(|task| task.name() == question.task).map_or(&[][..], Task::labels);
    let mut table = Table::new(format!("{}: {}", question.text(), named(pair)))
        .column(Column::text("text"))
        .column(Column::text("right answer"))
        .column(Column::text(pair.a.clone()))
        .column(Column::text(pair.b.clone()));
    for at in shown {
        let row: Vec<Cell> = vec![
            short(&rows[at].all_text()).into(),
            right_answer(&rows[at], names).into(),
            said(&a, at, &rows[at], names).into(),
            said(&b, at, &rows[at], names).into(),
        ];
        table.push(row);
    }
    Ok(Some(table))
}

fn named(pair: &Pairing) -> String {
    format!("{} and {}", pair.a, pair.b)
}

/// An arm's answers to a question, seed by seed.
fn answers<'f>(f: &'f Finding, question: &Question, arm: &str) -> Vec<&'f Predictions> {
    let own = f.records.iter().filter(|r| r.arm == arm && r.diverged.is_none());
    own.filter_map(|r| Some(&question.of(r)?.predictions)).collect()
}

/// The rows that a question is about, in the order of the answers.
fn rows(study: &Study, question: &Question) -> anyhow::Result<Vec<Example>> {
    let split = SplitName::ALL.into_iter().find(|split| split.to_string() == question.split);
    let Some(split) = split else { return Ok(vec![]) };
    for judge in study.judges(split)? {
        if matches!(study.recipe.source, Source::File { .. }) && judge.task == question.task {
            return Ok(OwnRows::read(&study.recipe, &study.places)?.split(split, judge.limit));
        }
        let task = Task::open(&judge.task)?;
        if task.name() == question.task {
            let wanted = Wanted { limit: judge.limit, ..study.recipe.wanted(&judge.task) };
            return Ok(task.load(&study.places.root, split, &wanted)?.examples);
        }
    }
    Ok(vec![])
}

/// How good an answer to a row is: right or not, near or far, likely or not.
fn worth(answers: &Predictions, at: usize) -> f64 {
    match answers {
        Predictions::Classes { gold, predicted } => f64::from(u8::from(gold[at] == predicted[at])),
        Predictions::Right(right) => f64::from(u8::from(right[at])),
        Predictions::Values { gold, predicted } => -(gold[at] - predicted[at]).abs(),
        Predictions::Each(values) => values[at],
    }
}

/// Rows where the second's answers are better than the first's, most so first, then those where they are worse.
fn most_different(a: &[&Predictions], b: &[&Predictions], rows: usize) -> Vec<usize> {
    let mean = |of: &[&Predictions], at| of.iter().map(|p| worth(p, at)).sum::<f64>() / of.len() as f64;
    let mut all: Vec<(f64, usize)> = (0..rows).map(|at| (mean(b, at) - mean(a, at), at)).collect();
    all.retain(|(difference, _)| *difference != 0.0 && difference.is_finite());
    // Stable, so that of equals the first rows are shown.
    all.sort_by(|x, y| y.0.total_cmp(&x.0));
    let better = all.iter().filter(|d| d.0 > 0.0).take(MOST);
    let mut worse: Vec<&(f64, usize)> = all.iter().filter(|d| d.0 < 0.0).collect();
    worse.sort_by(|x, y| x.0.total_cmp(&y.0));
    better.chain(worse.into_iter().take(MOST)).map(|d| d.1).collect()
}

fn right_answer(row: &Example, names: &[String]) -> String {
    match &row.target {
        Target::Class(class) => class_name(*class, row, names),
        Target::Choice { gold, .. } => class_name(*gold as u32, row, names),
        Target::Value(value) => format!("{value}"),
        Target::Answer { gold, .. } => gold.clone(),
        Target::Response(text) => short(text),
        Target::InText => String::new(),
    }
}

fn class_name(class: u32, row: &Example, names: &[String]) -> String {
    let choice = match &row.target {
        Target::Choice { choices, .. } => choices.get(class as usize),
        _ => names.get(class as usize),
    };
    choice.map_or_else(|| format!("class {class}"), |name| short(name))
}

/// `negative 3, positive 2` of five seeds; `right 2 of 3`; the mean of numbers.
fn said(answers: &[&Predictions], at: usize, row: &Example, names: &[String]) -> String {
    let mean =
        |of: &dyn Fn(&Predictions) -> f64| answers.iter().map(|p| of(p)).sum::<f64>() / answers.len() as f64;
    match answers[0] {
        Predictions::Classes { .. } => {
            let mut counts: Vec<(u32, usize)> = Vec::new();
            for own in answers {
                let Predictions::Classes { predicted, .. } = own else { continue };
                match counts.iter_mut().find(|c| c.0 == predicted[at]) {
                    Some(count) => count.1 += 1,
                    None => counts.push((predicted[at], 1)),
                }
            }
            counts.sort_by_key(|c| (std::cmp::Reverse(c.1), c.0));
            let one = |c: &(u32, usize)| match answers.len() {
                1 => class_name(c.0, row, names),
                _ => format!("{} {}", class_name(c.0, row, names), c.1),
            };
            counts.iter().map(one).collect::<Vec<_>>().join(", ")
        }
        Predictions::Right(_) => {
            let right = answers.iter().filter(|p| worth(p, at) > 0.5).count();
            format!("right {right} of {}", answers.len())
        }
        Predictions::Values { .. } => format!(
            "{:.2}",
            mean(&|p| match p {
                Predictions::Values { predicted, .. } => predicted[at],
                _ => f64::NAN,
            })
        ),
        Predictions::Each(_) => format!("{:.3}", mean(&|p| worth(p, at))),
    }
}

fn short(text: &str) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match one_line.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{} ...", &one_line[..end]),
        None => one_line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_that_differ_most_stand_first_in_both_directions() {
        let classes = |predicted: &[u32]| Predictions::Classes {
            gold: vec![1, 0, 1, 1],
            predicted: predicted.to_vec(),
        };
        let (a1, a2) = (classes(&[1, 0, 0, 0]), classes(&[1, 1, 0, 1]));
        let (b1, b2) = (classes(&[0, 0, 1, 1]), classes(&[1, 1, 1, 1]));
        let (a, b) = (vec![&a1, &a2], vec![&b1, &b2]);
        // Row 2 is won twice, row 3 once, row 0 lost once; row 1 is the same.
        assert_eq!(most_different(&a, &b, 4), [2, 3, 0]);
        let names = ["no", "yes"].map(String::from);
        let row =
            Example { id: 0, text: sibo_tasks::Text::Single("a  b\nc".into()), target: Target::Class(1) };
        assert_eq!(said(&a, 1, &row, &names), "no 1, yes 1");
        assert_eq!(said(&a, 2, &row, &names), "no 2");
        assert_eq!((right_answer(&row, &names).as_str(), short(&row.all_text()).as_str()), ("yes", "a b c"));
        assert_eq!(said(&[&b1], 3, &row, &names), "yes");
        let values = Predictions::Values { gold: vec![2.0], predicted: vec![3.5] };
        assert_eq!((worth(&values, 0), said(&[&values], 0, &row, &[]).as_str()), (-1.5, "3.50"));
        let right = Predictions::Right(vec![true]);
        assert_eq!(said(&[&right, &Predictions::Right(vec![false])], 0, &row, &[]), "right 1 of 2");
        assert!(short(&"é".repeat(900)).ends_with(" ..."));
    }
}

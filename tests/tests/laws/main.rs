//! The laws: one table of cases (`sibo_tests::table`), one `check` for each law. A combination that no one can
//! train must be refused with a sentence; all others must hold to every law that speaks of them.

mod batches;
mod dropout;
mod files;
mod gradient;
mod leak;
mod likelihood;
mod padding;
mod resumed;
mod same_bits;
mod start;
mod streamed;

use sibo_tests::table::Case;

/// What every case must hold to.
#[derive(Debug, Clone, Copy)]
enum Law {
    /// A fresh adapter leaves the model as it is, where its initialisation promises that.
    Identity,
    /// A gradient is exactly zero before the first update if and only if the parameter says so.
    FirstGradients,
    /// Gradients are derivatives.
    Gradient,
    /// The padding token's rows never learn.
    Padding,
    /// What is saved and loaded again computes the same bits.
    SaveLoad,
    /// A run that goes on from a checkpoint ends where an uninterrupted one ends.
    Resumed,
    /// Lambda 0 is the plain method to the bit.
    LambdaZero,
    /// A row of a batch gets what it gets alone.
    Batch,
    /// Every hidden state of packed rows is that of the rows alone, in any order of packing.
    Packed,
    /// Gradients of micro-batches add up to the whole batch's.
    Accumulated,
    /// A cache, fed token by token or in uneven chunks, gives what recomputation gives.
    Cached,
    /// The likelihood of labelled tokens is the log softmax of their scores.
    Likelihood,
    /// Recomputed layers give the same gradients to the bit.
    Recompute,
    /// Layers that are read in their turn give what layers in memory give, to the bit.
    Streamed,
    /// One thread and two give the same bits.
    Threads,
    /// Plain and SIBO drop the same entries; layers, sites, epochs and samples drop others.
    Masks,
    /// No token of one row changes anything of another.
    Leak,
}

/// Whether `law` holds for `case`: nothing, or what is wrong. `None`: the law does not speak of this case.
fn check(law: Law, case: &Case) -> Option<Vec<String>> {
    match law {
        Law::Identity => start::identity(case),
        Law::FirstGradients => start::first_gradients(case),
        Law::Gradient => gradient::is_the_derivative(case),
        Law::Padding => padding::does_not_learn(case),
        Law::SaveLoad => Some(files::save_load(case)),
        Law::Resumed => resumed::resumed_is_uninterrupted(case),
        Law::LambdaZero => same_bits::lambda_zero(case),
        Law::Batch => Some(batches::batch_is_alone(case)),
        Law::Packed => Some(batches::packed_is_unpacked(case)),
        Law::Accumulated => Some(batches::accumulated_is_whole(case)),
        Law::Cached => batches::cached_is_recomputed(case),
        Law::Likelihood => likelihood::is_the_log_softmax(case),
        Law::Recompute => Some(same_bits::recompute(case)),
        Law::Streamed => streamed::streamed_is_resident(case),
        Law::Threads => same_bits::threads(case),
        Law::Masks => dropout::masks(case),
        Law::Leak => Some(leak::nothing_leaks(case)),
    }
}

/// Checks `law` on all cases that are not refused, of which at least `at_least` must be spoken of.
fn hold(law: Law, at_least: usize) {
    let mut spoken = 0;
    let mut lines = Vec::new();
    for case in Case::all().into_iter().filter(|c| c.refusal().is_none()) {
        let Some(wrong) = check(law, &case) else { continue };
        spoken += 1;
        lines.extend(wrong.into_iter().map(|w| format!("{}: {w}", case.name())));
    }
    let shown = lines.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
    assert!(lines.is_empty(), "{law:?}: {} of {spoken} cases and tensors:\n{shown}", lines.len());
    assert!(spoken >= at_least, "{law:?} speaks of {spoken} cases only");
}

#[test]
fn what_no_one_can_train_is_refused_with_a_sentence() {
    let mut refused = 0;
    for case in Case::all() {
        match (case.fresh(), case.refusal()) {
            (Ok(_), None) => {}
            (Err(why), Some(part)) if why.contains(part) => refused += 1,
            (Ok(_), Some(part)) => panic!("{}: not refused with `{part}`", case.name()),
            (Err(why), expected) => panic!("{}: refused with `{why}`, expected {expected:?}", case.name()),
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn identity_at_initialisation() {
    hold(Law::Identity, 200);
}

#[test]
fn first_gradients_are_zero_where_said() {
    hold(Law::FirstGradients, 400);
}

#[test]
fn gradient_is_the_derivative() {
    hold(Law::Gradient, 150);
}

#[test]
fn padding_does_not_learn() {
    hold(Law::Padding, 20);
}

#[test]
fn save_and_load_to_the_bit() {
    hold(Law::SaveLoad, 400);
}

#[test]
fn resumed_is_uninterrupted_to_the_bit() {
    hold(Law::Resumed, 50);
}

#[test]
fn lambda_zero_is_plain_to_the_bit() {
    hold(Law::LambdaZero, 100);
}

#[test]
fn batch_is_alone() {
    hold(Law::Batch, 400);
}

#[test]
fn packed_is_unpacked() {
    hold(Law::Packed, 400);
}

#[test]
fn accumulated_is_whole() {
    hold(Law::Accumulated, 400);
}

#[test]
fn cached_is_recomputed() {
    hold(Law::Cached, 200);
}

#[test]
fn likelihood_is_the_log_softmax() {
    hold(Law::Likelihood, 200);
}

#[test]
fn recompute_to_the_bit() {
    hold(Law::Recompute, 400);
}

#[test]
fn streamed_is_resident_to_the_bit() {
    hold(Law::Streamed, 50);
}

#[test]
fn one_thread_is_two_threads_to_the_bit() {
    hold(Law::Threads, 50);
}

#[test]
fn masks_are_addressed() {
    hold(Law::Masks, 20);
}

#[test]
fn nothing_leaks_between_rows() {
    hold(Law::Leak, 400);
}

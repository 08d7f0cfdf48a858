//! `sibo overhead`: what a method costs on a model, and what SIBO adds to it: counted, planned and measured.

use crate::app::App;
use crate::exit::usage;
use crate::places::{CutArgs, NumbersArgs};
use crate::trial::{MethodArgs, Shape};
use serde_json::{Value, json};
use sibo_kernels::{pool, work};
use sibo_model::{Batch, Dropout, Labels, LoadOptions, Model, PlanInput, Recompute, StepCount};
use sibo_report::plot::{WIDE, stand_alone};
use sibo_report::{Axis, Cell, Column, LineChart, Series, Table, Tone, terminal};
use sibo_train::optim::Optimiser;
use std::path::PathBuf;
use std::time::Instant;

const LONG_ABOUT: &str = "\
Takes training steps on random rows of several shapes, with the method alone and with SIBO on it, in turn, and sets \
side by side what they cost: trained numbers, operations (by formula, and as the kernels counted them in their \
innermost loops), memory of activations (as planned, and as allocated) and time.

    sibo overhead smollm2-135m
    sibo overhead smollm2-135m --lambda 0.4 --set r=32 --shapes 1x64,4x256 --plot overhead.svg

Products are counted; the mix of SIBO is none, so their number must not change. Its own work is three operations for \
each number that a boosted branch reads. Times on a busy machine mean little: the ratio is the median over the rounds, \
with the interval that holds the true median in 95 of 100 such measurements (the least and the greatest of fewer than \
six rounds).";

/// Show what SIBO costs on a model: parameters, operations, memory, time
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    /// A name below --models, a folder, or a hub id
    #[arg(value_name = "MODEL")]
    model: String,
    #[command(flatten)]
    method: MethodArgs,
    /// SIBO's share of the first representation, 0 < LAMBDA < 1
    #[arg(long, value_name = "LAMBDA", default_value_t = 0.2)]
    lambda: f32,
    /// Batches: rows x tokens of each
    #[arg(
        long,
        value_name = "ROWSxTOKENS",
        value_delimiter = ',',
        default_value = "1x32,4x32,4x64,4x128,8x128"
    )]
    shapes: Vec<Shape>,
    /// Steps of either kind and shape that count, after one that warms up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Drop what training would drop: in the adapter, and in the base model as its config.json says
    #[arg(long)]
    dropout: bool,
    #[command(flatten)]
    cut: CutArgs,
    #[command(flatten)]
    numbers: NumbersArgs,
    /// Also draw time and operations over the tokens of a step into this file
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

/// What steps of one kind cost.
struct Cost {
    /// Counted multiplications and additions.
    flop: u64,
    /// Allocated for activations beyond what was there before.
    bytes: usize,
    seconds: Vec<f64>,
}

/// One shape, without SIBO and with it.
struct Line {
    shape: Shape,
    formula: StepCount,
    planned: usize,
    plain: Cost,
    boosted: Cost,
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    if !(args.lambda > 0.0 && args.lambda < 1.0) {
        return Err(usage(format!(
            "--lambda {}: it must be above 0 and below 1, or nothing is compared",
            args.lambda
        )));
    }
    let folder = app.places.model(&args.model)?;
    let options = LoadOptions {
        compute: args.numbers.of(&folder),
        keep_layers: args.cut.layers,
        ..LoadOptions::default()
    };
    let mut base = Model::load(&folder, &options)?.model;
    if !base.is_causal() && base.classes().is_none() {
        app.out.note(
            "the folder has no head: one of two classes is drawn from a seed, as a task's training would",
        );
        base = Model::load(&folder, &LoadOptions { classes: Some(2), ..options })?.model;
    }
    app.places.tell_damage(&base);
    let mut plain = attached(&base, &args, 0.0)?;
    let mut boosted = attached(&base, &args, args.lambda)?;
    let lines = args
        .shapes
        .iter()
        .map(|shape| {
            app.out.note(format!("{} x {} tokens", shape.rows, shape.tokens));
            measure(&mut plain, &mut boosted, *shape, &args)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    if let Some(path) = &args.plot {
        sibo_files::write(path, stand_alone(&chart(&args, &lines), WIDE).as_bytes())?;
        app.out.note(format!("drawn: {}", path.display()));
    }
    if app.out.json() {
        app.out.result(as_json(&args, &plain, &boosted, &lines).to_string());
        return Ok(());
    }
    app.out.result(terminal::table(&table(&args, &plain, &boosted, &lines), app.out.style()));
    Ok(())
}

/// The model with a fresh adapter, drawn from one seed whatever lambda is.
fn attached(base: &Model, args: &Args, lambda: f32) -> anyhow::Result<Model> {
    let config = args.method.config(lambda)?;
    let mut model = base.clone();
    sibo_train::prepare::attach(&mut model, &config, &args.model, 1)?;
    Ok(model)
}

fn measure(plain: &mut Model, boosted: &mut Model, shape: Shape, args: &Args) -> anyhow::Result<Line> {
    let (rows, labels) = shape.rows(plain)?;
    let batch = Batch::new(plain.arch(), &rows)?;
    let labelled = Model::count_labels(&labels);
    let formula = plain.count_step(&vec![shape.tokens; shape.rows], labelled, false);
    let formula = formula
        .ok_or_else(|| anyhow::anyhow!("adapters of an embedding are not counted: target linears only"))?;
    let plan = plain.plan(&PlanInput {
        tokens: batch.tokens(),
        labelled,
        recompute: Recompute::default(),
        moments: 2,
        streamed: 0,
    });
    let mut optimisers = [Optimiser::adamw(0.9, 0.999, 1e-8, 0.01), Optimiser::adamw(0.9, 0.999, 1e-8, 0.01)];
    let mut costs = [None, None];
    // In turn, and every other time the other way round, so that what else the machine does meets both alike; the first
    // of each warms up.
    for round in 0..=args.rounds {
        let dropout = args.dropout.then_some(Dropout { seed: 1, epoch: u64::from(round), base: true });
        let mut turn = [(0, &mut *plain), (1, &mut *boosted)];
        if !round.is_multiple_of(2) {
            turn.reverse();
        }
        for (at, model) in turn {
            let cost = step(model, &batch, &labels, dropout, &mut optimisers[at]);
            match &mut costs[at] {
                None => costs[at] = Some(Cost { seconds: vec![], ..cost }),
                Some(all) => all.seconds.extend(cost.seconds),
            }
        }
    }
    let [Some(plain), Some(boosted)] = costs else { anyhow::bail!("no step was taken") };
    Ok(Line { shape, formula, planned: plan.kept + plan.working, plain, boosted })
}

fn step(
    model: &mut Model,
    batch: &Batch,
    labels: &Labels,
    dropout: Option<Dropout>,
    optimiser: &mut Optimiser,
) -> Cost {
    let (done, there) = (work::done(), pool::live_bytes());
    pool::reset_peak();
    let start = Instant::now();
    model.params_mut().zero_grads();
    model.forward_backward(batch, labels, 1.0 / Model::count_labels(labels) as f32, dropout, false);
    optimiser.step(model.params_mut(), 1e-4);
    let seconds = vec![start.elapsed().as_secs_f64()];
    let done = work::done().since(done);
    Cost { flop: done.f32_flop + done.bf16_flop, bytes: pool::peak_bytes() - there, seconds }
}

impl Line {
    fn tokens(&self) -> f64 {
        (self.shape.rows * self.shape.tokens) as f64
    }

    /// SIBO's time over the plain method's: the median over the rounds, and the interval around it.
    fn time_ratio(&self) -> (f64, [f64; 2]) {
        let pairs = self.plain.seconds.iter().zip(&self.boosted.seconds);
        let mut ratios: Vec<f64> = pairs.map(|(plain, boosted)| boosted / plain).collect();
        ratios.sort_by(f64::total_cmp);
        let around = around_median(ratios.len());
        (median(ratios.clone()), around.map(|i| ratios.get(i).copied().unwrap_or(f64::NAN)))
    }
}

/// Which of n sorted values hold the true median between them in 95 of 100 samples: how many of them lie below it is
/// binomial, and of many nearly normal. Of fewer than six values, the first and the last.
fn around_median(n: usize) -> [usize; 2] {
    // Beyond it the chance of the outermost is too small a number.
    const MANY: usize = 1000;
    let below = if n > MANY {
        (n as f64 / 2.0 - 0.98 * (n as f64).sqrt()).floor() as usize
    } else {
        let (mut below, mut outside, mut chance) = (0, 0.0, 0.5f64.powi(n as i32));
        while below < n && 2.0 * (outside + chance) <= 0.05 {
            outside += chance;
            chance *= (n - below) as f64 / (below + 1) as f64;
            below += 1;
        }
        below
    };
    let first = below.saturating_sub(1);
    [first, n.saturating_sub(first + 1)]
}

impl Cost {
    fn time(&self) -> f64 {
        median(self.seconds.clone())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    if n == 0 { f64::NAN } else { (values[(n - 1) / 2] + values[n / 2]) / 2.0 }
}

const MIB: f64 = 1048576.0;

fn table(args: &Args, plain: &Model, boosted: &Model, lines: &[Line]) -> Table {
    let (a, b) = (plain.params().numbers(), boosted.params().numbers());
    let injected = boosted.adapter().map_or(0, |a| a.injected.len() - a.idle.len());
    let mut table = Table::new(format!("A training step of {} with {}, without SIBO and with it", args.model, args.method.method))
        .column(Column::text("rows x tokens"))
        .column(Column::number("by formula", 2).unit("GFLOP"))
        .column(Column::number("counted", 2))
        .column(Column::number("with SIBO", 2))
        .column(Column::number("planned", 1).unit("MiB"))
        .column(Column::number("taken", 1))
        .column(Column::number("with SIBO", 1))
        .column(Column::number("time", 3).unit("s"))
        .column(Column::number("with SIBO", 3))
        .column(Column::number("ratio", 3))
        .column(Column::text("interval"))
        .note(format!(
            "Trained numbers: {a} without SIBO, {b} with it (lambda {} at {injected} sites). MiB are activations; weights and what \
             trains come on top. Median of {} rounds in turn.",
            args.lambda, args.rounds
        ));
    for line in lines {
        let (ratio, [low, high]) = line.time_ratio();
        let flop = |n: u64| Cell::Number(n as f64 / 1e9);
        let mib = |n: usize| Cell::Number(n as f64 / MIB);
        table.push(vec![
            format!("{} x {}", line.shape.rows, line.shape.tokens).as_str().into(),
            flop(line.formula.total()),
            flop(line.plain.flop),
            flop(line.boosted.flop),
            mib(line.planned),
            mib(line.plain.bytes),
            mib(line.boosted.bytes),
            Cell::Number(line.plain.time()),
            Cell::Number(line.boosted.time()),
            Cell::Number(ratio),
            format!("{low:.3} to {high:.3}").as_str().into(),
        ]);
    }
    table
}

fn chart(args: &Args, lines: &[Line]) -> LineChart {
    let mut order: Vec<&Line> = lines.iter().collect();
    order.sort_by(|a, b| a.tokens().total_cmp(&b.tokens()));
    let points = |value: &dyn Fn(&Line) -> f64| -> Vec<(f64, f64)> {
        order.iter().map(|line| (line.tokens(), value(line))).collect()
    };
    LineChart {
        title: format!("Time of a training step: {} with {}", args.model, args.method.method),
        caption: format!("Medians of {} rounds in turn; SIBO with lambda {}.", args.rounds, args.lambda),
        x: Axis::new("tokens of a step", 0).log(),
        y: Axis::new("time", 3).unit("s").log(),
        series: vec![
            Series::new(args.method.method.as_str(), Tone::Plain, points(&|l| l.plain.time())),
            Series::new(format!("SIBO-{}", args.method.method), Tone::Sibo, points(&|l| l.boosted.time())),
        ],
        band: None,
    }
}

fn as_json(args: &Args, plain: &Model, boosted: &Model, lines: &[Line]) -> Value {
    let cost = |c: &Cost| json!({"flop": c.flop, "bytes": c.bytes, "seconds": c.time(), "rounds": c.seconds});
    let rows: Vec<Value> = lines
        .iter()
        .map(|line| {
            let (ratio, interval) = line.time_ratio();
            json!({
                "rows": line.shape.rows, "tokens": line.shape.tokens,
                "formula": {
                    "frozen": line.formula.frozen, "trained": line.formula.trained,
                    "attention": line.formula.attention, "total": line.formula.total(),
                },
                "planned_bytes": line.planned, "plain": cost(&line.plain), "sibo": cost(&line.boosted),
                "time_ratio": ratio, "time_ratio_interval": interval,
            })
        })
        .collect();
    json!({
        "model": args.model, "method": args.method.method, "lambda": args.lambda,
        "trained_numbers": {"plain": plain.params().numbers(), "sibo": boosted.params().numbers()},
        "isa": sibo_kernels::isa::isa().name(), "threads": sibo_kernels::threads(), "shapes": rows,
    })
}

#[cfg(test)]
mod tests {
    use super::around_median;

    #[test]
    fn the_interval_of_a_median_is_the_textbook_s() {
        // From tables of the binomial: of 20 values the 6th and the 15th, of 100 the 40th and the 61st, of 6 the outermost.
        assert_eq!(around_median(100), [39, 60]);
        assert_eq!(around_median(20), [5, 14]);
        assert_eq!(around_median(5), [0, 4]);
        // Where the normal one takes over they agree.
        assert_eq!((around_median(1000), around_median(1001)), ([468, 531], [468, 532]));
        assert_eq!(around_median(6), [0, 5]);
        assert_eq!(around_median(1), [0, 0]);
    }
}

//! `sibo overhead`: what a method costs on a model, and what SIBO adds to it: counted, planned and measured.

use crate::app::App;
use crate::places::{ComputeArg, CutArgs};
use crate::trial::{MethodArgs, Shape};
use serde_json::{Value, json};
use sibo_kernels::{pool, work};
use sibo_model::{Batch, Labels, LoadOptions, Model, PlanInput, Recompute, StepCount};
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
each number that a boosted branch reads. Times on a busy machine mean little: the ratio is the median over the rounds.";

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
    #[command(flatten)]
    cut: CutArgs,
    /// Numbers in which the frozen products are computed
    #[arg(long, value_enum, default_value = "f32")]
    compute: ComputeArg,
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
    let folder = app.places.model(&args.model)?;
    let options =
        LoadOptions { compute: args.compute.into(), keep_layers: args.cut.layers, ..LoadOptions::default() };
    let base = Model::load(&folder, &options)?.model;
    app.places.tell_damage(&base);
    let mut plain = attached(&base, &args, 0.0)?;
    let mut boosted = attached(&base, &args, args.lambda)?;
    let lines = args
        .shapes
        .iter()
        .map(|shape| {
            app.out.note(format!("{} x {} tokens", shape.rows, shape.tokens));
            measure(&mut plain, &mut boosted, *shape, args.rounds)
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

fn measure(plain: &mut Model, boosted: &mut Model, shape: Shape, rounds: u16) -> anyhow::Result<Line> {
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
    // In turn, so that what else the machine does meets both alike; the first of each warms up.
    for _ in 0..=rounds {
        for (at, model) in [&mut *plain, &mut *boosted].into_iter().enumerate() {
            let cost = step(model, &batch, &labels, &mut optimisers[at]);
            match &mut costs[at] {
                None => costs[at] = Some(Cost { seconds: vec![], ..cost }),
                Some(all) => all.seconds.extend(cost.seconds),
            }
        }
    }
    let [Some(plain), Some(boosted)] = costs else { anyhow::bail!("no step was taken") };
    Ok(Line { shape, formula, planned: plan.kept + plan.working, plain, boosted })
}

fn step(model: &mut Model, batch: &Batch, labels: &Labels, optimiser: &mut Optimiser) -> Cost {
    let (done, there) = (work::done(), pool::live_bytes());
    pool::reset_peak();
    let start = Instant::now();
    model.params_mut().zero_grads();
    model.forward_backward(batch, labels, 1.0 / Model::count_labels(labels) as f32, None, false);
    optimiser.step(model.params_mut(), 1e-4);
    let seconds = vec![start.elapsed().as_secs_f64()];
    let done = work::done().since(done);
    Cost { flop: done.f32_flop + done.bf16_flop, bytes: pool::peak_bytes() - there, seconds }
}

impl Line {
    fn tokens(&self) -> f64 {
        (self.shape.rows * self.shape.tokens) as f64
    }

    /// SIBO's time over the plain method's, the median over the rounds.
    fn time_ratio(&self) -> f64 {
        let pairs = self.plain.seconds.iter().zip(&self.boosted.seconds);
        median(pairs.map(|(plain, boosted)| boosted / plain).collect())
    }
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
        .note(format!(
            "Trained numbers: {a} without SIBO, {b} with it (lambda {} at {injected} sites). MiB are activations; weights and what \
             trains come on top. Median of {} rounds in turn.",
            args.lambda, args.rounds
        ));
    for line in lines {
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
            Cell::Number(line.time_ratio()),
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
            json!({
                "rows": line.shape.rows, "tokens": line.shape.tokens,
                "formula": {
                    "frozen": line.formula.frozen, "trained": line.formula.trained,
                    "attention": line.formula.attention, "total": line.formula.total(),
                },
                "planned_bytes": line.planned, "plain": cost(&line.plain), "sibo": cost(&line.boosted),
                "time_ratio": line.time_ratio(),
            })
        })
        .collect();
    json!({
        "model": args.model, "method": args.method.method, "lambda": args.lambda,
        "trained_numbers": {"plain": plain.params().numbers(), "sibo": boosted.params().numbers()},
        "isa": sibo_kernels::isa::isa().name(), "threads": sibo_kernels::threads(), "shapes": rows,
    })
}

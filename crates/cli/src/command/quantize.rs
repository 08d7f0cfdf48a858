//! `sibo quantize`: a model's folder with its frozen products in 8 or 4 bits.

use crate::app::App;
use crate::places;
use anyhow::ensure;
use serde_json::{Value, json};
use sibo_model::{Bits, Quantised, QuantisedKind, quantise};
use sibo_report::{Cell, Column, Table, number, terminal};
use std::path::PathBuf;

const LONG_ABOUT: &str = "\
Writes a model's folder again with the matrices of its layers and its language head in 8 or 4 bits, one scale for each \
block of columns. Such weights stay so small in memory, too, and are expanded where they are multiplied; only where f32 is \
asked for (--compute f32, or compute = \"f32\" in a recipe) are they widened when they are read.

    sibo quantize smollm2-135m --bits 8 --output models/smollm2-135m-int8
    sibo train recipe.toml --set model=smollm2-135m-int8

A head that shares its matrix with the embedding gets 8 bits, also under --bits 4. Norms, biases, embeddings that \
multiply nothing, poolers and classifiers stay as they are. The layout is sibo's own; transformers warns that \
it does not know it, and what it then loads are codes, not weights. An adapter that was trained on the one model fits the other, and differs from it by \
the rounding error.";

/// Write a model with its frozen weights in 8 or 4 bits
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    /// A name below --models, a folder, or a hub id; not quantised yet
    #[arg(value_name = "MODEL")]
    model: String,
    /// Bits of a weight
    #[arg(long, value_enum)]
    bits: BitsArg,
    /// Columns that share a scale, or `row`; the number must divide the columns of every matrix
    #[arg(long, value_name = "N", default_value = "64", value_parser = block)]
    block: BlockArg,
    /// The folder to write; it must not be there yet
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
}

/// `--bits`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum BitsArg {
    /// Close to the original
    #[value(name = "8")]
    Eight,
    /// Half as large; measure what it costs
    #[value(name = "4")]
    Four,
}

/// `--block`; `None` is the row.
#[derive(Debug, Clone, Copy)]
struct BlockArg(Option<usize>);

fn block(text: &str) -> Result<BlockArg, String> {
    match (text, text.parse::<usize>()) {
        ("row", _) => Ok(BlockArg(None)),
        (_, Ok(n)) if n > 0 => Ok(BlockArg(Some(n))),
        _ => Err("it must be a number of columns, 1 or more, or `row`".into()),
    }
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    ensure!(!args.output.exists(), "{}: is there already; give another folder", args.output.display());
    places::check_folder(&args.output)?;
    let folder = app.places.model(&args.model)?;
    if let Some(parent) = args.output.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|e| sibo_files::Error::io(parent, "create the folder", e))?;
    }
    let bits = match args.bits {
        BitsArg::Eight => Bits::Eight,
        BitsArg::Four => Bits::Four,
    };
    let mut done = None;
    sibo_files::write_all_or_nothing::<sibo_model::Error>(&args.output, |part| {
        done = Some(quantise(&folder, part, bits, args.block.0)?);
        Ok(super::merge::copy_beside(&folder, part)?)
    })?;
    let Some(done) = done else { return Ok(()) };
    if app.out.json() {
        app.out.result(as_json(&args, &done).to_string());
        return Ok(());
    }
    app.out.result(terminal::table(&table(&args, &done), app.out.style()));
    if done.left_out > 0 {
        app.out.note(format!("{} tensors that the model does not use were left out", done.left_out));
    }
    app.out.note(format!("written: {}", args.output.display()));
    Ok(())
}

fn word(bits: Option<Bits>) -> &'static str {
    match bits {
        Some(Bits::Eight) => "8",
        Some(Bits::Four) => "4",
        None => "as before",
    }
}

fn table(args: &Args, done: &Quantised) -> Table {
    let block = args.block.0.map_or("one scale for a row".into(), |n| format!("one scale for {n} columns"));
    let mut table = Table::new(format!("{}, {block}", args.model))
        .column(Column::text("tensors"))
        .column(Column::number("times", 0))
        .column(Column::text("bits"))
        .column(Column::text("before"))
        .column(Column::text("after"))
        .column(Column::number("error, %", 2))
        .column(Column::number("worst, %", 2))
        .note(
            "Error: root mean square of what rounding moved, of that of the weights; worst: of one tensor.",
        );
    for kind in &done.kinds {
        let percent = |share: f64| kind.bits.map_or(Cell::Missing, |_| Cell::Number(100.0 * share));
        table.push(vec![
            kind.name.as_str().into(),
            Cell::Number(kind.tensors as f64),
            word(kind.bits).into(),
            number::bytes(kind.before as u64).into(),
            number::bytes(kind.after as u64).into(),
            percent(kind.error()),
            percent(kind.worst),
        ]);
    }
    let sum = |of: fn(&QuantisedKind) -> usize| done.kinds.iter().map(of).sum::<usize>();
    table.push_emphasised(vec![
        "all".into(),
        Cell::Number(sum(|k| k.tensors) as f64),
        "".into(),
        number::bytes(sum(|k| k.before) as u64).into(),
        number::bytes(sum(|k| k.after) as u64).into(),
        "".into(),
        "".into(),
    ]);
    table
}

fn as_json(args: &Args, done: &Quantised) -> Value {
    let kinds = done.kinds.iter().map(|k| {
        json!({
            "name": k.name, "tensors": k.tensors, "numbers": k.numbers,
            "bits": k.bits.map(|b| if b == Bits::Eight { 8 } else { 4 }),
            "bytes_before": k.before, "bytes_after": k.after,
            "relative_error": k.bits.map(|_| k.error()), "worst_relative_error": k.bits.map(|_| k.worst),
        })
    });
    json!({
        "model": args.model, "output": args.output, "block": args.block.0.map_or("row".into(), Value::from),
        "left_out": done.left_out, "kinds": kinds.collect::<Vec<_>>(),
    })
}

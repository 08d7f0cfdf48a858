//! `sibo smoothing --suggest-lambda`: the rule's lambda, from one forward pass.

use crate::app::App;
use serde_json::{Value, json};
use sibo_model::Model;
use sibo_peft::H0;
use sibo_report::{Cell, Column, Table, terminal};
use sibo_train::probe::ProbeRow;
use sibo_train::suggest::{self, Curve, SEQUENCES, Suggestion};

/// The kinds of site where LoRA reads the token's state.
const LORA: [&str; 2] = ["attention input", "FFN input"];

pub(super) fn tell(
    model: &Model,
    rows: &[ProbeRow],
    source: &str,
    batch: usize,
    app: &App,
) -> anyhow::Result<()> {
    let curves = suggest::curves(model, rows, batch)?;
    let choose = |curves: &[&Curve]| [H0::Raw, H0::Rms].map(|form| suggest::choose(curves, form));
    let lora: Vec<&Curve> = curves.iter().filter(|c| LORA.contains(&c.site)).collect();
    let lora = choose(&lora);
    if app.out.json() {
        let all: Vec<Value> =
            curves.iter().map(|c| json!({"curve": c, "suggestions": named(choose(&[c]))})).collect();
        let whole = json!({"source": source, "lora": named(lora), "sites": all});
        app.out.result(whole.to_string());
        return Ok(());
    }
    let mut table = Table::new(format!("Suggested lambda by kind of site ({source})"))
        .column(Column::text("branch reads"))
        .column(Column::number("|h0| / |x|", 3))
        .column(Column::number("similarity of x", 3))
        .column(Column::number("of h0", 3))
        .column(Column::text("lambda, h0 raw"))
        .column(Column::text("lambda, h0 rms"))
        .note(format!(
            "Mean cosine of all pairs of tokens, over {} sequences and all layers.",
            rows.len().min(SEQUENCES)
        ));
    for curve in &curves {
        let [raw, rms] = choose(&[curve]).map(|s| s.map_or("-".into(), |s| format!("{:.2}", s.lambda)));
        let numbers = [curve.ratio, curve.raw[0], curve.initial].map(Cell::Number);
        let [ratio, before, initial] = numbers;
        table.push(vec![curve.site.into(), ratio, before, initial, raw.as_str().into(), rms.as_str().into()]);
    }
    app.out.result(terminal::table(&table, app.out.style()));
    for (form, suggestion) in ["raw", "rms"].iter().zip(&lora) {
        if let Some(suggestion) = suggestion {
            app.out.result(format!("LoRA at {}, h0 {form}: {suggestion}.", LORA.join(" and ")));
        }
    }
    app.out.note(
        "A rule, stated before it was judged: docs/lambda.md. `sibo sweep` tries lambdas on validation rows.",
    );
    Ok(())
}

fn named([raw, rms]: [Option<Suggestion>; 2]) -> Value {
    json!({"raw": raw, "rms": rms})
}

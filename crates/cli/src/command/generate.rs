//! `sibo generate`: text, or token ids, continued.

use crate::app::App;
use crate::exit::{Interrupted, usage};
use crate::interrupt;
use crate::places::ModelArgs;
use crate::speaker::{Answer, BeamArgs, ChoiceArgs, Speaker};
use sibo_model::{beam_search, greedy, read_eos};
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

const LONG_ABOUT: &str = "\
Continues a text, or answers an instruction if the model or its adapter was trained with a template.

    sibo generate --model smollm2-135m \"Name three rivers.\"
    sibo generate --model smollm2-135m --adapter runs/gsm8k/adapter --prompts questions.txt --json
    echo \"Name three rivers.\" | sibo generate --model smollm2-135m

One prompt is written as it grows. Several prompts run as one batch, and each gets what it would get alone.";

/// Continue text, or token ids from a file
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    /// Texts to continue or instructions to follow [default: the text on stdin]
    #[arg(value_name = "PROMPT", conflicts_with = "ids")]
    prompt: Vec<String>,
    #[command(flatten)]
    model: ModelArgs,
    /// A file with one prompt a line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "ids"])]
    prompts: Option<PathBuf>,
    #[command(flatten)]
    choice: ChoiceArgs,
    #[command(flatten)]
    beams: BeamArgs,
    /// Continue these token ids instead of text: {"input_ids": [[5, 9, 12], [7, 3]]}
    #[arg(long, value_name = "FILE.json", requires = "out")]
    ids: Option<PathBuf>,
    /// With --ids: the file for the new ids, {"sequences": [[...], [...]]}
    #[arg(long, value_name = "FILE.json", requires = "ids")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    if args.beams.num_beams > 1 && args.choice.temperature > 0.0 {
        return Err(usage("a beam search draws nothing: give --num-beams or --temperature, not both"));
    }
    match (&args.ids, &args.out) {
        (Some(ids), Some(out)) => continue_ids(&args, ids, out, app),
        _ => continue_text(&args, app),
    }
}

/// Token ids in, token ids out: no tokenizer is needed and no id is masked.
fn continue_ids(args: &Args, ids: &Path, out: &Path, app: &App) -> anyhow::Result<()> {
    let model = app.places.load(&args.model)?;
    let eos = read_eos(&app.places.model(&args.model.model)?)?;
    let input = sibo_train::trace::read(ids, &model)?;
    let prompts: Vec<Vec<u32>> = input.rows.into_iter().map(|row| row.ids).collect();
    let max_new = args.choice.max_new_tokens;
    let sequences = match args.beams.num_beams {
        1 => greedy(&model, &prompts, max_new, &eos)?,
        _ => beam_search(&model, &prompts, &eos, &args.beams.settings(max_new, None))?,
    };
    let text = serde_json::json!({ "sequences": sequences }).to_string();
    sibo_files::write(out, format!("{text}\n").as_bytes())?;
    app.out.note(format!("{}: {} rows continued", out.display(), prompts.len()));
    Ok(())
}

fn continue_text(args: &Args, app: &App) -> anyhow::Result<()> {
    let texts = read_prompts(args)?;
    let speaker = Speaker::load(&app.places, &args.model, args.choice.template.as_deref())?;
    let prompts = texts.iter().map(|text| speaker.prompt(text)).collect::<Result<Vec<_>, _>>()?;
    interrupt::listen();
    let live = texts.len() == 1 && !app.out.json();
    let answers = match args.beams.num_beams {
        1 => speaker.sample(&prompts, &args.choice, |_, piece| {
            if live {
                app.out.piece(piece);
            }
            ControlFlow::Continue(())
        })?,
        _ => speaker.search(&prompts, &args.choice, &args.beams)?,
    };
    show(&texts, &answers, live && args.beams.num_beams == 1, app);
    if interrupt::asked() {
        return Err(Interrupted("the text above is what there was so far".into()).into());
    }
    Ok(())
}

fn read_prompts(args: &Args) -> anyhow::Result<Vec<String>> {
    if let Some(path) = &args.prompts {
        let text = read_utf8(path)?;
        let lines: Vec<String> = text.lines().filter(|l| !l.trim().is_empty()).map(String::from).collect();
        anyhow::ensure!(!lines.is_empty(), "{}: no prompt in it; write one a line", path.display());
        return Ok(lines);
    }
    if !args.prompt.is_empty() {
        return Ok(args.prompt.clone());
    }
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes)?;
    let text = utf8(bytes, "stdin")?;
    let text = text.trim_end_matches(['\n', '\r']).to_string();
    anyhow::ensure!(!text.is_empty(), "no prompt: give one as an argument, by --prompts FILE, or on stdin");
    Ok(vec![text])
}

fn read_utf8(path: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(path).map_err(|e| sibo_files::Error::io(path, "read", e))?;
    utf8(bytes, &path.display().to_string())
}

/// The text that came from `place`; bytes that are no UTF-8 are named by line.
pub(super) fn utf8(bytes: Vec<u8>, place: &str) -> anyhow::Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        let line = e.as_bytes()[..good].iter().filter(|b| **b == b'\n').count() + 1;
        anyhow::anyhow!("{place}, line {line}: not UTF-8; save it as UTF-8")
    })
}

fn show(texts: &[String], answers: &[Answer], live: bool, app: &App) {
    if app.out.json() {
        let rows: Vec<_> = texts
            .iter()
            .zip(answers)
            .map(|(prompt, a)| serde_json::json!({"prompt": prompt, "text": a.text, "new_tokens": a.tokens, "ended_by": a.ended_by}))
            .collect();
        app.out.result(serde_json::Value::from(rows).to_string());
        return;
    }
    if live {
        app.out.piece("\n");
    } else {
        for (prompt, answer) in texts.iter().zip(answers) {
            if texts.len() > 1 {
                app.out.result(format!("> {prompt}"));
            }
            app.out.result(&answer.text);
            if texts.len() > 1 {
                app.out.result("");
            }
        }
    }
    if answers.iter().any(|a| a.ended_by == "length") {
        app.out.note("(ended by --max-new-tokens)");
    }
}

//! `sibo ui`: a live page of runs and studies, for this machine only.

use crate::app::App;
use crate::interrupt;
use crate::places::{CutArgs, NumbersArgs};
use crate::ui::{Bench, Site};
use serde_json::json;
use sibo_serve::Server;
use std::path::PathBuf;
use std::time::Duration;

const LONG_ABOUT: &str = "\
Serves pages to a browser on this machine: the runs and studies below a folder with their curves as they train, \
any of them side by side, the similarity of tokens by layer, and a playground: a model that answers what you \
type, with adapters and lambdas side by side. It prints the address to open.

    sibo ui
    sibo ui runs/mine --port 8080
    sibo ui --model smollm2-135m --adapter runs/plain/adapter --adapter runs/sibo/adapter

It listens on 127.0.0.1 only. The address holds a token, which the browser keeps from then on; requests that come \
from other sites, name another host or lack the token are refused, and nothing is loaded from elsewhere. The pages \
of runs read without scripts, which keep them up to date. Ctrl-C ends it.";

/// Live pages for your browser, on this machine only: runs, studies, and a playground
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    /// The folder below which runs and studies are looked for
    #[arg(value_name = "FOLDER", default_value = "runs")]
    folder: PathBuf,
    /// The port to listen on; 0 takes any that is free
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// The base model of the playground: a name below --models, a folder, or a hub id
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// An adapter for the playground; may be given several times
    #[arg(long, value_name = "ADAPTER", requires = "model")]
    adapter: Vec<String>,
    #[command(flatten)]
    numbers: NumbersArgs,
    #[command(flatten)]
    cut: CutArgs,
}

/// How often it is looked whether the person wants an end.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.folder.is_dir() || !args.folder.exists(),
        "{}: is a file; give the folder below which your runs are",
        args.folder.display()
    );
    let server = Server::bind(args.port)?;
    let load = |model: &String| Bench::load(&app.places, model, &args.adapter, args.numbers, args.cut);
    let mut bench = args.model.as_ref().map(load).transpose()?;
    let (address, stop) = (server.address(), server.stop());
    interrupt::listen();
    let site = Site::new(args.folder.clone(), bench.as_ref().map(Bench::playground));
    let serving = std::thread::Builder::new().name("server".into());
    let serving = serving.spawn(move || server.run(move |request| site.answer(request)))?;
    if app.out.json() {
        app.out.result(json!({"address": address, "folder": args.folder.display().to_string()}).to_string());
    } else {
        app.out.result(&address);
        app.out.note(format!("Runs and studies below {}. Ctrl-C ends it.", args.folder.display()));
    }
    while !interrupt::asked() && !serving.is_finished() {
        // The model computes on this thread, which is one of the pool's.
        match &mut bench {
            Some(bench) => bench.answer_next(LOOK),
            None => std::thread::sleep(LOOK),
        }
    }
    stop.ask();
    anyhow::ensure!(serving.join().is_ok(), "the server ended by a fault of its own; please report it");
    app.out.note("Ended.");
    Ok(())
}

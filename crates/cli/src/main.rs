//! The command `sibo`: arguments into a configuration, a configuration into a call, and all that is printed.

mod app;
mod args;
mod beside;
mod classes;
mod command;
mod describe;
mod exit;
mod interrupt;
mod leaks;
mod looks;
mod machine;
mod output;
mod places;
mod progress;
mod record;
mod rows;
mod runs;
mod speaker;
mod study;
mod trial;
mod ui;

fn main() -> std::process::ExitCode {
    app::main()
}

//! The command `sibo`: arguments into a configuration, a configuration into a call, and all that is printed.

mod app;
mod args;
mod command;
mod exit;
mod machine;
mod output;
mod places;

fn main() -> std::process::ExitCode {
    app::main()
}

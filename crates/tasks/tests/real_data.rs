//! The whole data, where it is at hand: `SIBO_DATA=<folder> cargo test -p sibo-tasks -- --ignored --nocapture`.

use sibo_tasks::{Error, SplitName, Task, Wanted, names};
use std::path::PathBuf;

fn root() -> PathBuf {
    std::env::var_os("SIBO_DATA").expect("SIBO_DATA names the data folder").into()
}

#[test]
#[ignore = "needs the benchmark files; too large to store here"]
fn every_split_at_hand_is_read_and_asked() {
    for name in names() {
        let task = Task::named(name).unwrap();
        for split in SplitName::ALL.into_iter().filter(|s| task.spec().splits.file(*s).is_some()) {
            let rows = match task.load(&root(), split, &Wanted::default()) {
                Ok(rows) => rows,
                Err(Error::NoData { .. }) => {
                    println!("{name} {split}: not at hand");
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            for row in &rows.examples {
                for protocol in task.spec().prompt.keys() {
                    match task.is_generated(*protocol) {
                        true => drop(task.generate(row, *protocol).unwrap()),
                        false => drop(task.choose(row, *protocol).unwrap()),
                    }
                }
            }
            println!("{name} {split}: {} rows, {:?}", rows.examples.len(), rows.notes);
        }
    }
}

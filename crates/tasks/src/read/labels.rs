//! Labels in a file of their own, one a line, as SIQA's and PIQA's makers publish them.

use super::record::Record;
use crate::Error;
use std::path::Path;

/// The column under which each row then has its label.
pub(crate) const COLUMN: &str = "label";

/// Gives every row of the file at `rows` its line of the file beside it, whose name ends with `ending` where
/// that of the rows has its extension.
pub(crate) fn join(rows: &Path, ending: &str, records: &mut [Record]) -> Result<(), Error> {
    let stem = rows.file_stem().unwrap_or_default().to_string_lossy();
    let path = rows.with_file_name(format!("{stem}{ending}"));
    let text = super::text::read(&path)?;
    let labels: Vec<&str> = super::text::lines(&text).map(|(_, line)| line).collect();
    if labels.len() != records.len() {
        return Err(Error::Labels { path, labels: labels.len(), rows: records.len() });
    }
    records.iter_mut().zip(labels).for_each(|(record, label)| record.add(COLUMN, label));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Column, Format};

    #[test]
    fn each_row_gets_its_line_and_a_wrong_count_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let rows = folder.path().join("dev.jsonl");
        std::fs::write(folder.path().join("dev-labels.lst"), "2\n1\n").unwrap();
        let read = |text: &str| super::super::record::tests::rows(text, Format::JsonLines, true).unwrap();
        let mut two = read("{\"q\": \"a\"}\n{\"q\": \"b\"}\n");
        join(&rows, "-labels.lst", &mut two).unwrap();
        assert_eq!(two[0].at(&Column::Name(COLUMN.into())), Some("2".into()));
        let e = join(&rows, "-labels.lst", &mut read("{}\n")).unwrap_err().to_string();
        assert!(e.ends_with("dev-labels.lst: 2 labels for 1 rows; there must be one a line"), "{e}");
        let e = join(&rows, ".lst", &mut two).unwrap_err().to_string();
        assert!(e.contains("dev.lst: cannot read"), "{e}");
    }
}

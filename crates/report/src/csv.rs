//! Tables as CSV (RFC 4180): numbers in full, an interval in two columns of its own.

use crate::table::{Cell, Table};

/// The table; the first line holds the headings.
///
/// A column in which any cell has an interval is followed by `<heading> low` and
/// `<heading> high`. Missing values are empty.
pub fn render(table: &Table) -> String {
    let ranged: Vec<bool> = (0..table.width()).map(|c| has_interval(table, c)).collect();
    let mut out = String::new();
    let mut heads = Vec::new();
    for (c, ranged) in ranged.iter().enumerate() {
        let heading = table.heading(c);
        if *ranged {
            heads.extend([format!("{heading} low"), format!("{heading} high")]);
            heads.insert(heads.len() - 2, heading);
        } else {
            heads.push(heading);
        }
    }
    push_line(&mut out, &heads);
    for r in 0..table.rows.len() {
        let cells = ranged.iter().enumerate();
        let line: Vec<String> = cells.flat_map(|(c, ranged)| fields(table.cell(r, c), *ranged)).collect();
        push_line(&mut out, &line);
    }
    out
}

fn has_interval(table: &Table, c: usize) -> bool {
    let cells = (0..table.rows.len()).map(|r| table.cell(r, c));
    cells.into_iter().any(|cell| matches!(cell, Cell::Estimate(e) if e.interval.is_some()))
}

fn fields(cell: &Cell, ranged: bool) -> Vec<String> {
    let (value, interval) = match cell {
        Cell::Text(text) => (text.clone(), None),
        Cell::Number(value) => (value.to_string(), None),
        Cell::Estimate(estimate) => (estimate.value.to_string(), estimate.interval),
        Cell::Missing => (String::new(), None),
    };
    if !ranged {
        return vec![value];
    }
    let end = |end: Option<f64>| end.map_or_else(String::new, |v| v.to_string());
    vec![value, end(interval.map(|i| i.0)), end(interval.map(|i| i.1))]
}

fn push_line(out: &mut String, fields: &[String]) {
    for (i, field) in fields.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        if field.contains(['"', ',', '\n', '\r']) {
            out.push_str(&format!("\"{}\"", field.replace('"', "\"\"")));
        } else {
            out.push_str(field);
        }
    }
    out.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::sample;

    #[test]
    fn numbers_are_full_and_intervals_have_columns() {
        let mut table = sample();
        table.push(vec!["a \"b\", c\nd".into()]);
        assert_eq!(
            render(&table),
            "method,accuracy,accuracy low,accuracy high,time (s)\r\n\
             LoRA <b>|x,0.8134,0.7901,0.8367,\r\n\
             SIBO-LoRA,0.8256,,,12345.67\r\n\
             \"a \"\"b\"\", c\nd\",,,,\r\n"
        );
    }
}

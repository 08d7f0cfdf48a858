//! A report as the files of a run's folder.

use crate::document::Document;
use crate::jsonl::replace;
use crate::plot::{self, WIDE};
use crate::table::Table;
use crate::{ReportError, csv, html, markdown, raster};
use std::path::{Path, PathBuf};

/// Writes `report.html` (the page), `report.json` (the document, to build the rest again) and
/// `report.md` into `folder`; each is replaced as one step. Returns the path of the page.
///
/// # Errors
/// The folder cannot be created or a file cannot be written.
pub fn save(document: &Document, folder: &Path) -> Result<PathBuf, ReportError> {
    std::fs::create_dir_all(folder).map_err(ReportError::io("create", folder))?;
    replace(&folder.join("report.json"), document.to_json().as_bytes())?;
    replace(&folder.join("report.md"), markdown::render(document).as_bytes())?;
    let page = folder.join("report.html");
    replace(&page, html::render(document).as_bytes())?;
    Ok(page)
}

/// Writes every plot as an SVG and a PNG file and every table (those of plots too) as a CSV file into
/// `folder`, named after their titles. Returns the paths.
///
/// # Errors
/// The folder cannot be created or a file cannot be written.
pub fn save_parts(document: &Document, folder: &Path) -> Result<Vec<PathBuf>, ReportError> {
    std::fs::create_dir_all(folder).map_err(ReportError::io("create", folder))?;
    let mut files: Vec<(String, &str, Vec<u8>)> = Vec::new();
    for plot in document.plots() {
        let title = || plot.title().to_owned();
        files.push((title(), "svg", plot::stand_alone(plot, WIDE).into_bytes()));
        files.push((title(), "png", raster::render(plot, WIDE)));
        files.push((title(), "csv", csv::render(&plot.table()).into_bytes()));
    }
    let table = |t: &Table| (t.caption.clone(), "csv", csv::render(t).into_bytes());
    files.extend(document.tables().map(table));
    let mut paths: Vec<PathBuf> = Vec::new();
    for (title, ending, bytes) in files {
        let mut path = folder.join(format!("{}.{ending}", file_stem(&title)));
        let mut count = 2;
        while paths.contains(&path) {
            path = folder.join(format!("{}-{count}.{ending}", file_stem(&title)));
            count += 1;
        }
        replace(&path, &bytes)?;
        paths.push(path);
    }
    Ok(paths)
}

/// A file name from a title: small ASCII letters, digits and hyphens, at most 60.
fn file_stem(title: &str) -> String {
    let mut stem = String::new();
    for c in title.chars().flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() {
            stem.push(c);
        } else if !stem.is_empty() && !stem.ends_with('-') {
            stem.push('-');
        }
        if stem.len() >= 60 {
            break;
        }
    }
    let stem = stem.trim_end_matches('-');
    if stem.is_empty() { "untitled".to_owned() } else { stem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::tests::losses;

    #[test]
    fn titles_become_safe_file_names() {
        assert_eq!(file_stem("Training <loss>, per step"), "training-loss-per-step");
        assert_eq!(file_stem("../../etc/passwd"), "etc-passwd");
        assert_eq!(file_stem("精度"), "untitled");
    }

    #[test]
    fn a_saved_report_can_be_built_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut document = Document::new("T", "V");
        document.section("S", "").push(losses().into()).push(losses().into());
        let page = save(&document, folder.path()).unwrap();
        let again = Document::read(&folder.path().join("report.json")).unwrap();
        assert_eq!(std::fs::read_to_string(page).unwrap(), html::render(&again));
        let parts = save_parts(&document, folder.path()).unwrap();
        let names: Vec<_> = parts.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
        let expected = [
            "training-loss.svg",
            "training-loss.png",
            "training-loss.csv",
            "training-loss-2.svg",
            "training-loss-2.png",
            "training-loss-2.csv",
        ];
        assert_eq!(names, expected);
    }
}

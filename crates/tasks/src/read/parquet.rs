//! Rows of a parquet file, the form in which the Hub keeps its data sets, as the JSON rows that they stand for.
//!
//! Text, numbers, yes-or-no, lists and structs of these are read. A column of anything else (pictures, dates, maps) is
//! left where it is, and named when a task asks for it: an unused column must not keep a data set from being read.

use super::record::Record;
use crate::{Error, Place};
use parquet::basic::{Compression, ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use serde_json::{Map, Number, Value};
use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::rc::Rc;
use std::sync::Once;

/// What a parquet file begins and ends with.
const MAGIC: [u8; 4] = *b"PAR1";

/// Whether a file's name says that it is parquet.
pub(crate) fn is(path: &Path) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("parquet"))
}

/// A file that its task calls parquet under another name.
pub(crate) fn not_named(path: &Path) -> Error {
    let problem = "the task says that it is parquet, so its name must end in .parquet".into();
    Error::Parquet { path: path.to_owned(), problem }
}

/// All rows of the file.
pub(crate) fn records(path: &Path) -> Result<Vec<Record>, Error> {
    let bad = |problem: String| Error::Parquet { path: path.to_owned(), problem };
    let mut file = File::open(path).map_err(|e| Error::read(path, e))?;
    marks(&mut file).map_err(|e| Error::read(path, e))?.map_err(bad)?;
    // The library asserts what a well-formed file promises. A broken file must get a sentence all the same.
    let rows = quietly(|| decode(file)).unwrap_or_else(|| Err(DAMAGED.into())).map_err(bad)?;
    match rows.is_empty() {
        true => Err(Error::NoRows { path: path.to_owned() }),
        false => Ok(rows),
    }
}

/// What is said where the library only finds its own assertions broken.
const DAMAGED: &str =
    "cannot be decoded, for it is damaged; get it again, and compare its size with the Hub's";

thread_local! {
    /// Whether a panic on this thread is an answer about a file and is not printed.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// What `work` gives, or nothing where it panics; nothing of that is printed, but every other panic is as before.
fn quietly<T>(work: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info)
            }
        }));
    });
    QUIET.set(true);
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    QUIET.set(false);
    done.ok()
}

/// Looks at both ends of the file: the commonest faults are a download cut short and a page saved in the file's place.
fn marks(file: &mut File) -> std::io::Result<Result<(), String>> {
    let length = file.metadata()?.len();
    let mut ends = [[0; 4]; 2];
    if length >= 12 {
        file.read_exact(&mut ends[0])?;
        file.seek(SeekFrom::End(-4))?;
        file.read_exact(&mut ends[1])?;
        file.rewind()?;
    }
    let again = "get it again, and compare its size with the Hub's";
    Ok(match ends {
        [MAGIC, MAGIC] => Ok(()),
        [_, end] if &end == b"PARE" => Err("its columns are encrypted, which is not read".into()),
        [MAGIC, _] => Err(format!(
            "cut short: a parquet file ends with PAR1, this one of {length} bytes does not; {again}"
        )),
        _ => Err(format!(
            "no parquet file: one begins with PAR1, this one of {length} bytes does not; {again}"
        )),
    })
}

fn decode(file: File) -> Result<Vec<Record>, String> {
    let length = file.metadata().map(|m| m.len()).unwrap_or(0);
    let damaged = |e: parquet::errors::ParquetError| format!("cannot be decoded: {e}");
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    columns(reader.metadata(), length)?;
    let schema = reader.metadata().file_metadata().schema();
    let (kept, left): (Vec<_>, Vec<_>) =
        schema.get_fields().iter().cloned().partition(|field| is_read(field));
    let unread: Vec<String> =
        left.iter().map(|field| format!("`{}` ({})", field.name(), kind(field))).collect();
    if kept.is_empty() {
        return Err(format!(
            "none of its columns holds text, numbers, lists or structs: {}",
            unread.join(", ")
        ));
    }
    let unread: Option<Rc<str>> = (!unread.is_empty()).then(|| unread.join(", ").into());
    let kept = Type::group_type_builder(schema.name()).with_fields(kept).build().map_err(damaged)?;
    let rows = reader.get_row_iter(Some(kept)).map_err(damaged)?;
    rows.enumerate()
        .map(|(i, row)| {
            let row = row.map_err(|e| format!("row {} cannot be decoded: {e}", i + 1))?;
            let cells = row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect();
            Ok(Record::new(Place::Row(i + 1), cells, unread.clone()))
        })
        .collect()
}

/// Refuses the first column that does not lie within the file, or is packed in a way that this program cannot unpack.
fn columns(data: &ParquetMetaData, length: u64) -> Result<(), String> {
    for column in data.row_groups().iter().flat_map(|group| group.columns()) {
        let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
        let end = start.checked_add(column.compressed_size());
        if start < 0 || column.compressed_size() < 0 || end.is_none_or(|end| end.unsigned_abs() > length) {
            let name = column.column_path().string();
            return Err(format!(
                "column `{name}` should lie outside the file, so it is damaged or cut short"
            ));
        }
        match column.compression() {
            Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_) | Compression::GZIP(_) => {
            }
            other => {
                let (column, other) = (column.column_path().string(), other.to_string());
                let other = other.split('(').next().unwrap_or_default();
                return Err(format!(
                    "column `{column}` is compressed with {other}; snappy, zstd, gzip and none are read: write the file \
                     again with one of these"
                ));
            }
        }
    }
    Ok(())
}

/// Whether a column, with all that is nested in it, is of a type that rows can hold.
fn is_read(field: &Type) -> bool {
    let info = field.get_basic_info();
    let whole = matches!(info.logical_type_ref(), None | Some(LogicalType::Integer { .. }));
    let list = |inner: &Type| {
        inner.get_basic_info().has_repetition() && inner.get_basic_info().repetition() == Repetition::REPEATED
    };
    match (field, info.converted_type()) {
        (Type::PrimitiveType { physical_type, .. }, converted) => match (physical_type, converted) {
            (Physical::BOOLEAN | Physical::FLOAT | Physical::DOUBLE, _) => true,
            (Physical::INT32, ConvertedType::INT_8 | ConvertedType::INT_16 | ConvertedType::INT_32) => true,
            (Physical::INT32, ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32) => {
                true
            }
            (Physical::INT64, ConvertedType::INT_64 | ConvertedType::UINT_64) => true,
            (Physical::INT32 | Physical::INT64, ConvertedType::NONE) => whole,
            (Physical::BYTE_ARRAY, ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON) => true,
            (Physical::FIXED_LEN_BYTE_ARRAY, ConvertedType::NONE) => {
                matches!(info.logical_type_ref(), Some(LogicalType::Float16))
            }
            _ => false,
        },
        (Type::GroupType { fields, .. }, ConvertedType::LIST) => match fields.as_slice() {
            [inner] if list(inner) => match inner.as_ref() {
                Type::GroupType { fields, .. } => {
                    !fields.is_empty() && fields.iter().all(|field| is_read(field))
                }
                plain => is_read(plain),
            },
            _ => false,
        },
        (Type::GroupType { fields, .. }, ConvertedType::NONE) => {
            !fields.is_empty() && fields.iter().all(|field| is_read(field))
        }
        _ => false,
    }
}

/// A column's type in words for a message.
fn kind(field: &Type) -> String {
    let info = field.get_basic_info();
    match (field, info.logical_type_ref(), info.converted_type()) {
        (_, Some(logical), _) => {
            let name = format!("{logical:?}");
            name.split([' ', '(', '{']).next().unwrap_or_default().to_lowercase()
        }
        (Type::PrimitiveType { physical_type, .. }, _, ConvertedType::NONE) => match physical_type {
            Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY => "bytes".into(),
            Physical::INT96 => "timestamp".into(),
            other => other.to_string().to_lowercase(),
        },
        (Type::GroupType { .. }, _, ConvertedType::NONE) => "a struct with such a part".into(),
        (_, _, converted) => converted.to_string().to_lowercase(),
    }
}

fn value(field: &Field) -> Value {
    let single = |number: f32| number.to_string().parse().unwrap_or(f64::NAN);
    let float = |number: f64| Number::from_f64(number).map_or(Value::Null, Value::Number);
    match field {
        Field::Bool(yes) => Value::from(*yes),
        Field::Byte(n) => Value::from(*n),
        Field::Short(n) => Value::from(*n),
        Field::Int(n) => Value::from(*n),
        Field::Long(n) => Value::from(*n),
        Field::UByte(n) => Value::from(*n),
        Field::UShort(n) => Value::from(*n),
        Field::UInt(n) => Value::from(*n),
        Field::ULong(n) => Value::from(*n),
        // 3.8 of 32 bits is written as 3.8, as JSON would have it, not as the 64 bits nearest to it.
        Field::Float16(n) => float(single(n.to_f32())),
        Field::Float(n) => float(single(*n)),
        Field::Double(n) => float(*n),
        Field::Str(text) => Value::from(text.as_str()),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::Group(row) => Value::Object(
            row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect::<Map<_, _>>(),
        ),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests;

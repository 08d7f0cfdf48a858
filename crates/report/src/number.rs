//! How numbers are shown to people, and how a record keeps those that JSON cannot hold.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `value` with `digits` decimals; thousands are grouped from 10,000 on.
///
/// Zero never carries a sign, and values that are not finite read `NaN`, `∞`, `-∞`.
pub fn fixed(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return not_finite(value).to_owned();
    }
    let mut text = format!("{value:.digits$}");
    if text.starts_with('-') && text.bytes().all(|b| matches!(b, b'-' | b'0' | b'.')) {
        text.remove(0);
    }
    if value.abs() < 10_000.0 {
        return text;
    }
    group_thousands(&text)
}

fn not_finite(value: f64) -> &'static str {
    match value {
        v if v.is_nan() => "NaN",
        v if v > 0.0 => "∞",
        _ => "-∞",
    }
}

fn group_thousands(text: &str) -> String {
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |r| ("-", r));
    let (whole, fraction) = rest.find('.').map_or((rest, ""), |dot| rest.split_at(dot));
    let mut grouped = String::from(sign);
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

/// `value` with four significant digits, for places that know nothing about its scale.
pub fn compact(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() || size == 0.0 {
        return fixed(value, 0);
    }
    if !(1e-4..1e9).contains(&size) {
        let text = format!("{value:.3e}");
        let (lead, power) = text.split_once('e').unwrap_or((&text, "0"));
        let lead = lead.trim_end_matches('0').trim_end_matches('.');
        return format!("{lead}e{power}");
    }
    let before_point = size.log10().floor() as i32 + 1;
    let text = fixed(value, (4 - before_point).clamp(0, 8) as usize);
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A length of time in seconds, as a person says it: `0.42 s`, `3 min 05 s`, `2 h 07 min`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "unknown".to_owned();
    }
    if seconds < 10.0 {
        return format!("{seconds:.2} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..=59 => format!("{whole} s"),
        60..=3599 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A number of bytes in binary units: `812 B`, `41.3 MiB`, `1.92 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [(&str, f64, usize); 3] =
        [("GiB", 1_073_741_824.0, 2), ("MiB", 1_048_576.0, 1), ("KiB", 1024.0, 1)];
    let value = count as f64;
    for (unit, size, digits) in UNITS {
        if value >= size {
            return format!("{:.digits$} {unit}", value / size);
        }
    }
    format!("{count} B")
}

/// The typographic minus sign, for pages and pictures (files for programs keep the hyphen).
pub(crate) fn typographic(text: &str) -> String {
    let number =
        text.strip_prefix('-').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || c == '∞'));
    number.map_or_else(|| text.to_owned(), |rest| format!("\u{2212}{rest}"))
}

/// A number on the wire: JSON has no NaN and no infinity, and a diverged run has both.
#[derive(Clone, Copy)]
pub(crate) struct Wire(f64);

impl Serialize for Wire {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() {
            serializer.serialize_f64(self.0)
        } else {
            serializer.serialize_str(not_finite(self.0))
        }
    }
}

impl<'de> Deserialize<'de> for Wire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(f64),
            Name(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(value) => Ok(Self(value)),
            Either::Name(name) => match name.as_str() {
                "NaN" => Ok(Self(f64::NAN)),
                "∞" => Ok(Self(f64::INFINITY)),
                "-∞" => Ok(Self(f64::NEG_INFINITY)),
                _ => Err(serde::de::Error::custom(format!("{name:?} is not a number"))),
            },
        }
    }
}

/// Types made of `f64` that [`exact`] can keep, whatever their values are.
pub(crate) trait Numeric: Sized {
    type Kept: Serialize + DeserializeOwned;
    fn keep(&self) -> Self::Kept;
    fn restore(kept: Self::Kept) -> Self;
}

impl Numeric for f64 {
    type Kept = Wire;
    fn keep(&self) -> Wire {
        Wire(*self)
    }
    fn restore(kept: Wire) -> Self {
        kept.0
    }
}

impl<A: Numeric, B: Numeric> Numeric for (A, B) {
    type Kept = (A::Kept, B::Kept);
    fn keep(&self) -> Self::Kept {
        (self.0.keep(), self.1.keep())
    }
    fn restore(kept: Self::Kept) -> Self {
        (A::restore(kept.0), B::restore(kept.1))
    }
}

impl<T: Numeric> Numeric for Option<T> {
    type Kept = Option<T::Kept>;
    fn keep(&self) -> Self::Kept {
        self.as_ref().map(T::keep)
    }
    fn restore(kept: Self::Kept) -> Self {
        kept.map(T::restore)
    }
}

impl<T: Numeric> Numeric for Vec<T> {
    type Kept = Vec<T::Kept>;
    fn keep(&self) -> Self::Kept {
        self.iter().map(T::keep).collect()
    }
    fn restore(kept: Self::Kept) -> Self {
        kept.into_iter().map(T::restore).collect()
    }
}

/// `#[serde(with = "crate::number::exact")]` for fields made of `f64`.
pub(crate) mod exact {
    use super::{Deserialize, Deserializer, Numeric, Serialize, Serializer};

    pub(crate) fn serialize<T: Numeric, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        value.keep().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T: Numeric, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        T::Kept::deserialize(deserializer).map(T::restore)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_groups_thousands_and_drops_the_sign_of_zero() {
        assert_eq!(fixed(1_234_567.891, 1), "1,234,567.9");
        assert_eq!(fixed(-12_345.0, 0), "-12,345");
        assert_eq!(fixed(9_999.0, 0), "9999");
        assert_eq!(fixed(-0.0004, 3), "0.000");
        assert_eq!(fixed(-0.0006, 3), "-0.001");
        assert_eq!(fixed(f64::NAN, 2), "NaN");
        assert_eq!(fixed(f64::NEG_INFINITY, 2), "-∞");
    }

    #[test]
    fn compact_keeps_four_significant_digits() {
        assert_eq!(compact(0.123_456), "0.1235");
        assert_eq!(compact(123.0), "123");
        assert_eq!(compact(45_678.9), "45,679");
        assert_eq!(compact(3.2e-5), "3.2e-5");
        assert_eq!(compact(0.0), "0");
    }

    #[test]
    fn times_and_sizes_read_as_people_say_them() {
        assert_eq!(duration(0.417), "0.42 s");
        assert_eq!(duration(59.6), "1 min 00 s");
        assert_eq!(duration(185.2), "3 min 05 s");
        assert_eq!(duration(7_620.0), "2 h 07 min");
        assert_eq!(duration(f64::NAN), "unknown");
        assert_eq!(bytes(812), "812 B");
        assert_eq!(bytes(43_306_189), "41.3 MiB");
        assert_eq!(bytes(2_061_584_302), "1.92 GiB");
    }

    #[test]
    fn minus_is_typographic_only_before_a_number() {
        assert_eq!(typographic("-3.5"), "\u{2212}3.5");
        assert_eq!(typographic("-flag"), "-flag");
    }

    #[test]
    fn numbers_that_json_lacks_survive_it() {
        let row: Vec<Option<(f64, f64)>> = vec![Some((f64::NAN, 0.5)), None];
        let text = serde_json::to_string(&row.keep()).unwrap();
        assert_eq!(text, r#"[["NaN",0.5],null]"#);
        let back = Vec::<Option<(f64, f64)>>::restore(serde_json::from_str(&text).unwrap());
        assert!(back[0].unwrap().0.is_nan());
        assert_eq!(back[0].unwrap().1, 0.5);
        assert!(serde_json::from_str::<Wire>("\"12\"").is_err());
    }
}

//! A minijinja environment that renders as transformers' jinja2 does.
//!
//! Blocks trim the line break after them and the blanks before them, nothing is HTML-escaped,
//! values print as Python prints them, strings have Python's methods, and `tojson` writes what
//! `json.dumps(..., ensure_ascii=False)` writes.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};
use serde::Serialize;

use crate::calendar;

/// The environment for chat templates; `now` is what `strftime_now` formats (seconds since 1970, UTC).
pub(crate) fn environment(now: i64) -> Environment<'static> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    env.set_syntax(syntax.expect("the default delimiters are valid"));
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.add_filter("tojson", tojson);
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    env.add_function("strftime_now", move |format: String| -> Result<String, Error> {
        calendar::strftime(&format, now).map_err(|why| Error::new(ErrorKind::InvalidOperation, why))
    });
    env
}

/// `json.dumps(value, ensure_ascii=False)` with Python's separators, or indented.
fn tojson(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let sort: Option<bool> = options.get("sort_keys")?;
    let _ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let broken = |e: &dyn std::fmt::Display| Error::new(ErrorKind::BadSerialization, e.to_string());
    let mut json = serde_json::to_value(&value).map_err(|e| broken(&e))?;
    if sort == Some(true) {
        json.sort_all_objects();
    }
    let mut bytes = Vec::new();
    let done = match indent {
        None => json.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, PythonJson)),
        Some(width) => {
            let indent = " ".repeat(width);
            let pretty = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            json.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, pretty))
        }
    };
    done.map_err(|e| broken(&e))?;
    Ok(Value::from_safe_string(String::from_utf8(bytes).map_err(|e| broken(&e))?))
}

/// `, ` between items and `: ` after keys, on one line.
struct PythonJson;

impl serde_json::ser::Formatter for PythonJson {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

/// Replace transformers' `{% generation %}` markers by blocks that print the same and that minijinja
/// knows: `{% if true %}` and `{% endif %}`, white-space marks kept.
pub(crate) fn without_generation_markers(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(open) = rest.find("{%") {
        let Some(length) = rest[open..].find("%}") else { break };
        let tag = &rest[open + 2..open + length];
        out.push_str(&rest[..open + 2]);
        let name = tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let as_known = match name {
            "generation" => tag.replacen("generation", "if true", 1),
            "endgeneration" => tag.replacen("endgeneration", "endif", 1),
            _ => tag.to_owned(),
        };
        out.push_str(&as_known);
        rest = &rest[open + length..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::{context, value::Serde};

    fn show(source: &str) -> String {
        let source = without_generation_markers(source);
        environment(1_732_492_845)
            .render_str(
                &source,
                context! {
                    none => (), yes => true, text => "a<b> é \"q\"\n", list => vec![1, 2, 3],
                    map => Serde(serde_json::json!({"zeta": 1.5, "alpha": [null, false], "k": "ü&"})),
                },
            )
            .expect("the template renders")
    }

    #[test]
    fn values_print_as_python_prints_them() {
        assert_eq!(show("{{ none }} {{ yes }} {{ not yes }} [{{ missing }}]"), "None True False []");
        assert_eq!(show("{{ text }}"), "a<b> é \"q\"\n");
    }

    #[test]
    fn tojson_is_json_dumps_without_ascii_escapes_or_html() {
        assert_eq!(show("{{ map | tojson }}"), r#"{"zeta": 1.5, "alpha": [null, false], "k": "ü&"}"#);
        assert_eq!(show("{{ text | tojson }}"), r#""a<b> é \"q\"\n""#);
        assert_eq!(show("{{ list | tojson(indent=3) }}"), "[\n   1,\n   2,\n   3\n]");
    }

    #[test]
    fn python_methods_and_loop_controls_work() {
        assert_eq!(show("{{ ' x '.strip() + 'a,b'.split(',')[1] + 'Q'.lower() }}"), "xbq");
        assert_eq!(
            show("{% for i in list %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}"),
            "13"
        );
    }

    #[test]
    fn generation_markers_keep_their_white_space_marks() {
        let source = "a \n  {%- generation %}\nb{% endgeneration -%}  \n c";
        assert_eq!(show(source), "abc");
        assert_eq!(show("{% generation %}x{% endgeneration %}"), "x");
    }

    #[test]
    fn the_date_is_the_one_given() {
        assert_eq!(show("{{ strftime_now('%d %b %Y') }}"), "25 Nov 2024");
    }
}

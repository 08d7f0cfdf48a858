//! Text from outside (labels, generated answers, file names) made harmless for each format.

/// For HTML and SVG, in text and in double-quoted attributes.
///
/// Control characters that XML forbids become the replacement character: an SVG file with one
/// of them does not open at all.
pub fn markup(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' => out.push(c),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// For Markdown text: characters that could start markup are escaped, lines are joined.
pub(crate) fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\\' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '$' => {
                out.push('\\');
                out.push(c);
            }
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// For a terminal: a control character would move the cursor or change colours, so its
/// picture (␛ for ESC) is shown; line breaks become blanks.
pub(crate) fn terminal(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' | '\r' => ' ',
            '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
            c if c.is_control() || is_direction_override(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Characters that reorder what follows on the line, and so could make a table lie.
fn is_direction_override(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` in runs of (is it code, the run): a pair of backticks makes a run of code.
///
/// A backtick without its partner stays as it is.
pub(crate) fn code_runs(text: &str) -> Vec<(bool, &str)> {
    let mut runs = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('`') {
        let Some((code, tail)) = after.split_once('`') else {
            break;
        };
        runs.push((false, before));
        runs.push((true, code));
        rest = tail;
    }
    runs.push((false, rest));
    runs.retain(|(_, run)| !run.is_empty());
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_cannot_leave_its_place() {
        assert_eq!(
            markup("</script><img src=x onerror=\"a('b')\">&\u{1b}[31m"),
            "&lt;/script&gt;&lt;img src=x onerror=&quot;a(&#39;b&#39;)&quot;&gt;&amp;\u{fffd}[31m"
        );
    }

    #[test]
    fn markdown_stays_one_line_of_plain_text() {
        assert_eq!(markdown("a|b *c* <i>\n# [x](y)"), "a\\|b \\*c\\* &lt;i&gt; \\# \\[x\\](y)");
    }

    #[test]
    fn a_terminal_gets_no_control_codes() {
        assert_eq!(terminal("a\u{1b}[31mred\nb\u{202e}c"), "a␛[31mred b\u{fffd}c");
    }

    #[test]
    fn backticks_pair_up_or_stay() {
        assert_eq!(code_runs("run `sibo` now"), [(false, "run "), (true, "sibo"), (false, " now")]);
        assert_eq!(code_runs("a ` b"), [(false, "a ` b")]);
    }
}

//! Addresses and forms: percent-encoding, and names with values.

/// Names and values in the order in which they stand.
pub type Fields = Vec<(String, String)>;

/// The text behind percent-encoding; with `plus`, as in forms, `+` is a space. `None` where it is no UTF-8 or holds a
/// character that no name here has (a control character).
pub fn decode(text: &str, plus: bool) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let digit = |i: usize| char::from(*bytes.get(i)?).to_digit(16);
                out.push((digit(at + 1)? * 16 + digit(at + 2)?) as u8);
                at += 2;
            }
            b'+' if plus => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8(out).ok().filter(|text| !text.contains('\0'))
}

/// Every byte but letters, digits and `-._~/` as `%XX`: fit for a path and for a value.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// `a=1&b=two+words` as names and values; `None` where an encoding is broken.
pub fn fields(text: &str) -> Option<Fields> {
    let one = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decode(name, true)?, decode(value, true)?))
    };
    text.split('&').filter(|pair| !pair.is_empty()).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_comes_back() {
        for text in ["runs/a b", "λ = 0.2 & more", "100%", "a+b", "../x?y#z"] {
            assert_eq!(decode(&encode(text), false).as_deref(), Some(text));
            assert_eq!(decode(&encode(text), true).as_deref(), Some(text));
        }
        assert_eq!(encode("a b/c"), "a%20b/c");
    }

    #[test]
    fn broken_encodings_are_nothing() {
        for text in ["%", "%4", "%zz", "%ff%fe", "a%00b"] {
            assert_eq!(decode(text, false), None, "{text}");
        }
    }

    #[test]
    fn forms_are_names_and_values() {
        let expected = [("run", "a b"), ("run", "c"), ("x", "")].map(|(n, v)| (n.into(), v.into()));
        assert_eq!(fields("run=a+b&run=%63&&x").unwrap(), expected);
        assert_eq!(fields("x=%f"), None);
    }
}

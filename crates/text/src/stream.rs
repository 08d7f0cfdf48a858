//! Text while it is generated: whole characters only, and an end at a stop string.

use crate::{TextError, Tokenizer};

/// What a decoder writes where bytes are not (yet) a character.
const INCOMPLETE: char = '\u{FFFD}';

/// Turns ids, one after the other, into text that only ever grows by whole characters.
///
/// A token may be half a character (byte-level vocabularies) or depend on the one before (a leading
/// space): the last tokens are decoded together, and the text is given out once it is complete.
#[derive(Debug, Clone, Default)]
pub struct StreamDecoder {
    ids: Vec<u32>,
    start: usize,
    given: usize,
}

impl StreamDecoder {
    /// A decoder before its first id.
    pub fn new() -> Self {
        Self::default()
    }

    /// Add one id. Returns the text that is complete now and was not before; empty if none.
    ///
    /// # Errors
    /// The tokenizer's own failure.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String, TextError> {
        self.ids.push(id);
        let new = self.pending(tokenizer)?;
        if new.is_empty() || new.ends_with(INCOMPLETE) {
            return Ok(String::new());
        }
        self.start = self.given;
        self.given = self.ids.len();
        Ok(new)
    }

    /// The text still held back at the end: bytes that never became a character.
    ///
    /// # Errors
    /// The tokenizer's own failure.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String, TextError> {
        let rest = self.pending(tokenizer)?;
        self.given = self.ids.len();
        self.start = self.given;
        Ok(rest)
    }

    /// Text of the ids not given out yet, in the context of those given out last.
    fn pending(&self, tokenizer: &Tokenizer) -> Result<String, TextError> {
        let before = tokenizer.decode(&self.ids[self.start..self.given])?;
        let now = tokenizer.decode(&self.ids[self.start..])?;
        // A clean-up rule (WordPiece) may rewrite the joint, so the common part is looked for.
        let shared = before.char_indices().zip(now.chars()).take_while(|((_, a), b)| a == b).count();
        Ok(now.chars().skip(shared).collect())
    }
}

/// Ends text at the first of several stop strings, holding back what may yet become one.
#[derive(Debug, Clone)]
pub struct StopText {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopText {
    /// Watch for these strings; empty ones are ignored.
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        let stops = stops.into_iter().filter(|s| !s.is_empty()).collect();
        StopText { stops, held: String::new(), stopped: false }
    }

    /// Add text. Returns what may be shown now; after a stop string, nothing more.
    pub fn push(&mut self, text: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, rest)
    }

    /// Whether a stop string has come.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// The text still held back at the end.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes at the end of `text` that are the beginning of `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let starts = stop.char_indices().map(|(at, _)| at).skip(1);
    starts.filter(|&n| text.ends_with(&stop[..n])).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(name: &str) -> Tokenizer {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
        Tokenizer::from_folder(&folder).expect("the fixture loads")
    }

    #[test]
    fn pieces_are_whole_characters_and_join_to_the_whole_text() {
        let text = "Someone plays — naïve 日本 🎸! 42";
        for name in ["roberta", "llama", "chatml"] {
            let tokenizer = load(name);
            let ids = tokenizer.encode_bare(text).expect("encodes");
            let mut stream = StreamDecoder::new();
            let mut out = String::new();
            for id in &ids {
                let piece = stream.push(&tokenizer, *id).expect("decodes");
                assert!(!piece.contains(INCOMPLETE), "{name}: {piece:?}");
                out += &piece;
                assert!(text.starts_with(&out), "{name}: {out:?}");
            }
            out += &stream.finish(&tokenizer).expect("decodes");
            assert_eq!(out, text, "{name}");
        }
    }

    #[test]
    fn half_a_character_is_held_until_the_end() {
        let tokenizer = load("chatml");
        let ids = tokenizer.encode_bare("a🎸").expect("encodes");
        let mut stream = StreamDecoder::new();
        let mut out = String::new();
        for id in &ids[..ids.len() - 1] {
            out += &stream.push(&tokenizer, *id).expect("decodes");
        }
        assert_eq!(out, "a");
        assert_eq!(stream.finish(&tokenizer).expect("decodes"), "\u{FFFD}");
    }

    #[test]
    fn a_stop_string_ends_the_text_even_across_pieces() {
        let mut stop = StopText::new(["\nQ:".to_owned(), "##".to_owned(), String::new()]);
        assert_eq!(stop.push("one\n"), "one");
        assert_eq!(stop.push("two#"), "\ntwo");
        assert_eq!(stop.push("3\nQ"), "#3");
        assert!(!stop.stopped());
        assert_eq!(stop.push(": four"), "");
        assert!(stop.stopped());
        assert_eq!((stop.push("more"), stop.finish()), (String::new(), String::new()));
    }

    #[test]
    fn what_only_looked_like_a_stop_string_comes_at_the_end() {
        let mut stop = StopText::new(["éé!".to_owned()]);
        assert_eq!(stop.push("aéé"), "a");
        assert_eq!(stop.finish(), "éé");
    }
}

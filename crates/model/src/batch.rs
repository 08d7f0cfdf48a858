//! Rows of tokens packed end to end; no padding token is ever made.

use crate::Error;
use crate::arch::{Arch, Positions};
use sibo_kernels::attention::Seq;

/// One input row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Token types, empty for zeros.
    pub types: Vec<u32>,
    /// The address of the row's dropout masks: its place in the data set.
    pub sample: u64,
}

/// What the rows should give.
#[derive(Debug, Clone, PartialEq)]
pub enum Labels {
    /// Nothing is asked.
    None,
    /// One id or -100 for each token of each row; the label at t is predicted from t - 1.
    Tokens(Vec<Vec<i64>>),
    /// One class for each row.
    Classes(Vec<u32>),
    /// One number for each row.
    Values(Vec<f32>),
}

/// Packed rows, checked against a model.
#[derive(Debug, Clone)]
pub struct Batch {
    /// (T) token ids.
    pub(crate) ids: Vec<u32>,
    /// (T) token types.
    pub(crate) types: Vec<u32>,
    /// (T) rows of the position table, or rotary positions.
    pub(crate) positions: Vec<u32>,
    /// (T) place of the token in its row, the address of its dropout masks.
    pub(crate) places: Vec<u32>,
    /// (T) sample of each token's row.
    pub(crate) samples: Vec<u64>,
    /// Where each row lies.
    pub(crate) seqs: Vec<Seq>,
}

impl Batch {
    /// Packs `rows` for a model of this structure; a row that it cannot take is named.
    pub fn new(arch: &Arch, rows: &[Row]) -> Result<Self, Error> {
        let mut batch = Batch {
            ids: vec![],
            types: vec![],
            positions: vec![],
            places: vec![],
            samples: vec![],
            seqs: vec![],
        };
        for (at, row) in rows.iter().enumerate() {
            check(arch, row).map_err(|reason| Error::Row { row: at, reason })?;
            batch.push(arch, row, 0);
        }
        Ok(batch)
    }

    /// Packs the next tokens of rows whose first `past` tokens are in a cache.
    pub(crate) fn continuing(arch: &Arch, rows: &[(Row, usize)]) -> Self {
        let mut batch = Batch {
            ids: vec![],
            types: vec![],
            positions: vec![],
            places: vec![],
            samples: vec![],
            seqs: vec![],
        };
        for (row, past) in rows {
            batch.push(arch, row, *past);
        }
        batch
    }

    fn push(&mut self, arch: &Arch, row: &Row, past: usize) {
        let len = row.ids.len();
        self.seqs.push(Seq { start: self.ids.len(), len });
        self.ids.extend(&row.ids);
        self.places.extend((past..past + len).map(|p| p as u32));
        self.samples.extend(std::iter::repeat_n(row.sample, len));
        match row.types.is_empty() {
            true => self.types.extend(std::iter::repeat_n(0, len)),
            false => self.types.extend(&row.types),
        }
        match arch.positions {
            Positions::Learned { skip_padding: Some(padding), .. } => {
                // RoBERTa numbers from padding + 1 the tokens that are not padding; those keep `padding`.
                let mut count = 0;
                self.positions.extend(row.ids.iter().map(|id| {
                    if *id == padding {
                        return padding;
                    }
                    count += 1;
                    padding + count
                }));
            }
            _ => self.positions.extend((past..past + len).map(|p| p as u32)),
        }
    }

    /// T.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.seqs.len()
    }

    /// Where row `row` lies among the packed tokens.
    pub fn range(&self, row: usize) -> std::ops::Range<usize> {
        let Seq { start, len } = self.seqs[row];
        start..start + len
    }
}

/// Why a model of this structure cannot take `row`, in words.
fn check(arch: &Arch, row: &Row) -> Result<(), String> {
    let len = row.ids.len();
    if len == 0 {
        return Err("it holds no token; every row needs one at least".into());
    }
    if let Some(id) = row.ids.iter().find(|id| **id as usize >= arch.vocab) {
        return Err(format!(
            "token id {id} is out of range: the model has {} tokens, 0 to {}",
            arch.vocab,
            arch.vocab - 1
        ));
    }
    if let Some(max) = arch.max_len.filter(|max| len > *max) {
        return Err(format!("it holds {len} tokens, and the model has positions for {max}: shorten it"));
    }
    if let Some(window) = arch.window.filter(|w| len > *w) {
        return Err(format!(
            "it holds {len} tokens, more than the sliding window of {window}, which is not implemented: shorten it"
        ));
    }
    if !row.types.is_empty() && row.types.len() != len {
        return Err(format!("it has {len} tokens but {} token types", row.types.len()));
    }
    match row.types.iter().find(|t| **t as usize >= arch.types.max(1)) {
        Some(t) if arch.types == 0 => Err(format!("token type {t}, but this model has no token types")),
        Some(t) => Err(format!("token type {t} is out of range: the model has {}", arch.types)),
        None => Ok(()),
    }
}

impl Labels {
    /// Checks the labels against the rows and the number of classes (`None`: a language model).
    pub fn check(&self, rows: &[Row], arch: &Arch) -> Result<(), Error> {
        let wrong = |row: usize, reason: String| Err(Error::Row { row, reason });
        let count = match self {
            Labels::None => return Ok(()),
            Labels::Tokens(labels) => labels.len(),
            Labels::Classes(labels) => labels.len(),
            Labels::Values(labels) => labels.len(),
        };
        if count != rows.len() {
            return Err(Error::Refused(format!(
                "{count} labels for {} rows: every row needs one",
                rows.len()
            )));
        }
        match self {
            Labels::Tokens(labels) => {
                if arch.head != crate::HeadKind::CausalLm {
                    return Err(Error::Refused("token labels need a causal language model".into()));
                }
                for (at, (row, labels)) in rows.iter().zip(labels).enumerate() {
                    if labels.len() != row.ids.len() {
                        return wrong(at, format!("{} labels for {} tokens", labels.len(), row.ids.len()));
                    }
                    if let Some(l) =
                        labels.iter().find(|l| **l != -100 && !(0..arch.vocab as i64).contains(*l))
                    {
                        return wrong(
                            at,
                            format!("label {l} is neither -100 nor a token id below {}", arch.vocab),
                        );
                    }
                }
                if labels.iter().all(|l| l.iter().skip(1).all(|l| *l == -100)) {
                    return Err(Error::Refused(
                        "no token carries a label (the first of a row cannot): there is nothing to learn"
                            .into(),
                    ));
                }
            }
            Labels::Classes(labels) => {
                let crate::HeadKind::Classes(n) = arch.head else {
                    return Err(Error::Refused("class labels need a classification head".into()));
                };
                if let Some((at, l)) = labels.iter().enumerate().find(|(_, l)| **l as usize >= n) {
                    return wrong(at, format!("label {l} is outside the {n} classes, 0 to {}", n - 1));
                }
            }
            Labels::Values(values) => {
                if arch.head != crate::HeadKind::Classes(1) {
                    return Err(Error::Refused("numbers as labels need a head with one output".into()));
                }
                if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                    return wrong(at, format!("label {} is not a finite number", values[at]));
                }
            }
            Labels::None => {}
        }
        Ok(())
    }
}

//! The frozen matrices of the layers before they are read, and the reading of them: a model that is open knows what it
//! would hold, so that what does not fit is refused, or read in turns, before the disk has been read.

use crate::layer::Layer;
use crate::source::Source;
use crate::stream::{self, Stream, Wanted};
use crate::weight::{Away, Weight};
use crate::{Error, Model};
use sibo_kernels::frozen::{Compute, FrozenWeight};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where the matrices are read from, and for which arithmetic.
pub(crate) struct Base {
    pub(crate) source: Source,
    pub(crate) compute: Compute,
}

impl Base {
    fn read(&mut self, away: &Away, out: usize, inp: usize) -> Result<FrozenWeight, Error> {
        let store = self.source.read(&away.key)?;
        Ok(FrozenWeight::new(out, inp, store, self.compute))
    }
}

/// A reader that failed left nothing half done here.
pub(crate) fn lock(base: &Mutex<Base>) -> MutexGuard<'_, Base> {
    base.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether layer `l` of `layers` is one of the `streamed` that are read in their turn. They lie evenly among the others,
/// which compute while the next one is read.
pub(crate) fn is_streamed(l: usize, streamed: usize, layers: usize) -> bool {
    (l + 1) * streamed / layers != l * streamed / layers
}

impl Model {
    /// Reads the matrices of the layers of a model that is only open ([`Model::open`]), all but `streamed` of them: these
    /// are read again whenever a pass comes by, ahead of it, into memory for [`stream::WINDOW`] layers. Every number is
    /// the same either way. Nothing is done to a model that is read.
    ///
    /// # Errors
    /// Files that cannot be read, and values that are not finite; those of streamed layers are found when they are read
    /// ([`Model::check_base`]).
    pub fn read_base(&mut self, streamed: usize) -> Result<(), Error> {
        let Some(base) = self.base.clone().filter(|_| self.stream.is_none()) else { return Ok(()) };
        let layers = self.layers.len();
        let streamed = streamed.min(layers);
        let mut open = lock(&base);
        let mut report = Vec::new();
        let mut wanted = Vec::new();
        for layer in &mut self.layers {
            let apart = is_streamed(layer.number, streamed, layers);
            let mut own = Vec::new();
            for linear in layer.linears_mut() {
                let Weight::Away(away) = &linear.weight else { continue };
                if apart {
                    own.push(Wanted { key: away.key.clone(), out: linear.out, inp: linear.inp });
                    continue;
                }
                let weight = open.read(away, linear.out, linear.inp)?;
                if weight.has_non_finite() {
                    report.push(not_finite(&away.key));
                }
                linear.weight = Weight::Frozen(Arc::new(weight));
            }
            if !own.is_empty() {
                wanted.push((layer.number, own));
            }
        }
        if !report.is_empty() {
            return Err(Error::Tensors { place: open.source.place.clone(), report: report.join("\n") });
        }
        drop(open);
        match wanted.is_empty() {
            true => self.base = None,
            false => self.stream = Some(Arc::new(Stream::start(base, wanted))),
        }
        Ok(())
    }

    /// Lines of a report on those matrices of the layers that are still to be read and hold what is not finite; nothing is
    /// kept of them.
    pub(crate) fn look_through(&mut self, base: &mut Base) -> Result<Vec<String>, Error> {
        let mut report = Vec::new();
        for linear in self.layers.iter_mut().flat_map(|layer| layer.linears_mut()) {
            let Weight::Away(away) = &linear.weight else { continue };
            if base.read(away, linear.out, linear.inp)?.has_non_finite() {
                report.push(not_finite(&away.key));
            }
        }
        Ok(report)
    }

    /// Whether matrices of its layers are still to be read ([`Model::read_base`]).
    pub fn is_open(&self) -> bool {
        self.base.is_some() && self.stream.is_none()
    }

    /// Layers that are read whenever a pass comes by.
    pub fn streamed(&self) -> usize {
        self.stream.as_ref().map_or(0, |s| s.layers())
    }

    /// What reading them has taken so far.
    pub fn streaming(&self) -> Option<stream::Streaming> {
        self.stream.as_ref().map(|s| s.told())
    }

    /// Whether all that passes have read so far was there and sound: where it was not, their numbers are NaN. To be
    /// asked after a pass, before its numbers are used.
    ///
    /// # Errors
    /// What went wrong when a layer was read.
    pub fn check_base(&self) -> Result<(), Error> {
        self.stream.as_ref().map_or(Ok(()), |s| s.check())
    }

    /// A frozen matrix of a layer that is not in memory, widened.
    pub(crate) fn away_values(&self, away: &Away, out: usize, inp: usize) -> Result<Vec<f32>, Error> {
        let base = self.base.as_ref().expect("what is away has a place that it can be read from");
        Ok(lock(base).read(away, out, inp)?.to_f32())
    }
}

/// A line of a report on tensors.
pub(crate) fn not_finite(name: &str) -> String {
    format!("  not finite: {name} holds NaN or infinity")
}

impl Layer {
    /// All linears, in the order in which they are read.
    pub(crate) fn linears_mut(&mut self) -> impl Iterator<Item = &mut crate::linear::Linear> {
        self.attention.linears_mut().into_iter().chain(self.ffn.linears_mut())
    }

    pub(crate) fn linears(&self) -> impl Iterator<Item = &crate::linear::Linear> {
        self.attention.linears().into_iter().chain(self.ffn.linears())
    }
}

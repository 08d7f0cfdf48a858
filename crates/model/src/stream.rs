//! Layers whose matrices stay on the disk: a thread of its own reads the next one while the one before computes.
//!
//! A pass says at its start in which order it will use layers (up, and down again where it goes backward). The reader
//! fills a small number of places in that order; a place is taken from the layer that is needed again last. So what a
//! pass used last is still there when the next one begins with it, and at the turn from forward to backward nothing is
//! read twice. Files are read, not mapped: the memory taken is what was planned, and a file that changes or shrinks is an
//! error in words.

use crate::Error;
use crate::base::{Base, lock, not_finite};
use crate::layer::Layer;
use crate::weight::Weight;
use sibo_files::Values;
use sibo_kernels::frozen::{Compute, FrozenWeight, Store};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Layers that are in memory at a time: one that computes, and one that is read.
pub const WINDOW: usize = 2;

/// A matrix of a streamed layer.
pub(crate) struct Wanted {
    pub(crate) key: String,
    pub(crate) out: usize,
    pub(crate) inp: usize,
}

/// What reading streamed layers has taken.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Streaming {
    /// Layers that are streamed.
    pub layers: usize,
    /// Bytes that were read from files.
    pub bytes: u64,
    /// Time in which the reader read.
    pub reading: Duration,
    /// Time in which it put what it had read into the order of the products.
    pub packing: Duration,
    /// Time in which a pass waited for it.
    pub waited: Duration,
}

type Weights = Vec<Arc<FrozenWeight>>;

/// A place for the matrices of one layer.
#[derive(Default)]
struct Slot {
    layer: Option<usize>,
    weights: Weights,
}

#[derive(Default)]
struct State {
    /// The layers of the pass, in the order of their use.
    order: Vec<usize>,
    /// How many uses are over.
    at: usize,
    slots: Vec<Slot>,
    failed: Option<String>,
    stop: bool,
    told: Streaming,
}

impl State {
    /// What is to be read next, and where to: a place whose layer is needed later than it, if there is one.
    fn next(&self) -> Option<(usize, usize)> {
        let rest = self.order.get(self.at..).filter(|_| self.failed.is_none())?;
        let there = |l: &usize| self.slots.iter().any(|s| s.layer == Some(*l));
        let (when, layer) = rest.iter().enumerate().find(|(_, l)| !there(l))?;
        let needed = |s: &Slot| s.layer.and_then(|l| rest.iter().position(|o| *o == l)).unwrap_or(usize::MAX);
        let (slot, last) = self.slots.iter().map(needed).enumerate().max_by_key(|(_, needed)| *needed)?;
        (last > when).then_some((*layer, slot))
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the state is half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reader, and the layers that it reads.
pub(crate) struct Stream {
    shared: Arc<Shared>,
    wanted: Arc<BTreeMap<usize, Vec<Wanted>>>,
    compute: Compute,
    /// One pass at a time: there is memory for no more.
    pass: Mutex<()>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    pub(crate) fn start(base: Arc<Mutex<Base>>, wanted: Vec<(usize, Vec<Wanted>)>) -> Stream {
        let wanted: Arc<BTreeMap<usize, Vec<Wanted>>> = Arc::new(wanted.into_iter().collect());
        let compute = lock(&base).compute;
        let slots = (0..WINDOW).map(|_| Slot::default()).collect();
        let told = Streaming { layers: wanted.len(), ..Streaming::default() };
        let state = State { slots, told, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), ..Shared::default() });
        let thread = std::thread::spawn({
            let (shared, wanted) = (shared.clone(), wanted.clone());
            move || read_ahead(&shared, &base, &wanted)
        });
        Stream { shared, wanted, compute, pass: Mutex::new(()), thread: Some(thread) }
    }

    pub(crate) fn layers(&self) -> usize {
        self.wanted.len()
    }

    pub(crate) fn told(&self) -> Streaming {
        self.shared.state().told
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        self.shared.state().failed.clone().map_or(Ok(()), |sentence| Err(Error::Refused(sentence)))
    }

    /// The matrices of a layer whose turn it is; NaN where they could not be read.
    fn take(&self, layer: usize) -> Weights {
        let start = Instant::now();
        let mut state = self.shared.state();
        debug_assert_eq!(state.order.get(state.at), Some(&layer), "a layer out of its turn");
        let weights = loop {
            if let Some(slot) = state.slots.iter().find(|s| s.layer == Some(layer)) {
                break slot.weights.clone();
            }
            if state.failed.is_some() {
                break self.wanted[&layer].iter().map(|w| Arc::new(self.nothing(w))).collect();
            }
            state = self.shared.wait(state);
        };
        state.told.waited += start.elapsed();
        weights
    }

    fn nothing(&self, wanted: &Wanted) -> FrozenWeight {
        let store = Store::F32(vec![f32::NAN; wanted.out * wanted.inp]);
        FrozenWeight::new_alone(wanted.out, wanted.inp, &store, self.compute)
    }

    /// The layer whose turn it was has computed.
    fn done(&self) {
        self.shared.state().at += 1;
        self.shared.changed.notify_all();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.changed.notify_all();
        // A reader that panicked has said so already.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The reader's life. It packs alone: the pool's threads may all be waiting for it.
fn read_ahead(shared: &Shared, base: &Mutex<Base>, wanted: &BTreeMap<usize, Vec<Wanted>>) {
    let mut spare = None;
    let mut state = shared.state();
    while !state.stop {
        let Some((layer, at)) = state.next() else {
            state = shared.wait(state);
            continue;
        };
        let mut slot = std::mem::take(&mut state.slots[at]);
        drop(state);
        let mut told = Streaming::default();
        let read = read_layer(&mut lock(base), &wanted[&layer], &mut slot.weights, &mut spare, &mut told);
        state = shared.state();
        match read {
            Ok(()) => slot.layer = Some(layer),
            Err(error) => {
                slot = Slot::default();
                state.failed = Some(error.to_string());
            }
        }
        state.slots[at] = slot;
        state.told.bytes += told.bytes;
        state.told.reading += told.reading;
        state.told.packing += told.packing;
        shared.changed.notify_all();
    }
}

/// Fills `weights` with the matrices that are wanted, in the memory that they and `spare` have.
fn read_layer(
    base: &mut Base,
    wanted: &[Wanted],
    weights: &mut Weights,
    spare: &mut Option<Values>,
    told: &mut Streaming,
) -> Result<(), Error> {
    weights.truncate(wanted.len());
    for (n, Wanted { key, out, inp }) in wanted.iter().enumerate() {
        let start = Instant::now();
        base.source.check_unchanged(key)?;
        let store = base.source.read_into(key, spare.take())?;
        told.bytes += base.source.bytes_of(key) as u64;
        told.reading += start.elapsed();
        let start = Instant::now();
        let fits = |w: &&mut FrozenWeight| (w.out_features(), w.in_features()) == (*out, *inp);
        match weights.get_mut(n).and_then(Arc::get_mut).filter(fits) {
            Some(weight) => weight.refill(&store),
            None => {
                let weight = Arc::new(FrozenWeight::new_alone(*out, *inp, &store, base.compute));
                weights.splice(n..weights.len().min(n + 1), [weight]);
            }
        }
        told.packing += start.elapsed();
        if weights[n].has_non_finite() {
            let place = base.source.place.clone();
            return Err(Error::Tensors { place, report: not_finite(key) });
        }
        *spare = Some(values(store));
    }
    Ok(())
}

/// The memory of what has been packed.
fn values(store: Store) -> Values {
    match store {
        Store::F32(v) => Values::F32(v),
        Store::Bf16(v) => Values::Bf16(v),
        Store::F16(v) => Values::F16(v),
        Store::I8 { q, .. } => Values::I8(q),
        Store::I4 { q, .. } => Values::I8(q.into_iter().map(|b| b as i8).collect()),
    }
}

/// The layers for one pass.
pub(crate) struct Pass<'a> {
    layers: &'a [Layer],
    stream: Option<(&'a Stream, MutexGuard<'a, ()>)>,
}

impl<'a> Pass<'a> {
    /// Layers will be used in this order, each as often as it is named.
    pub(crate) fn new(
        layers: &'a [Layer],
        stream: Option<&'a Stream>,
        order: impl Iterator<Item = usize>,
    ) -> Self {
        let stream = stream.map(|stream| {
            let turn = stream.pass.lock().unwrap_or_else(PoisonError::into_inner);
            let mut state = stream.shared.state();
            state.order = order.filter(|l| stream.wanted.contains_key(l)).collect();
            state.at = 0;
            drop(state);
            stream.shared.changed.notify_all();
            (stream, turn)
        });
        Pass { layers, stream }
    }

    /// Every layer once, from the first on.
    pub(crate) fn up(layers: &'a [Layer], stream: Option<&'a Stream>) -> Self {
        Pass::new(layers, stream, 0..layers.len())
    }

    /// How many layers the model has.
    pub(crate) fn len(&self) -> usize {
        self.layers.len()
    }

    /// Layer `l`, whose turn it is, with its matrices.
    pub(crate) fn layer(&self, l: usize) -> Turn<'_> {
        match &self.stream {
            Some((stream, _)) if stream.wanted.contains_key(&l) => {
                let mut layer = Box::new(self.layers[l].clone());
                let weights = stream.take(l);
                let away = layer.linears_mut().filter(|linear| matches!(linear.weight, Weight::Away(_)));
                away.zip(weights).for_each(|(linear, weight)| linear.weight = Weight::Frozen(weight));
                Turn(Held::Read(Some(layer), stream))
            }
            _ => Turn(Held::Here(&self.layers[l])),
        }
    }
}

/// A layer while it computes.
pub(crate) struct Turn<'a>(Held<'a>);

enum Held<'a> {
    Here(&'a Layer),
    Read(Option<Box<Layer>>, &'a Stream),
}

impl Deref for Turn<'_> {
    type Target = Layer;

    fn deref(&self) -> &Layer {
        match &self.0 {
            Held::Here(layer) => layer,
            Held::Read(layer, _) => layer.as_ref().expect("it is given up when the turn ends"),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Held::Read(layer, stream) = &mut self.0 {
            // The reader takes the memory over, so it must be the only one to hold it.
            drop(layer.take());
            stream.done();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(order: &[usize], at: usize, slots: &[Option<usize>]) -> State {
        let slots = slots.iter().map(|layer| Slot { layer: *layer, weights: vec![] }).collect();
        State { order: order.to_vec(), at, slots, ..State::default() }
    }

    #[test]
    fn the_next_layer_takes_the_place_of_the_one_that_is_needed_last() {
        assert_eq!(state(&[0, 1, 2], 0, &[None, None]).next().map(|n| n.0), Some(0));
        assert_eq!(state(&[0, 1, 2], 0, &[Some(0), None]).next(), Some((1, 1)));
        // Full of what is needed sooner.
        assert_eq!(state(&[0, 1, 2], 0, &[Some(0), Some(1)]).next(), None);
        assert_eq!(state(&[0, 1, 2], 1, &[Some(0), Some(1)]).next(), Some((2, 0)));
        // At the turn the two upper ones stay.
        let turn = [0, 1, 2, 3, 3, 2, 1, 0];
        assert_eq!(state(&turn, 3, &[Some(2), Some(3)]).next(), None);
        assert_eq!(state(&turn, 5, &[Some(2), Some(3)]).next(), Some((1, 1)));
        assert_eq!(state(&turn, 8, &[Some(0), Some(1)]).next(), None);
        // What the pass before left is not read again.
        assert_eq!(state(&turn, 0, &[Some(0), Some(1)]).next(), None);
    }

    #[test]
    fn streamed_layers_lie_evenly() {
        let of = |streamed| -> Vec<usize> {
            (0..8).filter(|l| crate::base::is_streamed(*l, streamed, 8)).collect()
        };
        assert_eq!(of(2), [3, 7]);
        assert_eq!(of(3), [2, 5, 7]);
        assert_eq!(of(0), [0; 0]);
        assert_eq!(of(8).len(), 8);
    }
}

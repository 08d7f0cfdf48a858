//! A model with an adapter folder on it: whether the folder was trained on this base, and its tensors in their places.

use crate::attach::Slot;
use crate::load::Loaded;
use crate::weight::{Vector, Weight};
use crate::{Error, Model, fingerprint};
use sibo_kernels::frozen::{FrozenWeight, Store};
use sibo_peft::folder::{BaseCopy, Folder};
use sibo_peft::{AdapterConfig, TaskType};
use std::path::Path;
use std::sync::Arc;

impl Model {
    /// Loads a model folder with an adapter folder on it.
    pub fn load_with_adapter(
        model: &Path,
        adapter: &Path,
        options: crate::LoadOptions,
    ) -> Result<Loaded, Error> {
        let mut loaded = Model::open_with_adapter(model, adapter, options)?;
        loaded.model.read_base(0)?;
        Ok(loaded)
    }

    /// The same without reading the matrices of its layers: see [`Model::open`].
    pub fn open_with_adapter(
        model: &Path,
        adapter: &Path,
        mut options: crate::LoadOptions,
    ) -> Result<Loaded, Error> {
        let folder = Folder::open(adapter)?;
        if folder.config.task_type == Some(TaskType::SeqCls) {
            options.classes = folder.classes();
            if options.classes.is_none() {
                return Err(Error::Refused(format!(
                    "{}: task_type is SEQ_CLS, but the adapter holds no classification head; save it with modules_to_save = [\"classifier\"]",
                    adapter.display()
                )));
            }
        }
        let mut loaded = Model::open(model, &options)?;
        loaded.model.put_on(folder, adapter, options.seed)?;
        Ok(loaded)
    }

    /// This base with an adapter folder on it, beside others on the same base: the frozen matrices are shared. `change`
    /// may alter the configuration before it is placed, lambda for example.
    ///
    /// # Errors
    /// The folder is refused as by [`Model::load_with_adapter`], or its classification head has another size.
    pub fn with_adapter(
        &self,
        adapter: &Path,
        change: impl FnOnce(&mut AdapterConfig),
    ) -> Result<Model, Error> {
        let mut folder = Folder::open(adapter)?;
        if let (Some(theirs), Some(own)) = (folder.classes(), self.classes())
            && theirs != own
        {
            return Err(Error::Refused(format!(
                "{}: this adapter's head has {theirs} outputs, and the model was loaded with {own}",
                adapter.display()
            )));
        }
        change(&mut folder.config);
        let mut model = self.clone();
        model.put_on(folder, adapter, crate::LoadOptions::default().seed)?;
        Ok(model)
    }

    fn put_on(&mut self, mut folder: Folder, adapter: &Path, seed: u64) -> Result<(), Error> {
        self.check_fingerprint(&folder, adapter)?;
        folder.settle(&self.shape())?;
        self.attach(&folder.config, seed)?;
        let copies = folder.base_copies(&self.params)?;
        self.take_base_copies(copies, adapter)?;
        folder.fill(&mut self.params)?;
        Ok(())
    }

    /// Puts the base's tensors that an adapter's folder holds (`place`, for messages) in the place of this model's own, as
    /// PEFT does. They are the same numbers unless the adapter was trained on a base whose embedding was changed.
    ///
    /// # Errors
    /// A tensor that this model has not, or not in this shape.
    pub fn take_base_copies(&mut self, copies: Vec<BaseCopy>, place: &Path) -> Result<(), Error> {
        let tie = [format!("{}.weight", self.embedding.words.path), "lm_head.weight".to_string()];
        let (tied, compute) = (self.arch.tied, self.params.compute());
        for BaseCopy { name, shape, values } in copies {
            let own = self.read_tensor(&name)?;
            if own.as_ref() == Some(&values) {
                continue;
            }
            let both = tied && tie.contains(&name);
            let mut slots = self.slots();
            slots.retain(|(own, slot)| {
                let trains =
                    matches!(slot, Slot::Matrix(Weight::Trained(_), _) | Slot::Vector(Vector::Trained(_)));
                !trains && (*own == name || both && tie.contains(own))
            });
            let fits = |slot: &Slot| match slot {
                Slot::Matrix(_, sizes) => sizes[..] == shape[..],
                Slot::Vector(_) => own.as_ref().is_some_and(|own| shape[..] == [own.len()]),
            };
            if slots.is_empty() || !slots.iter().all(|(_, slot)| fits(slot)) {
                return Err(sibo_peft::Error::Mismatch {
                    place: place.display().to_string(),
                    report: format!(
                        "  a copy of a tensor that the base has not, or in another shape: {name} {shape:?}"
                    ),
                }
                .into());
            }
            let table = match shape[..] {
                [out, inp] => {
                    Some(Arc::new(FrozenWeight::new(out, inp, Store::F32(values.clone()), compute)))
                }
                _ => None,
            };
            for (_, slot) in slots {
                match (slot, &table) {
                    (Slot::Matrix(w, _), Some(table)) => *w = Weight::Frozen(table.clone()),
                    (Slot::Vector(v), _) => *v = Vector::Frozen(values.clone()),
                    (Slot::Matrix(..), None) => {}
                }
            }
        }
        Ok(())
    }

    fn check_fingerprint(&self, folder: &Folder, adapter: &Path) -> Result<(), Error> {
        match &folder.base_fingerprint {
            Some(theirs) if fingerprint::layers(theirs) != fingerprint::layers(&self.fingerprint) => {
                let on = |cut: Option<usize>| match cut {
                    Some(layers) => format!("its first {layers} layers (--layers {layers})"),
                    None => "the whole model (no --layers)".to_string(),
                };
                Err(Error::Refused(format!(
                    "{}: this adapter was trained on a base cut to another depth: it needs {}, and was put on {}",
                    adapter.display(),
                    on(fingerprint::layers(theirs)),
                    on(fingerprint::layers(&self.fingerprint))
                )))
            }
            Some(theirs) if !fingerprint::same(theirs, &self.fingerprint) => Err(Error::Refused(format!(
                "{}: this adapter was trained on another base model than the one given (its fingerprint differs); its configuration names {}",
                adapter.display(),
                folder.config.base_model.as_deref().unwrap_or("none")
            ))),
            _ => Ok(()),
        }
    }
}

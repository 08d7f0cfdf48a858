//! LoRA on the modules that its targets choose.

use super::{Adapter, At, KEY_PREFIX, Placed};
use crate::branch::Function;
use crate::config::LoraConfig;
use crate::lora::{EmbeddingLora, Lora};
use crate::targets::{self, Targets};
use crate::{Error, Method, ModelShape, ModuleKind};

impl Adapter {
    pub(super) fn place_lora(
        &mut self,
        lora: &LoraConfig,
        shape: &ModelShape,
        seed: u64,
    ) -> Result<(), Error> {
        const PLACE: &str = "adapter configuration";
        let saved = self.config.modules_to_save.clone();
        let modules =
            targets::select(shape, &lora.targets, lora.exclude.as_ref(), &saved, &lora.layers, PLACE)?;
        if lora.targets == Targets::Default
            && let Method::Lora(config) = &mut self.config.method
        {
            config.targets = Targets::List(shape.default_targets.iter().map(|s| s.to_string()).collect());
        }
        self.check_reference(shape, shape.reference.map(|r| r.lora))?;
        self.config.sibo.check_list(shape)?;
        for module in modules {
            let rank = targets::pattern_value(&lora.rank_pattern, &module.path, "rank_pattern", PLACE)?;
            let alpha = targets::pattern_value(&lora.alpha_pattern, &module.path, "alpha_pattern", PLACE)?;
            let rank = rank.map_or(lora.r, |r| r as usize);
            let scale = lora.scale(rank, alpha.unwrap_or(lora.alpha));
            let enters = self.config.sibo.enters(module, shape);
            let path = format!("{KEY_PREFIX}{}", module.path);
            let lambda = self.dial(enters, module.layer, module.site, &module.path, shape);
            if module.kind == ModuleKind::Embedding {
                let pair =
                    EmbeddingLora::new(&mut self.params, &path, module.inp, module.out, rank, scale, seed);
                self.embeddings.push((module.path.clone(), pair));
                continue;
            }
            let pair =
                Lora::new(&mut self.params, &path, module.inp, module.out, rank, scale, lora.init, seed);
            let branch = self.branch(
                Function::Lora(pair),
                lambda,
                lora.dropout,
                module.layer.unwrap_or(usize::MAX),
                module.site,
            );
            self.placed.push(Placed { at: At::Beside(module.path.clone()), branch });
        }
        Ok(())
    }
}

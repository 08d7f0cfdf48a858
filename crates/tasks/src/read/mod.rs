//! Readers: from files to checked [`crate::Example`]s. Every fault names file, place and column.

pub(crate) mod columns;
pub(crate) mod folder;
pub(crate) mod instructions;
pub(crate) mod labels;
pub(crate) mod parquet;
pub(crate) mod record;
pub(crate) mod shards;
pub(crate) mod text;

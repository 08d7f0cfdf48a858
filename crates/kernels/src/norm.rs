//! Normalisation of rows: [`layer_norm`] and [`rms_norm`].
//!
//! Statistics are taken in two passes over the row (first the mean, then the squares of the
//! differences), which loses no digits when the mean is large.

pub mod layer_norm;
pub mod rms_norm;

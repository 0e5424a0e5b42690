//! Elaboration.

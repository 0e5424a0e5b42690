//! Graph to graph: normal form, ABACUS, gradients, cost.

pub mod reverse;

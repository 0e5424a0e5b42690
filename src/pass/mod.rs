//! Graph to graph: normal form, ABACUS, gradients, cost.

pub mod normal_form;

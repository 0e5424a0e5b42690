//! Graph to graph: normal form, ABACUS, gradients, cost.

pub mod normal_form;
pub mod abacus;
pub mod link;
pub mod reverse;

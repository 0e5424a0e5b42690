//! Graph to graph: normal form, ABACUS, gradients, cost.

pub mod normal_form;
pub mod abacus;
pub mod link;
pub mod reverse;
pub mod cluster;
pub mod cost;
pub mod derive;
pub mod simplify;
pub mod flips;

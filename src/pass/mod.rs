//! Graph to graph: simplification, normal form, ABACUS, gradients, cost.

pub mod abacus;
pub mod cluster;
pub mod cost;
pub mod derive;
pub mod flips;
pub mod fuse;
pub mod link;
pub mod normal_form;
pub mod reverse;
pub mod simplify;
pub mod vertices;

//! Graph to graph: normal form, ABACUS, gradients, cost.

//! Loop-level code shared by all back ends.

//! The slow reference interpreter.

//! The verbs of `dnetc`.

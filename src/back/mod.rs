//! Back ends: machines the kernels run on.

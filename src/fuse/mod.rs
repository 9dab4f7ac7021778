//! The kernel: the only place that names `fuser`.

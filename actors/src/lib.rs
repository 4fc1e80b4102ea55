//! What lives on the kernel.

//! The assembled system.

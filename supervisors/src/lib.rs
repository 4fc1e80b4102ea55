//! How actors live and die.

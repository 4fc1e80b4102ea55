//! The stack of a panic: taken as bare addresses, named only when somebody looks.
//!
//! Walking 28 frames costs a few microseconds; finding their names costs milliseconds and the memory of the
//! program's debug information. So a crash pays for the first, and a reader for the second.

use std::fmt;

/// Frames kept: the panic's own machinery, and what matters above it.
const FRAMES: usize = 28;

/// The stack at a panic. `Display` resolves names, from the panic down to the kernel's own frames.
#[derive(Clone, Default)]
pub struct Stack(Box<[usize]>);

impl Stack {
    /// The stack here and now.
    pub(crate) fn capture() -> Self {
        let mut frames = Vec::with_capacity(FRAMES);
        backtrace::trace(|frame| {
            frames.push(frame.ip() as usize);
            frames.len() < FRAMES
        });
        Self(frames.into_boxed_slice())
    }

    /// Whether no stack was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every frame by name, with file and line where they are known.
    fn resolve(&self) -> Vec<(String, Option<String>)> {
        let mut lines = Vec::new();
        for &address in &self.0 {
            let mut known = false;
            backtrace::resolve(address as *mut std::ffi::c_void, |symbol| {
                known = true;
                let name = symbol.name().map_or_else(|| "?".to_owned(), |name| format!("{name:#}"));
                let place = symbol.filename().map(|file| {
                    format!("{}:{}", file.display(), symbol.lineno().unwrap_or_default())
                });
                lines.push((name, place));
            });
            if !known {
                lines.push((format!("{address:#x}"), None));
            }
        }
        // What was read of the program's debug information is not kept for the next reader.
        backtrace::clear_symbol_cache();
        lines
    }
}

/// Frames of the panic itself, which no reader wants.
fn is_machinery(name: &str) -> bool {
    ["core::panicking::", "std::panicking::", "rust_begin_unwind", "__rustc::rust_begin_unwind"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || name.contains("rust_begin_unwind")
}

/// Where the actor's code ends and the kernel's begins.
fn is_kernel(name: &str) -> bool {
    name.contains("mister_smith_supervisors::actor::guard::")
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.resolve();
        let from = lines.iter().rposition(|(name, _)| is_machinery(name)).map_or(0, |at| at + 1);
        let to = lines[from..].iter().position(|(name, _)| is_kernel(name));
        let shown = match to {
            Some(0) | None => &lines[from..],
            Some(at) => &lines[from..from + at],
        };
        for (i, (name, place)) in shown.iter().enumerate() {
            writeln!(f, "{i:4}: {name}")?;
            if let Some(place) = place {
                writeln!(f, "             at {place}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stack({} frames)", self.0.len())
    }
}

//! Words for people, on standard error.

/// Does what `eprintln!` does, but ignores errors: that panics if standard error is a pipe whose reader went away.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

pub(crate) use say;

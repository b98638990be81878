//! Words for people, on standard error; in the log, where that is JSON.

/// Does what `eprintln!` does, but ignores errors: that panics if standard error is a pipe whose reader went away.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        if $crate::log::is_json() {
            tracing::info!(target: $crate::log::TARGET, $($words)*);
        } else {
            let _ = writeln!(std::io::stderr(), $($words)*);
        }
    }};
}

pub(crate) use say;

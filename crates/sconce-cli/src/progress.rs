//! Progress bars on standard error; indicatif keeps them off anything but a terminal.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::say::say;

/// Time before a bar appears; shorter work shows none.
const PATIENCE: Duration = Duration::from_secs(1);

/// Progress through inputs: in bytes if their total is known, else as a count.
pub(crate) struct InputProgress {
    bar: ProgressBar,
    in_bytes: bool,
    /// Time at which the bar may appear; `None` once it has, or if it never may.
    appears: Option<Instant>,
}

impl InputProgress {
    /// Progress of a command that writes answers to standard output. If that is a terminal, there is no bar: the
    /// answers show progress.
    pub(crate) fn beside_answers(total_bytes: Option<u64>) -> Self {
        Self::new(total_bytes, !io::stdout().is_terminal())
    }

    /// Progress of a command that prints nothing else until it is done.
    pub(crate) fn alone(total_bytes: Option<u64>) -> Self {
        Self::new(total_bytes, true)
    }

    fn new(total_bytes: Option<u64>, wanted: bool) -> Self {
        let bar = match total_bytes {
            Some(total) => bytes_style(ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden())),
            None => ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
                .with_style(style("{spinner} {msg} {human_pos} inputs, {per_sec}, {elapsed}")),
        };
        let wanted = wanted && io::stderr().is_terminal();
        Self { bar, in_bytes: total_bytes.is_some(), appears: wanted.then(|| Instant::now() + PATIENCE) }
    }

    /// Shows `message` beside the bar, or before the count.
    pub(crate) fn say(&self, message: String) {
        self.bar.set_message(message);
    }

    /// Prints a line above the bar, to standard error.
    pub(crate) fn print(&self, line: &str) {
        self.bar.suspend(|| say!("{line}"));
    }

    /// Counts one more input, which took `bytes` of its source.
    pub(crate) fn advance(&mut self, bytes: u64) {
        if self.appears.is_some_and(|appears| Instant::now() >= appears) {
            self.appears = None;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.inc(if self.in_bytes { bytes } else { 1 });
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A bar for `total` entries.
pub(crate) fn entries_bar(total: u64) -> ProgressBar {
    ProgressBar::new(total).with_style(style("[{wide_bar}] {human_pos}/{human_len} entries, {per_sec}, {eta} left"))
}

/// A bar for a file of `total` bytes.
pub(crate) fn bytes_bar(total: u64, message: String) -> ProgressBar {
    bytes_style(ProgressBar::new(total)).with_message(message)
}

/// A bar for `total` steps of work.
pub(crate) fn count_bar(total: u64, message: String) -> ProgressBar {
    ProgressBar::new(total).with_style(style("{msg} [{wide_bar}] {pos}/{len}, {eta} left")).with_message(message)
}

/// A spinner for work of unknown length.
pub(crate) fn spinner(message: String) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(message);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn bytes_style(bar: ProgressBar) -> ProgressBar {
    bar.with_style(style("{msg} [{wide_bar}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left"))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("templates are literals of this file")
}

//! Flags of `sconce serve` for recording requests.

use std::path::PathBuf;

use crate::memory_size::MemorySize;

/// The recording of requests, for `sconce profile` and `sconce tune`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Recording")]
pub(crate) struct RecordingArgs {
    /// Record when each request arrives and how large it is, into this file of JSON lines; one that is there is kept as FILE.old
    ///
    /// `sconce profile` and `sconce tune` replay it. Requests never wait for the file: if it cannot be written as fast as they
    /// come, some are left out and counted; if the disk is full, recording ends.
    #[arg(long, value_name = "FILE")]
    pub(crate) record_trace: Option<PathBuf>,

    /// Also record the texts of requests, in the clear: whoever reads the file reads what clients sent
    #[arg(long, requires = "record_trace")]
    pub(crate) record_trace_contents: bool,

    /// Stop recording when the file has this size: MiB, or with a unit (512MiB, 1GB)
    #[arg(long, value_name = "SIZE", default_value = "1GiB", requires = "record_trace")]
    pub(crate) max_trace_bytes: MemorySize,
}

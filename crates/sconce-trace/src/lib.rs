//! Traces of requests: when each arrived and how large it was, and its contents if they were recorded.
//!
//! ```
//! use std::time::Duration;
//! use sconce_trace::{ArrivalProcess, Lengths, RequestTrace, Synthetic, TraceLimits};
//!
//! // Ten seconds of texts of 16 to 64 tokens, 100 a second at random.
//! let made_up = Synthetic {
//!     arrivals: ArrivalProcess::Poisson { rate: 100.0 },
//!     lengths: Lengths::Uniform { min: 16, max: 64 },
//!     length: Duration::from_secs(10),
//!     seed: 1,
//! };
//! let trace = made_up.trace()?;
//!
//! let mut file = Vec::new();
//! trace.write(&mut file)?;
//! let read = RequestTrace::read(&file[..], &TraceLimits::default())?;
//! assert_eq!(read.requests(), trace.requests());
//! assert!(read.scaled(2.0)?.rate() > 190.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The path of a trace
//! A file → [`RequestTrace::read`] tells its format by its first line → [`RequestTrace`], in order of arrival → [`window`],
//! [`busiest`], [`scaled`] and [`share`] make other traces of it → a simulation or a replay. [`Synthetic`] makes one up,
//! [`TraceWriter`] records one.
//!
//! # Where to add things
//! A public format is a file in `read/`, told apart in `read.rs`. A field of a request is one of [`RecordedRequest`], and of
//! its line in `line.rs`.
//!
//! Nothing here looks at a clock, sleeps or starts a thread.
//!
//! [`window`]: RequestTrace::window
//! [`busiest`]: RequestTrace::busiest
//! [`scaled`]: RequestTrace::scaled
//! [`share`]: RequestTrace::share

mod error;
mod line;
mod read;
mod request;
mod synthetic;
mod trace;
mod write;

pub use error::{TraceError, TraceSettingError};
pub use read::{TraceFormat, TraceLimits};
pub use request::{RecordedInput, RecordedPriority, RecordedRequest};
pub use synthetic::{ArrivalProcess, Lengths, Synthetic};
pub use trace::RequestTrace;
pub use write::TraceWriter;

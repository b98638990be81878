//! The parts that Sconce's servers share, whatever the wire format.
//!
//! # The path of one request
//! [`serve_until`] accepts its connection within [`ServerBounds`] → a [`Meter`] counts the request's bytes as they arrive, in
//! a [`Charge`] that lives until the answer → the protocol's crate reads the message, its [`Parameters`], the
//! [`wanted`] outputs, and by [`match_inputs`] and [`take_items`] its items → [`OpenInference::answers`] → the protocol's
//! crate writes each [`ResponseTensor`], and drops the [`AnswerList`].
//!
//! # Bounds on clients
//! [`ServerLimits`] bounds the connections, the bytes of requests over all connections, and the time for which peers may be
//! silent. At a bound the least active give way: first connections that never sent a byte, then those that never made a
//! call, then the longest idle; first requests that have stalled, then those expected to be complete last. The transport
//! also bounds headers, calls on one connection, and calls that are reset at once. An error repeats at most an excerpt
//! of the request. Servers that share one [`ServerBounds`] share its limits.
//!
//! # Access
//! [`ClientAccess`] admits requests by bearer tokens and at each client's rate, before their bodies are read;
//! [`ServerListener::with_tls`] adds TLS. Tokens and certificates may be renewed while a server runs.
//!
//! # Traces and logs
//! With a tracer ([`record_traces`]) each request that it samples is a span with one below it for each stage. The target
//! `sconce_server` of the log has a line for each request at level debug. Neither has inputs or answers; an error's message may repeat an
//! excerpt of the request.
//!
//! # Where to add things
//! A wire format is another crate. A parameter of requests, a rule for inputs or an error of theirs belongs here, so that
//! every protocol has it.

mod access;
mod answer_list;
mod arrival;
mod bounds;
mod client;
mod connections;
mod error;
mod limits;
mod listener;
pub mod metadata;
mod metered_body;
mod numbers;
mod open_inference;
mod outputs;
mod pacing;
mod parameters;
mod rate;
mod ration;
mod recording;
mod request_bytes;
mod settings;
mod shared_memory;
mod small_files;
mod tensors;
mod tls;
mod tokens;
mod trace_context;
mod traces;
mod transport;
mod watched_io;

pub use access::{ClientAccess, ClientAccessConfig, PeerAddress, TokenAdmission};
pub use answer_list::{AnswerList, FailedItem};
pub use arrival::Arrival;
pub use bounds::ServerBounds;
pub use client::{Client, ClientName, ClientRates};
pub use connections::Call;
pub use error::{MAX_ERROR_BYTES, RequestError, RequestFault};
pub use limits::{MAX_ITEMS, MAX_MESSAGE_BYTES, ServerLimits};
pub use listener::ServerListener;
pub use metered_body::{Meter, MeteredBody};
pub use numbers::{NumberType, SentNumber};
pub use open_inference::OpenInference;
pub use outputs::{AnswerFact, OutputRequest, RequestedOutput, ResponseElements, ResponseTensor, wanted};
pub use pacing::Governor;
pub use parameters::{ParameterMap, ParameterValue, Parameters, count, flag};
pub use recording::{RequestRecorder, ServedRequest, record_requests};
pub use request_bytes::{Charge, MessageLength};
pub use settings::{LogSetting, log_settings, trace_settings};
pub use shared_memory::{MAX_SHARED_MEMORY_REGIONS, SharedMemory, SharedMemoryError, SharedRegion, SharedTensor};
pub use tensors::{SentDatatype, TensorHead, TensorLayout, match_inputs, take_items};
pub use tls::{Tls, TlsError, TlsFiles};
pub use tokens::{BearerToken, TokenFileError};
pub use trace_context::TraceContext;
pub use traces::record_traces;
pub use transport::{HttpVersions, serve_until};

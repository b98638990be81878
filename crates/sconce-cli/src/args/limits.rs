//! Flags that bound what clients can take from a server.

use std::time::Duration;

use sconce_grpc::ServerLimits;

/// Bounds of what clients can take from a server.
#[expect(clippy::struct_field_names, reason = "limits start with max_, and fields name the flags")]
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits of clients")]
pub(crate) struct LimitsArgs {
    /// Connections at a time; beyond them a new connection replaces the least active one, but never one with a call that is
    /// being computed [default: seven eighths of the files that the process may open (ulimit -n), at most 16384]
    #[arg(long, value_name = "CONNECTIONS")]
    max_connections: Option<usize>,

    /// Bytes of all requests that are being read or answered; above this, unfinished requests are refused
    #[arg(long, value_name = "BYTES", default_value_t = ServerLimits::default().max_request_bytes_in_flight)]
    max_request_bytes_in_flight: usize,

    /// Bytes of one request, also decompressed; a larger one is refused
    #[arg(long, value_name = "BYTES", default_value_t = ServerLimits::default().max_request_bytes)]
    max_request_bytes: usize,

    /// Items of one request; where an answer is large, as many as the model's queue holds
    #[arg(long, value_name = "ITEMS", default_value_t = ServerLimits::default().max_items)]
    max_items: usize,

    /// Milliseconds for a new connection to shake hands over TLS and to send the beginning of HTTP
    #[arg(long, value_name = "MILLISECONDS", default_value_t = milliseconds(ServerLimits::default().max_handshake_time))]
    max_handshake_time_ms: u64,

    /// Milliseconds after which a connection without calls is closed
    #[arg(long, value_name = "MILLISECONDS", default_value_t = milliseconds(ServerLimits::default().max_idle_time))]
    max_idle_time_ms: u64,

    /// Milliseconds between two pieces of one request, after which it is refused; also for the whole head of HTTP/1.1
    #[arg(long, value_name = "MILLISECONDS", default_value_t = milliseconds(ServerLimits::default().max_request_pause))]
    max_request_pause_ms: u64,
}

impl LimitsArgs {
    pub(crate) fn limits(&self) -> ServerLimits {
        ServerLimits {
            max_connections: self.max_connections,
            max_request_bytes_in_flight: self.max_request_bytes_in_flight,
            max_request_bytes: self.max_request_bytes,
            max_items: self.max_items,
            max_handshake_time: Duration::from_millis(self.max_handshake_time_ms),
            max_idle_time: Duration::from_millis(self.max_idle_time_ms),
            max_request_pause: Duration::from_millis(self.max_request_pause_ms),
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

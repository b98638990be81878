//! Bounds on what clients can take from the server.

use std::time::Duration;

use sconce::ConfigError;

/// Bytes at most of a message, also decompressed, by default.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// Items of a request at most, by default.
pub const MAX_ITEMS: usize = 16_384;

/// Bounds on what clients can take from the server: connections, memory for requests, and time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections at a time. `None`, the default, leaves an eighth of the files that the process may open, but at least
    /// [`MIN_SPARE_FILES`](Self::MIN_SPARE_FILES), to everything else, and allows at most
    /// [`MAX_DEFAULT_CONNECTIONS`](Self::MAX_DEFAULT_CONNECTIONS).
    ///
    /// A further connection replaces one that has never sent a byte, else one that has never made a call, else the one
    /// whose last call is longest ago; a connection with a call that is being computed is never replaced. Too small:
    /// idle clients have to connect anew for each call. Too large: the process has no file left to open.
    pub max_connections: Option<usize>,
    /// Bytes of all requests that are being read or answered, and of answers that their clients have not read, over all
    /// connections; 256 MiB by default.
    ///
    /// The count includes headers, 8 KiB for each call, bytes as they arrive, and the message decompressed and decoded.
    /// When the bytes are used up, the unfinished request that has stalled, else the one expected to be complete last,
    /// is refused (gRPC: `RESOURCE_EXHAUSTED`, HTTP: 429); by the same rule a connection ends if its answers are not read. Too small:
    /// large requests are refused, and several at a time. Too large: the process runs out of memory.
    pub max_request_bytes_in_flight: usize,
    /// Bytes of one request, also decompressed; 64 MiB by default. A larger one is refused, unread where its length is announced.
    /// Too small: large lists have to be sent in parts. Too large: one request takes the memory of many.
    pub max_request_bytes: usize,
    /// Items of one request, whose answers are in memory together; 16,384 by default, and as many as the model's queue holds
    /// where an answer is large. Too small: large lists have to be sent in parts. Too large: one request takes the memory of
    /// many.
    pub max_items: usize,
    /// Time for a new connection to shake hands over TLS and to send its first 24 bytes, the length of HTTP/2's preface; 10 s by default. Too short: clients behind slow
    /// links cannot connect. Too long: silent connections are held for as long.
    pub max_handshake_time: Duration,
    /// Time after which a connection without calls is closed; 5 minutes by default. HTTP/2's pings do not prolong it.
    /// The peer of HTTP/2 gets GOAWAY, so that gRPC's clients connect anew without an error. Too short: clients that seldom call
    /// connect for every call. Too long: connections of clients that have gone are held for as long.
    pub max_idle_time: Duration,
    /// Time between two pieces of one request; 10 s by default. A request that stalls for longer is refused with
    /// `DEADLINE_EXCEEDED` (HTTP: 408). The head of a request of HTTP/1.1 must come whole within this time, else its
    /// connection ends. Too short: clients behind bad links are cut off. Too long: the memory of half-sent requests
    /// is held for as long.
    pub max_request_pause: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            max_connections: None,
            max_request_bytes_in_flight: 256 << 20,
            max_request_bytes: MAX_MESSAGE_BYTES,
            max_items: MAX_ITEMS,
            max_handshake_time: Duration::from_secs(10),
            max_idle_time: Duration::from_mins(5),
            max_request_pause: Duration::from_secs(10),
        }
    }
}

impl ServerLimits {
    /// Files that are always left to models, caches, logs and the accepting of connections.
    pub const MIN_SPARE_FILES: usize = 32;
    /// Connections at most if [`max_connections`](Self::max_connections) is `None`.
    pub const MAX_DEFAULT_CONNECTIONS: usize = 16_384;
    /// The least [`max_request_bytes_in_flight`](Self::max_request_bytes_in_flight).
    pub const MIN_REQUEST_BYTES_IN_FLIGHT: usize = 1 << 20;
    /// The longest of each of the times.
    pub const MAX_TIME: Duration = Duration::from_hours(24 * 365);

    /// Checks every field against its bounds.
    ///
    /// # Errors
    /// [`ConfigError`] names the first field that is out of bounds, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.connections(max_open_files())?;
        let (bytes, min) = (self.max_request_bytes_in_flight, Self::MIN_REQUEST_BYTES_IN_FLIGHT);
        if bytes < min {
            return Err(error("max_request_bytes_in_flight", bytes.to_string(), format!("at least {min}")));
        }
        for (field, number) in [("max_request_bytes", self.max_request_bytes), ("max_items", self.max_items)] {
            if number == 0 {
                return Err(error(field, "0".to_owned(), "at least 1".to_owned()));
            }
        }
        for (field, time) in [
            ("max_handshake_time", self.max_handshake_time),
            ("max_idle_time", self.max_idle_time),
            ("max_request_pause", self.max_request_pause),
        ] {
            if time < Duration::from_millis(1) || time > Self::MAX_TIME {
                let value = format!("{time:?}");
                return Err(error(field, value, format!("from 1ms to {:?}", Self::MAX_TIME)));
            }
        }
        Ok(())
    }

    /// Connections at a time for a process that may open `max_open_files`; `None` stands for no limit.
    pub(crate) fn connections(&self, max_open_files: Option<usize>) -> Result<usize, ConfigError> {
        let files = max_open_files.unwrap_or(usize::MAX);
        match self.max_connections {
            None => {
                let spare = Self::MIN_SPARE_FILES.max(files / 8);
                Ok(files.saturating_sub(spare).clamp(1, Self::MAX_DEFAULT_CONNECTIONS))
            }
            Some(0) => Err(error("max_connections", "0".to_owned(), "at least 1".to_owned())),
            Some(connections) => {
                let max = files.saturating_sub(Self::MIN_SPARE_FILES).max(1);
                let allowed = || {
                    format!(
                        "at most {max}: the process may open {files} files (ulimit -n) and needs {} for itself",
                        Self::MIN_SPARE_FILES
                    )
                };
                if connections <= max {
                    Ok(connections)
                } else {
                    Err(error("max_connections", connections.to_string(), allowed()))
                }
            }
        }
    }
}

/// Files that the process may have open; `None`: without limit.
#[cfg(unix)]
pub(crate) fn max_open_files() -> Option<usize> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    usize::try_from(limit.current?).ok()
}

/// Files that the process may have open; `None`: without limit.
#[cfg(not(unix))]
pub(crate) fn max_open_files() -> Option<usize> {
    None
}

fn error(field: &'static str, value: String, allowed: String) -> ConfigError {
    ConfigError { field, value, allowed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_derived_from_the_limit_of_open_files_with_some_to_spare() {
        let derived = |files| ServerLimits::default().connections(files).unwrap();
        assert_eq!(derived(Some(1024)), 1024 - 128);
        assert_eq!(derived(Some(64)), 32);
        assert_eq!(derived(Some(16)), 1);
        assert_eq!(derived(Some(1 << 20)), ServerLimits::MAX_DEFAULT_CONNECTIONS);
        assert_eq!(derived(None), ServerLimits::MAX_DEFAULT_CONNECTIONS);
    }

    #[test]
    fn more_connections_than_there_are_files_are_refused_with_what_can_be_had() {
        let explicit = |connections| ServerLimits { max_connections: Some(connections), ..ServerLimits::default() };
        assert_eq!(explicit(992).connections(Some(1024)), Ok(992));
        assert_eq!(explicit(1_000_000).connections(None), Ok(1_000_000));
        assert_eq!(
            explicit(993).connections(Some(1024)).unwrap_err().to_string(),
            "max_connections is 993, but must be at most 992: the process may open 1024 files (ulimit -n) and needs 32 \
             for itself"
        );
        assert_eq!(explicit(0).validate().unwrap_err().to_string(), "max_connections is 0, but must be at least 1");
    }

    #[test]
    fn a_value_out_of_bounds_is_refused_with_its_field_and_what_is_allowed() {
        assert_eq!(ServerLimits::default().validate(), Ok(()));
        let good = ServerLimits::default;
        let table = [
            (
                ServerLimits { max_request_bytes_in_flight: 5, ..good() },
                "max_request_bytes_in_flight is 5, but must be at least 1048576",
            ),
            (ServerLimits { max_request_bytes: 0, ..good() }, "max_request_bytes is 0, but must be at least 1"),
            (ServerLimits { max_items: 0, ..good() }, "max_items is 0, but must be at least 1"),
            (
                ServerLimits { max_handshake_time: Duration::ZERO, ..good() },
                "max_handshake_time is 0ns, but must be from 1ms to 31536000s",
            ),
            (
                ServerLimits { max_idle_time: ServerLimits::MAX_TIME + Duration::from_secs(1), ..good() },
                "max_idle_time is 31536001s, but must be from 1ms to 31536000s",
            ),
            (
                ServerLimits { max_request_pause: Duration::from_micros(999), ..good() },
                "max_request_pause is 999µs, but must be from 1ms to 31536000s",
            ),
        ];
        for (limits, message) in table {
            assert_eq!(limits.validate().unwrap_err().to_string(), message);
        }
    }
}

//! The recorder of `sconce serve --record-trace`: a thread of its own writes what a bounded channel hands it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sconce::{Input, Priority};
use sconce_server::{RequestRecorder, ServedRequest};
use sconce_trace::{RecordedInput, RecordedPriority, RecordedRequest, TraceWriter};

use crate::args::RecordingArgs;
use crate::error::Error;
use crate::say::say;

/// Requests at most that wait to be written; more are left out.
const MAX_WAITING: usize = 4096;
/// Bytes of inputs at most that wait to be written; requests with more are left out.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// Time after which what was written is flushed.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// The recording of a server's requests, if it records.
pub(crate) struct TraceRecording(Option<RecordingThread>);

/// The thread that writes.
struct RecordingThread {
    thread: JoinHandle<()>,
    requests: SyncSender<RecorderMessage>,
    counts: Arc<RecordingCounts>,
    path: PathBuf,
}

/// Takes requests from servers and hands them to the thread that writes. Never blocks.
struct Recorder {
    started: Instant,
    with_contents: bool,
    requests: SyncSender<RecorderMessage>,
    counts: Arc<RecordingCounts>,
}

/// State that the recorder and the thread share.
#[derive(Default)]
struct RecordingCounts {
    /// Set when recording has ended, so that requests are no longer handed over.
    ended: AtomicBool,
    waiting_bytes: AtomicUsize,
    written: AtomicU64,
    left_out: AtomicU64,
}

enum RecorderMessage {
    Request(RecordedRequest, usize),
    End,
}

impl TraceRecording {
    /// Begins to record, if the flags say so.
    pub(crate) fn start(args: &RecordingArgs) -> Result<Self, Error> {
        let Some(path) = &args.record_trace else { return Ok(Self(None)) };
        let failed = |source| Error::Write { path: path.clone(), source };
        let file = create(path).map_err(failed)?;
        let origin = format!("sconce serve {}", env!("CARGO_PKG_VERSION"));
        let writer = TraceWriter::new(BufWriter::new(file), &origin).map_err(failed)?;
        let (requests, receiver) = sync_channel(MAX_WAITING);
        let counts = Arc::<RecordingCounts>::default();
        let (shared, max_bytes) = (Arc::clone(&counts), args.max_trace_bytes.bytes().get());
        let write = move || {
            let outcome = write(&shared, &receiver, writer, max_bytes);
            shared.ended.store(true, Ordering::Relaxed);
            match outcome {
                Ok(true) => say!("warning: recording ends: the trace has reached --max-trace-bytes, {max_bytes} bytes"),
                Ok(false) => {}
                Err(cause) => say!("warning: recording ends: the trace cannot be written: {cause}"),
            }
        };
        let thread = thread::Builder::new().name("sconce-trace".to_owned()).spawn(write).map_err(Error::Threads)?;
        sconce_server::record_requests(Box::new(Recorder {
            started: Instant::now(),
            with_contents: args.record_trace_contents,
            requests: requests.clone(),
            counts: Arc::clone(&counts),
        }));
        Ok(Self(Some(RecordingThread { thread, requests, counts, path: path.clone() })))
    }

    /// Writes what waits, and says how much was recorded.
    pub(crate) async fn end(self) {
        let Self(Some(RecordingThread { thread, requests, counts, path })) = self else { return };
        let ended = tokio::task::spawn_blocking(move || {
            // An error means that the thread has ended by itself.
            let _ = requests.send(RecorderMessage::End);
            let panicked = thread.join().is_err();
            (panicked, counts.written.load(Ordering::Relaxed), counts.left_out.load(Ordering::Relaxed))
        });
        if let Ok((panicked, written, left_out)) = ended.await {
            let not = if panicked { " before the recorder failed" } else { "" };
            say!("recorded {written} requests in {}{not}; {left_out} were left out", path.display());
        }
    }
}

/// Writes requests until the last; returns true if the file has reached its largest size.
fn write(
    counts: &RecordingCounts,
    requests: &Receiver<RecorderMessage>,
    mut writer: TraceWriter<BufWriter<File>>,
    max_bytes: u64,
) -> io::Result<bool> {
    let mut bytes = 0;
    let mut flushed = Instant::now();
    loop {
        match requests.recv_timeout(FLUSH_AFTER) {
            Ok(RecorderMessage::Request(request, size)) => {
                counts.waiting_bytes.fetch_sub(size, Ordering::Relaxed);
                bytes += writer.write(&request)? as u64;
                counts.written.fetch_add(1, Ordering::Relaxed);
                if bytes >= max_bytes {
                    writer.finish()?;
                    return Ok(true);
                }
            }
            Ok(RecorderMessage::End) | Err(RecvTimeoutError::Disconnected) => {
                writer.finish()?;
                return Ok(false);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if flushed.elapsed() >= FLUSH_AFTER {
            writer.flush()?;
            flushed = Instant::now();
        }
    }
}

impl RequestRecorder for Recorder {
    fn wants_inputs(&self) -> bool {
        self.with_contents && !self.counts.ended.load(Ordering::Relaxed)
    }

    fn record(&self, request: ServedRequest) {
        if self.counts.ended.load(Ordering::Relaxed) {
            return;
        }
        let size = request.inputs.iter().map(Input::bytes).sum();
        let recorded = recorded(request, self.started);
        let waiting = self.counts.waiting_bytes.fetch_add(size, Ordering::Relaxed);
        let sent = if waiting + size > MAX_WAITING_BYTES {
            Err(TrySendError::Full(RecorderMessage::End))
        } else {
            self.requests.try_send(RecorderMessage::Request(recorded, size))
        };
        if sent.is_err() {
            self.counts.waiting_bytes.fetch_sub(size, Ordering::Relaxed);
            self.counts.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn recorded(request: ServedRequest, started: Instant) -> RecordedRequest {
    let ServedRequest { arrived, model, items, weight, priority, deadline, inputs } = request;
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    // All of them or none: a trace has one input for each item.
    let inputs: Option<Vec<RecordedInput>> = inputs.iter().map(recorded_input).collect();
    RecordedRequest {
        at: arrived.saturating_duration_since(started),
        model: Some(model.into()),
        items: count(items).max(1),
        weight: weight.map(count),
        priority: match priority {
            Priority::High => RecordedPriority::High,
            Priority::Normal => RecordedPriority::Normal,
            Priority::Low => RecordedPriority::Low,
        },
        deadline,
        inputs: inputs.unwrap_or_default(),
    }
}

/// The content of an input as traces hold it; `None` for one that is no text.
fn recorded_input(input: &Input) -> Option<RecordedInput> {
    let text = |input: &Input| match input {
        Input::Text(text) => Some(text.clone()),
        Input::Bytes(bytes) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    };
    match input {
        Input::Text(_) | Input::Bytes(_) => text(input).map(RecordedInput::Text),
        Input::Pair(pair) => Some(RecordedInput::Pair([text(&pair[0])?, text(&pair[1])?])),
        Input::Tokens(tokens) => Some(RecordedInput::Tokens(tokens.clone())),
        _ => None,
    }
}

/// Creates the file, which only its owner may read. A file that is there is renamed.
fn create(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        let mut old = OsString::from(path);
        old.push(".old");
        fs::rename(path, old)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.flush()?;
    Ok(file)
}

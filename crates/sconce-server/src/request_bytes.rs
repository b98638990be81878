//! Counts the bytes that requests and unread answers hold, over all connections, and refuses some of them when there
//! are too many.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

use crate::error::RequestError;

/// Bytes that a call holds besides its headers and message: its task, its stream, its place in tables.
const CALL_BYTES: usize = 8 * 1024;
/// Length of gRPC's prefix of each message: a flag for compression, and the length of the message.
const PREFIX_BYTES: usize = 5;
/// Time without a byte after which a request counts as stalled, and gives way before those that have not stalled.
const STALLED: Duration = Duration::from_secs(1);
/// One in this many of all bytes is freed at a time, so that few requests search all others.
const FREED_PART: usize = 16;

/// The bytes that all requests and unread answers of a server hold, bounded in number.
pub(crate) struct RequestBytes {
    max: usize,
    held: AtomicUsize,
    unfinished: Mutex<Unfinished>,
}

/// Requests that have not been received completely, and connections, whose answers may be unread.
#[derive(Default)]
struct Unfinished {
    next: u64,
    by_number: HashMap<u64, Arc<Held>>,
}

/// The bytes held by one request, or by the unread answers of one connection.
struct Held {
    progress: Mutex<Progress>,
    /// The task to wake when these bytes give way.
    waiting: AtomicWaker,
}

/// Progress in receiving a request, or in sending the answers of a connection.
#[derive(Debug, Clone, Copy)]
struct Progress {
    held: usize,
    /// Bytes that were received, or sent.
    moved: usize,
    length: MessageLength,
    began: Instant,
    last: Instant,
    kind: Kind,
    /// Set for a stream of messages, of which all but the unanswered ones are the one that is arriving.
    is_stream: bool,
    /// Messages of a stream that came whole and are not answered.
    unanswered: usize,
    /// Set once it gave way to others.
    is_refused: bool,
}

/// The length of a request's body, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageLength {
    /// The body begins with a flag and the length of its message, as gRPC's do; the bytes that came of them.
    Prefixed([u8; PREFIX_BYTES]),
    /// A header tells the bytes of the body.
    Known(usize),
    /// The body tells its end.
    Unknown,
}

impl MessageLength {
    /// A body of gRPC, of which nothing came.
    pub const PREFIXED: Self = Self::Prefixed([0; PREFIX_BYTES]);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A request that is not received completely.
    Unfinished,
    /// A request that is received completely.
    Whole,
    /// Answers that their client has not read.
    Unread,
}

/// Order in which requests give way: the greatest first.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
enum Rank {
    /// Seconds until it is expected to be complete.
    Arriving(f64),
    /// Seconds without a byte.
    Stalled(f64),
}

impl Progress {
    fn new(kind: Kind, length: MessageLength, now: Instant) -> Self {
        let (held, moved, unanswered) = (0, 0, 0);
        Self { held, moved, length, began: now, last: now, kind, is_stream: false, unanswered, is_refused: false }
    }

    fn receive(&mut self, bytes: &[u8], now: Instant) {
        if let MessageLength::Prefixed(prefix) = &mut self.length
            && let Some(missing) = prefix.get_mut(self.moved..)
        {
            let length = missing.len().min(bytes.len());
            missing[..length].copy_from_slice(&bytes[..length]);
        }
        if self.moved == 0 {
            self.began = now;
        }
        self.moved += bytes.len();
        self.last = now;
    }

    /// Receives bytes of a stream, and adds the length of each message that came whole, with its prefix, to `whole`.
    fn receive_messages(&mut self, mut bytes: &[u8], now: Instant, whole: &mut VecDeque<usize>) {
        while !bytes.is_empty() {
            let missing = if self.moved < PREFIX_BYTES { PREFIX_BYTES - self.moved } else { self.missing() };
            let (piece, rest) = bytes.split_at(missing.min(bytes.len()));
            self.receive(piece, now);
            bytes = rest;
            if self.moved >= PREFIX_BYTES && self.missing() == 0 {
                whole.push_back(self.moved);
                self.unanswered += 1;
                (self.moved, self.length) = (0, MessageLength::PREFIXED);
            }
        }
    }

    /// True for a stream of which no message is arriving.
    fn is_between_messages(&self) -> bool {
        self.is_stream && self.moved == 0
    }

    fn rank(&self, now: Instant) -> Rank {
        let pause = now.saturating_duration_since(self.last);
        let missing = match self.kind {
            Kind::Whole => 0,
            Kind::Unread => self.held,
            Kind::Unfinished => self.missing(),
        };
        let computes = self.is_between_messages() && self.unanswered > 0;
        if self.kind == Kind::Whole || self.kind == Kind::Unread && missing == 0 || computes {
            return Rank::Arriving(0.0);
        }
        if pause >= STALLED {
            return Rank::Stalled(pause.as_secs_f64());
        }
        if missing == usize::MAX {
            return Rank::Arriving(f64::INFINITY);
        }
        let elapsed = now.saturating_duration_since(self.began).as_secs_f64();
        Rank::Arriving(elapsed * missing as f64 / self.moved.max(1) as f64)
    }

    /// Bytes of a request that have not come; `usize::MAX` if its length is not known.
    fn missing(&self) -> usize {
        match self.length {
            MessageLength::Prefixed([_, length @ ..]) if self.moved >= PREFIX_BYTES => {
                (PREFIX_BYTES + u32::from_be_bytes(length) as usize).saturating_sub(self.moved)
            }
            MessageLength::Known(length) => length.saturating_sub(self.moved),
            MessageLength::Prefixed(_) | MessageLength::Unknown => usize::MAX,
        }
    }
}

/// Indices into `others` of the requests that give way to free `wanted` bytes for a request of rank `own`; `None` if
/// the requests of greater rank do not hold that much.
fn to_refuse(others: &[Progress], own: Rank, wanted: usize, now: Instant) -> Option<Vec<usize>> {
    let mut ranked: Vec<_> = others.iter().zip(0..).map(|(other, at)| (other.rank(now), other.held, at)).collect();
    ranked.retain(|(rank, held, _)| *rank > own && *held > 0);
    ranked.sort_unstable_by(|(a, ..), (b, ..)| b.partial_cmp(a).expect("no rank is NaN"));
    let mut freed = 0;
    let mut refused = Vec::new();
    for (_, held, at) in ranked {
        if freed >= wanted {
            break;
        }
        freed += held;
        refused.push(at);
    }
    (freed >= wanted).then_some(refused)
}

impl RequestBytes {
    /// No bytes held, of at most `max`.
    pub(crate) fn new(max: usize) -> Self {
        Self { max, held: AtomicUsize::new(0), unfinished: Mutex::default() }
    }

    /// Bytes that all requests hold now.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Begins a request with this many bytes of headers. If there is no room for them, the request fails at its first piece.
    pub(crate) fn begin(self: &Arc<Self>, header_bytes: usize, length: MessageLength, now: Instant) -> Charge {
        let charge = Charge::new(self, Progress::new(Kind::Unfinished, length, now));
        // Nothing is known about it yet, so it ranks as one that is about to be complete.
        if charge.hold(CALL_BYTES + header_bytes, Some(Rank::Arriving(0.0)), now).is_err() {
            charge.held.progress().is_refused = true;
        }
        charge
    }

    /// Begins a stream of messages with this many bytes of headers, as [`begin`](Self::begin) does a request.
    pub(crate) fn begin_stream(self: &Arc<Self>, header_bytes: usize, now: Instant) -> Charge {
        let charge = self.begin(header_bytes, MessageLength::PREFIXED, now);
        charge.held.progress().is_stream = true;
        charge
    }

    fn take(&self, bytes: usize) -> bool {
        let fits = |held: usize| held.checked_add(bytes).filter(|held| *held <= self.max);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Refuses unfinished requests of a greater rank than `own`, to free `wanted` bytes.
    fn make_room(&self, own: Rank, wanted: usize, now: Instant) {
        let unfinished = self.unfinished();
        let others: Vec<_> = unfinished.by_number.values().collect();
        let progress: Vec<_> = others.iter().map(|other| *other.progress()).collect();
        let amortised = wanted.max(self.max / FREED_PART);
        let refused = to_refuse(&progress, own, amortised, now).or_else(|| to_refuse(&progress, own, wanted, now));
        for at in refused.unwrap_or_default() {
            let mut progress = others[at].progress();
            if progress.kind != Kind::Whole {
                progress.is_refused = true;
                self.give_back(std::mem::take(&mut progress.held));
                others[at].waiting.wake();
            }
        }
    }

    fn register(&self, held: &Arc<Held>) -> u64 {
        let mut unfinished = self.unfinished();
        let number = unfinished.next;
        unfinished.next += 1;
        unfinished.by_number.insert(number, Arc::clone(held));
        number
    }

    fn unfinished(&self) -> MutexGuard<'_, Unfinished> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn new(progress: Progress) -> Self {
        Self { progress: Mutex::new(progress), waiting: AtomicWaker::new() }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes that one request holds, given back on drop.
pub struct Charge {
    of: Arc<RequestBytes>,
    held: Arc<Held>,
    /// The request's number among the unfinished ones.
    number: Mutex<Option<u64>>,
    /// Bytes on the wire of the messages of a stream that came whole and were not taken.
    whole: Mutex<VecDeque<usize>>,
    /// The stream of which this is a message.
    stream: Option<Arc<Held>>,
}

impl Charge {
    fn new(of: &Arc<RequestBytes>, progress: Progress) -> Self {
        let (number, whole) = (Mutex::default(), Mutex::default());
        Self { of: Arc::clone(of), held: Arc::new(Held::new(progress)), number, whole, stream: None }
    }

    /// Counts a piece of the request that was received.
    ///
    /// # Errors
    /// [`RequestError`] if there is no room for them, or the request gave way to others.
    pub fn receive(&self, piece: &[u8], now: Instant) -> Result<(), RequestError> {
        {
            let mut progress = self.held.progress();
            if progress.is_stream {
                progress.receive_messages(piece, now, &mut self.whole());
            } else {
                progress.receive(piece, now);
            }
        }
        self.hold(piece.len(), None, now)
    }

    /// Takes the oldest whole message out of a stream. Its bytes are those of the returned charge, which must live until the
    /// message is answered; `None` if no message came whole.
    pub fn take_message(&self) -> Option<Self> {
        let (bytes, now) = (self.whole().pop_front()?, Instant::now());
        let mut progress = Progress::new(Kind::Whole, MessageLength::Known(bytes), now);
        progress.moved = bytes;
        {
            let mut stream = self.held.progress();
            progress.held = bytes.min(stream.held);
            stream.held -= progress.held;
        }
        let mut message = Self::new(&self.of, progress);
        message.stream = Some(Arc::clone(&self.held));
        if message.hold(CALL_BYTES, None, now).is_err() {
            // As a request without room for its headers, it fails when it is read.
            message.held.progress().is_refused = true;
        }
        Some(message)
    }

    /// Notes that the whole request was received; it no longer gives way.
    pub fn came_whole(&self) {
        self.held.progress().kind = Kind::Whole;
        self.finish();
    }

    /// Counts further bytes that the request takes when it is decoded.
    ///
    /// # Errors
    /// [`RequestError`] if there is no room for them, or the request gave way to others.
    pub fn grow(&self, bytes: usize) -> Result<(), RequestError> {
        self.hold(bytes, None, Instant::now())
    }

    /// Counts the bytes by which a decompressed message of `length` bytes exceeds the bytes that were received.
    ///
    /// # Errors
    /// [`RequestError`] if there is no room for them, or the request gave way to others.
    pub fn decompressed(&self, length: usize) -> Result<(), RequestError> {
        let received = self.held.progress().moved.saturating_sub(PREFIX_BYTES);
        self.grow(length.saturating_sub(received))
    }

    /// The bound on the bytes of all requests.
    #[must_use]
    pub fn max(&self) -> usize {
        self.of.max
    }

    /// Returns an error if the request gave way.
    ///
    /// # Errors
    /// [`RequestError`] if there is no room for them, or the request gave way to others.
    pub fn check(&self) -> Result<(), RequestError> {
        if self.held.progress().is_refused { Err(self.refusal()) } else { Ok(()) }
    }

    /// Registers `waker` to be woken when the request gives way.
    pub fn wait(&self, waker: &std::task::Waker) {
        let mut number = self.number.lock().unwrap_or_else(PoisonError::into_inner);
        number.get_or_insert_with(|| self.of.register(&self.held));
        self.held.waiting.register(waker);
    }

    /// The time at which nothing more came for `max_pause`; `None` for a stream of which no message is arriving.
    pub(crate) fn pause_ends(&self, max_pause: Duration) -> Option<Instant> {
        let progress = self.held.progress();
        (!progress.is_between_messages()).then(|| progress.last + max_pause)
    }

    fn whole(&self) -> MutexGuard<'_, VecDeque<usize>> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, bytes: usize, rank: Option<Rank>, now: Instant) -> Result<(), RequestError> {
        self.check()?;
        let progress = *self.held.progress();
        if progress.held.saturating_add(bytes) > self.of.max {
            return Err(RequestError::LargerThanAllInFlight {
                bytes: progress.held.saturating_add(bytes),
                max: self.of.max,
            });
        }
        if !self.of.take(bytes) {
            self.of.make_room(rank.unwrap_or_else(|| progress.rank(now)), bytes, now);
            if !self.of.take(bytes) {
                return Err(self.refusal());
            }
        }
        let mut progress = self.held.progress();
        if progress.is_refused {
            // Another thread has refused it in between.
            self.of.give_back(bytes);
            return Err(self.refusal());
        }
        progress.held += bytes;
        Ok(())
    }

    fn refusal(&self) -> RequestError {
        RequestError::TooManyBytesInFlight { max: self.of.max }
    }

    fn finish(&self) {
        if let Some(number) = self.number.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.of.unfinished().by_number.remove(&number);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.finish();
        let held = std::mem::take(&mut self.held.progress().held);
        self.of.give_back(held);
        if let Some(stream) = &self.stream {
            stream.progress().unanswered -= 1;
        }
    }
}

/// The bytes of one connection's answers that its client has not read, given back on drop.
pub(crate) struct Unread {
    of: Arc<RequestBytes>,
    held: Arc<Held>,
    number: u64,
}

impl Unread {
    pub(crate) fn new(of: &Arc<RequestBytes>, now: Instant) -> Self {
        let held = Arc::new(Held::new(Progress::new(Kind::Unread, MessageLength::Unknown, now)));
        let number = of.register(&held);
        Self { of: Arc::clone(of), held, number }
    }

    /// Counts an answer. Its bytes exist already, so the count may exceed the bound; others then give way.
    pub(crate) fn owe(&self, bytes: usize, now: Instant) {
        {
            let mut progress = self.held.progress();
            if progress.held == 0 {
                *progress = Progress {
                    is_refused: progress.is_refused,
                    ..Progress::new(Kind::Unread, MessageLength::Unknown, now)
                };
            }
            progress.held += bytes;
        }
        let held = self.of.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if held > self.of.max {
            self.of.make_room(Rank::Arriving(0.0), held - self.of.max, now);
        }
    }

    /// Counts bytes that were sent, of headers or of answers.
    pub(crate) fn sent(&self, bytes: usize, now: Instant) {
        let mut progress = self.held.progress();
        let read = bytes.min(progress.held);
        if read > 0 {
            progress.held -= read;
            progress.moved += read;
            progress.last = now;
            self.of.give_back(read);
        }
    }

    /// Resolves when the connection must end, to make room for others.
    pub(crate) async fn gives_way(&self) {
        std::future::poll_fn(|context| {
            self.held.waiting.register(context.waker());
            if self.held.progress().is_refused { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.of.unfinished().by_number.remove(&self.number);
        let held = std::mem::take(&mut self.held.progress().held);
        self.of.give_back(held);
    }
}

#[cfg(test)]
mod tests;

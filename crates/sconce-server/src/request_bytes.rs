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
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const KIB: usize = 1024;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A request with a message of `message` bytes, of which `received` bytes came, the last one `last` seconds after
    /// `start`.
    fn progress(start: Instant, last: u32, message: u32, received: usize) -> Progress {
        let last = start + last * SECOND;
        let began = last.checked_sub(SECOND / 2).expect("the clock has run for as long");
        let mut progress = Progress::new(Kind::Unfinished, MessageLength::PREFIXED, began);
        let prefix = [&[0][..], &message.to_be_bytes()].concat();
        progress.receive(&prefix[..received.min(PREFIX_BYTES)], began);
        Progress { held: received, moved: received, last, ..progress }
    }

    #[test]
    fn the_length_is_read_from_pieces_of_any_size() {
        let mut progress = Progress::new(Kind::Unfinished, MessageLength::PREFIXED, Instant::now());
        for piece in [&[0][..], &[0, 1], &[], &[2, 3, 9, 9]] {
            progress.receive(piece, Instant::now());
        }
        assert_eq!((progress.length, progress.moved), (MessageLength::Prefixed([0, 0, 1, 2, 3]), 7));
        assert_eq!(progress.missing(), 0x0001_0203 - 2);
        let mut known = Progress::new(Kind::Unfinished, MessageLength::Known(10), Instant::now());
        known.receive(&[0; 7], Instant::now());
        assert_eq!(known.missing(), 3);
    }

    #[test]
    fn stalled_requests_give_way_first_then_those_that_are_expected_last() {
        let start = Instant::now();
        let now = start + 10 * SECOND;
        let others = [
            progress(start, 10, 100_000, 90_000), // nearly there
            progress(start, 10, 100_000, 30_000),
            progress(start, 8, 100_000, 99_000),
            progress(start, 3, 100_000, 50_000), // stalled for longer
            progress(start, 10, 100_000, 3),     // nothing is known of its length
        ];
        let refuse = |own, wanted| to_refuse(&others, own, wanted, now);
        let whole = Rank::Arriving(0.0);
        assert_eq!(refuse(whole, 1), Some(vec![3]));
        assert_eq!(refuse(whole, 50_001), Some(vec![3, 2]));
        assert_eq!(refuse(whole, 149_004), Some(vec![3, 2, 4, 1]));
        assert_eq!(refuse(whole, 300_000), None);
        assert_eq!(refuse(others[0].rank(now), 149_004), Some(vec![3, 2, 4, 1]));
        assert_eq!(refuse(others[1].rank(now), 149_004), None, "those ahead of it are left alone");
        assert_eq!(refuse(others[4].rank(now), 149_001), None);
    }

    #[test]
    fn what_is_held_never_passes_the_bound_and_is_given_back() {
        let (now, all) = (Instant::now(), Arc::new(RequestBytes::new(100 * KIB)));
        let first = all.begin(0, MessageLength::PREFIXED, now);
        first.receive(&vec![0; 60 * KIB], now).unwrap();
        assert_eq!(all.held(), 68 * KIB);
        let second = all.begin(KIB, MessageLength::PREFIXED, now);
        assert_eq!(all.held(), 77 * KIB);
        first.came_whole();
        assert!(matches!(second.receive(&vec![0; 40 * KIB], now), Err(RequestError::TooManyBytesInFlight { .. })));
        assert!(second.receive(&vec![0; 20 * KIB], now).is_ok());
        assert!(matches!(second.receive(&vec![0; 90 * KIB], now), Err(RequestError::LargerThanAllInFlight { .. })));
        drop(first);
        assert_eq!(all.held(), 29 * KIB);
        drop(second);
        assert_eq!(all.held(), 0);
    }

    #[test]
    fn a_stalled_request_gives_way_to_a_new_one_and_is_woken() {
        let (now, all) = (Instant::now(), Arc::new(RequestBytes::new(100 * KIB)));
        let stalled = all.begin(0, MessageLength::PREFIXED, now);
        stalled.receive(&vec![0; 80 * KIB], now).unwrap();
        let woken = Arc::new(Woken::default());
        stalled.wait(&Arc::clone(&woken).into());
        let later = now + STALLED;
        let new = all.begin(0, MessageLength::PREFIXED, later);
        new.receive(&vec![0; 20 * KIB], later).unwrap();
        assert_eq!((woken.0.load(Ordering::Relaxed), all.held()), (1, 28 * KIB));
        assert!(matches!(stalled.check(), Err(RequestError::TooManyBytesInFlight { .. })));
        assert!(stalled.receive(&[0], later).is_err());
        drop(stalled);
        assert_eq!(all.held(), 28 * KIB);
    }

    #[test]
    fn unread_answers_count_until_they_are_sent_and_give_way_when_nobody_reads_them() {
        let (now, all) = (Instant::now(), Arc::new(RequestBytes::new(100 * KIB)));
        let [read, unread] = [(); 2].map(|()| Unread::new(&all, now));
        read.owe(40 * KIB, now);
        unread.owe(70 * KIB, now);
        assert_eq!(all.held(), 110 * KIB, "what is there cannot be refused");
        read.sent(30 * KIB, now);
        unread.sent(KIB, now);
        let later = now + STALLED;
        read.sent(KIB, later);
        let request = all.begin(0, MessageLength::PREFIXED, later);
        request.receive(&vec![0; 20 * KIB], later).expect("the one that nobody reads gives way");
        let waker = Arc::new(Woken::default()).into();
        let ends = |unread: &Unread| {
            std::pin::pin!(unread.gives_way()).poll(&mut std::task::Context::from_waker(&waker)).is_ready()
        };
        assert!(ends(&unread) && !ends(&read));
        assert_eq!(all.held(), 37 * KIB);
        read.sent(1000 * KIB, later);
        drop((read, unread, request));
        assert_eq!(all.held(), 0);
    }

    #[test]
    fn each_message_of_a_stream_has_the_bytes_that_it_came_in_and_gives_them_back() {
        let (of, now) = (Arc::new(RequestBytes::new(1 << 20)), Instant::now());
        let stream = of.begin_stream(100, now);
        let idle = of.held();
        let bytes = [&[0, 0, 0, 0, 3, 1, 2, 3][..], &[0; 5], &[0, 0, 0, 0, 9, 1]].concat();
        for piece in bytes.chunks(4) {
            stream.receive(piece, now).unwrap();
        }
        assert_eq!(of.held(), idle + bytes.len());
        let first = stream.take_message().unwrap();
        assert_eq!(of.held(), idle + bytes.len() + CALL_BYTES);
        let second = stream.take_message().unwrap();
        assert!(stream.take_message().is_none(), "the third has not come whole");
        drop(first);
        assert_eq!(of.held(), idle + bytes.len() - 8 + CALL_BYTES);
        drop(second);
        assert_eq!(of.held(), idle + 6);
        drop(stream);
        assert_eq!(of.held(), 0);
    }

    #[test]
    fn a_stream_may_pause_between_messages_and_gives_way_then_unless_a_message_is_unanswered() {
        let (of, now) = (Arc::new(RequestBytes::new(1 << 20)), Instant::now());
        let stream = of.begin_stream(0, now);
        let later = now + STALLED;
        let rank = |stream: &Charge| stream.held.progress().rank(later);
        assert_eq!(stream.pause_ends(STALLED), None);
        assert_eq!(rank(&stream), Rank::Stalled(1.0));
        stream.receive(&[0, 0, 0, 0, 1, 7], now).unwrap();
        assert_eq!((stream.pause_ends(STALLED), rank(&stream)), (None, Rank::Arriving(0.0)));
        let message = stream.take_message().unwrap();
        assert_eq!(rank(&stream), Rank::Arriving(0.0));
        stream.receive(&[0, 0], now).unwrap();
        assert_eq!((stream.pause_ends(STALLED), rank(&stream)), (Some(later), Rank::Stalled(1.0)), "half a message");
        stream.receive(&[0, 0, 0], now).unwrap();
        drop((message, stream.take_message()));
        assert_eq!(rank(&stream), Rank::Stalled(1.0));
    }

    #[test]
    fn a_message_without_room_is_refused_and_its_stream_goes_on() {
        let now = Instant::now();
        let of = Arc::new(RequestBytes::new(2 * CALL_BYTES));
        let stream = of.begin_stream(100, now);
        stream.receive(&[0; 5], now).unwrap();
        let message = stream.take_message().unwrap();
        assert!(matches!(message.grow(0), Err(RequestError::TooManyBytesInFlight { .. })));
        assert!(stream.check().is_ok());
    }

    #[test]
    fn a_request_that_came_whole_never_gives_way() {
        let (now, all) = (Instant::now(), Arc::new(RequestBytes::new(100 * KIB)));
        let whole = all.begin(0, MessageLength::PREFIXED, now);
        whole.receive(&vec![0; 90 * KIB], now).unwrap();
        whole.wait(std::task::Waker::noop());
        whole.came_whole();
        let new = all.begin(0, MessageLength::PREFIXED, now + SECOND);
        assert!(new.check().is_err());
        whole.check().unwrap();
    }
}

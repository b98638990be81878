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

//! Streams: work is queued in them, and runs when a call waits for it or a seeded coin says so.
//!
//! Each piece of work has a number, and each stream a clock: for every stream, the highest number that must have run
//! before the work that follows. An event is a copy of a clock; waiting for it merges that copy in. So a missing wait
//! leaves work free to run in the wrong order, and for some seed it does.

use std::collections::{BTreeMap, VecDeque};

use super::error::Status;
use super::host::{self, HostPointer};
use super::simulator::Simulator;
use super::work::Work;

/// A stream's number; the legacy default stream of device `d` has number `d`.
pub type StreamId = u64;

/// Most pieces of work that may be queued; beyond that some of it runs.
const MAX_QUEUED: usize = 2048;
/// One in this many tosses of the coin lets a piece of work run early.
const EARLY_ONE_IN: u64 = 4;
/// Content of host memory that a copy has not reached yet.
const NOT_LANDED: u8 = 0xa5;

/// For every stream, the highest number of the work that comes before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clock(BTreeMap<StreamId, u64>);

impl Clock {
    fn raise(&mut self, stream: StreamId, number: u64) {
        let entry = self.0.entry(stream).or_default();
        *entry = number.max(*entry);
    }

    fn merge(&mut self, other: &Self) {
        for (stream, number) in &other.0 {
            self.raise(*stream, *number);
        }
    }

    fn covers(&self, stream: StreamId, number: u64) -> bool {
        self.0.get(&stream).is_some_and(|highest| *highest >= number)
    }
}

/// A stream.
#[derive(Debug, Default)]
pub struct Stream {
    pub device: usize,
    /// True if this stream and the legacy default stream wait for each other.
    pub blocking: bool,
    queue: VecDeque<Queued>,
    clock: Clock,
    /// The capture that records the stream's work.
    pub capture: Option<u64>,
}

impl Stream {
    /// An empty stream of a device; `blocking` ones are ordered with the legacy default stream.
    pub fn new(device: usize, blocking: bool) -> Self {
        Self { device, blocking, ..Self::default() }
    }
}

#[derive(Debug)]
struct Queued {
    number: u64,
    after: Clock,
    work: Work,
}

/// Bytes copied for the host that have not reached its memory.
#[derive(Debug)]
pub struct Landing {
    stream: StreamId,
    number: u64,
    to: HostPointer,
    data: Vec<u8>,
}

/// An event.
#[derive(Debug, Default)]
pub struct Event {
    /// Clock of the work before the event; `None` until it is recorded.
    pub clock: Option<Clock>,
    /// Time at which the work before the event was complete.
    pub reached: Option<std::time::Instant>,
    /// The capture that it was last recorded in.
    pub capture: Option<u64>,
}

/// A small generator of random numbers (Marsaglia, "Xorshift RNGs").
#[derive(Debug)]
pub struct Coin(u64);

impl Coin {
    /// A coin with a seed; zero gives one that is never tossed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// True if there is any randomness.
    fn is_thrown(&self) -> bool {
        self.0 != 0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) % limit
    }
}

impl Simulator {
    /// Puts work on a stream, or into the capture that the stream belongs to.
    pub fn enqueue(&mut self, stream: StreamId, work: Work) -> Result<(), Status> {
        let target = self.streams.get(&stream).ok_or(Status::INVALID_HANDLE)?;
        if let Some(capture) = target.capture {
            return self.capture_work(capture, work);
        }
        self.order_with_legacy(stream)?;
        self.count(&work);
        self.push(stream, work);
        Ok(())
    }

    /// Orders work on the legacy default stream after the blocking streams of its device, and theirs after it.
    fn order_with_legacy(&mut self, stream: StreamId) -> Result<(), Status> {
        let device = self.streams[&stream].device;
        let is_legacy = stream == device as StreamId;
        if !is_legacy && !self.streams[&stream].blocking {
            return Ok(());
        }
        let others = self.streams.iter().filter(|(id, other)| {
            **id != stream && other.device == device && if is_legacy { other.blocking } else { **id == device as u64 }
        });
        let mut clock = Clock::default();
        for (_, other) in others {
            if is_legacy && other.capture.is_some() {
                return Err(Status::CAPTURE_IMPLICIT);
            }
            clock.merge(&other.clock);
        }
        self.streams.get_mut(&stream).expect("the stream was looked up above").clock.merge(&clock);
        Ok(())
    }

    /// Appends work to a stream that is not capturing.
    pub fn push(&mut self, stream: StreamId, work: Work) {
        self.next_number += 1;
        let number = self.next_number;
        if let Work::ToHost { to, bytes, .. } = &work
            && !self.settings.eager
        {
            host::write(*to, &vec![NOT_LANDED; *bytes]);
        }
        let target = self.streams.get_mut(&stream).expect("work is put on streams that exist");
        let mut after = target.clock.clone();
        after.0.remove(&stream);
        target.clock.raise(stream, number);
        target.queue.push_back(Queued { number, after, work });
        self.queued += 1;
        if self.settings.eager {
            let clock = self.streams[&stream].clock.clone();
            self.run_until(&clock);
            self.land(&clock);
            return;
        }
        let early = self.coin.is_thrown() && self.coin.below(EARLY_ONE_IN) == 0;
        if early || self.queued > MAX_QUEUED {
            let all = self.everything();
            self.step(&all);
        }
    }

    /// The clock of all work put on a stream so far.
    pub fn clock_of(&self, stream: StreamId) -> Result<Clock, Status> {
        let stream = self.streams.get(&stream).ok_or(Status::INVALID_HANDLE)?;
        if stream.capture.is_some() { Err(Status::CAPTURE_UNSUPPORTED) } else { Ok(stream.clock.clone()) }
    }

    /// Orders all work put on `stream` from now on after `clock`.
    pub fn wait_for(&mut self, stream: StreamId, clock: &Clock) -> Result<(), Status> {
        self.streams.get_mut(&stream).ok_or(Status::INVALID_HANDLE)?.clock.merge(clock);
        Ok(())
    }

    /// The clock of all work put on the streams of `device` so far.
    pub fn clock_of_device(&self, device: usize) -> Clock {
        let mut clock = Clock::default();
        for stream in self.streams.values().filter(|stream| stream.device == device) {
            clock.merge(&stream.clock);
        }
        clock
    }

    fn everything(&self) -> Clock {
        let mut clock = Clock::default();
        for stream in self.streams.values() {
            clock.merge(&stream.clock);
        }
        clock
    }

    /// Waits for the host: all work that `clock` covers runs, and its bytes for the host land.
    pub fn wait(&mut self, clock: &Clock) -> Result<(), Status> {
        self.counts.synchronisations += 1;
        self.run_until(clock);
        self.land(clock);
        self.sticky.map_or(Ok(()), Err)
    }

    /// Returns `Ok` if all work that `clock` covers has run; otherwise runs some of it, so that a polling loop ends.
    pub fn query(&mut self, clock: &Clock) -> Result<(), Status> {
        if self.is_complete(clock) {
            self.land(clock);
            return self.sticky.map_or(Ok(()), Err);
        }
        self.step(clock);
        Err(Status::NOT_READY)
    }

    fn is_complete(&self, clock: &Clock) -> bool {
        !self
            .streams
            .iter()
            .any(|(id, stream)| stream.queue.front().is_some_and(|first| clock.covers(*id, first.number)))
    }

    /// Runs all work that `clock` covers, without a wait of the host.
    pub fn run_until(&mut self, clock: &Clock) {
        while !self.is_complete(clock) {
            self.step(clock);
        }
    }

    /// Runs one piece of work: one that `clock` covers, or by the coin any that may run.
    fn step(&mut self, clock: &Clock) {
        let ready: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(id, stream)| {
                stream.queue.front().is_some_and(|first| {
                    (self.coin.is_thrown() || clock.covers(**id, first.number)) && self.is_complete(&first.after)
                })
            })
            .map(|(id, _)| *id)
            .collect();
        if ready.is_empty() {
            return;
        }
        let chosen = if ready.len() > 1 && self.coin.is_thrown() { self.coin.below(ready.len() as u64) } else { 0 };
        let stream = ready[chosen as usize];
        let queue = &mut self.streams.get_mut(&stream).expect("chosen among the streams").queue;
        let queued = queue.pop_front().expect("chosen because it has work");
        self.queued -= 1;
        if let Some((to, data)) = self.perform(&queued.work) {
            self.landings.push(Landing { stream, number: queued.number, to, data });
        }
    }

    fn land(&mut self, clock: &Clock) {
        let (landed, flying) = std::mem::take(&mut self.landings)
            .into_iter()
            .partition(|landing| clock.covers(landing.stream, landing.number));
        self.landings = flying;
        let mut landed: Vec<Landing> = landed;
        landed.sort_by_key(|landing| landing.number);
        for landing in landed {
            host::write(landing.to, &landing.data);
        }
    }

    /// Forgets all work that has not run and all bytes that have not landed.
    pub fn drop_queued(&mut self) {
        for stream in self.streams.values_mut() {
            stream.queue.clear();
        }
        self.landings.clear();
        self.queued = 0;
    }
}

//! The memory of a device, shared by the models on it: which models are loaded, and which is unloaded when another does
//! not fit.
//!
//! [`Ledger`] decides and is pure; [`DeviceMemory`] locks and waits. An unloaded model is loaded again at its next batch.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::slot::NetworkSlot;

/// A device's memory and the models that share it.
pub(crate) struct DeviceMemory {
    state: Mutex<MemoryState>,
    /// Notified when a model starts or stops running.
    changed: Condvar,
}

struct MemoryState {
    ledger: Ledger,
    /// The network's slot of each tenant, by the tenant's number.
    slots: BTreeMap<usize, Arc<NetworkSlot>>,
}

/// A model's place in the memory of a device. When it is dropped, the network is unloaded and the place is free.
pub(crate) struct Tenancy {
    memory: Arc<DeviceMemory>,
    tenant: usize,
}

impl Tenancy {
    /// Does what [`DeviceMemory::enter`] does.
    pub(crate) fn enter(&self) -> Entered {
        self.memory.enter(self.tenant)
    }

    /// Does what [`DeviceMemory::leave`] does.
    pub(crate) fn leave(&self, stays: bool) {
        self.memory.leave(self.tenant, stays);
    }
}

impl Drop for Tenancy {
    fn drop(&mut self) {
        self.memory.remove(self.tenant);
    }
}

/// Error of a model that needs more memory than the device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the model needs {needed} bytes, and the device has {max}")]
pub(crate) struct TooLarge {
    pub(crate) needed: u64,
    pub(crate) max: u64,
}

impl DeviceMemory {
    pub(crate) fn new(max_bytes: u64) -> Self {
        let state = MemoryState { ledger: Ledger::new(max_bytes), slots: BTreeMap::new() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Adds a model that is not in memory yet.
    pub(crate) fn add(self: &Arc<Self>, needs: Needs, slot: Arc<NetworkSlot>) -> Result<Tenancy, TooLarge> {
        let mut state = self.lock();
        let tenant = state.ledger.add(needs)?;
        state.slots.insert(tenant, slot);
        Ok(Tenancy { memory: Arc::clone(self), tenant })
    }

    /// Unloads a model that does not run, and gives its place up.
    fn remove(&self, tenant: usize) {
        let mut state = self.lock();
        // Unload under the lock: the memory must be free before another model enters.
        if let Some(slot) = state.slots.remove(&tenant) {
            slot.unload();
        }
        state.ledger.remove(tenant);
        self.changed.notify_all();
    }

    /// Makes room for a model that is about to run, by unloading idle models. Blocks while running models take the
    /// room, and while models that asked earlier wait for theirs. The result says if the model is in memory already.
    fn enter(&self, tenant: usize) -> Entered {
        let mut state = self.lock();
        loop {
            match state.ledger.enter(tenant) {
                admission @ (Admission::Present | Admission::Room) => {
                    // The next model in line may have been waiting for this one to enter.
                    self.changed.notify_all();
                    return if admission == Admission::Present { Entered::Present } else { Entered::Room };
                }
                Admission::Unload(other) => {
                    let slot = Arc::clone(&state.slots[&other]);
                    // Unload under the lock: the memory must be free before another model enters.
                    tracing::info!(model = slot.name(), device = %slot.device(), "unloaded: another model needs the memory");
                    slot.unload();
                }
                Admission::Wait => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Ends the run of a model that entered; `stays` is true if its network is still in memory.
    fn leave(&self, tenant: usize, stays: bool) {
        self.lock().ledger.leave(tenant, stays);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, MemoryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of a model that may run now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entered {
    /// The network is in memory.
    Present,
    /// The network is not in memory, and there is room to load it.
    Room,
}

/// Bytes that a model needs of a device's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Bytes of the weights, needed while the model is loaded.
    pub(crate) weights: u64,
    /// Bytes of the heaviest batch, needed while it runs. Models that take turns on one thread of the device share this
    /// memory, so only the largest of them counts.
    pub(crate) batch: u64,
    /// Number of the device's thread that runs the model's batches.
    pub(crate) thread: usize,
}

/// The models of a device: those in memory and those that wait for room.
#[derive(Debug)]
struct Ledger {
    max_bytes: u64,
    /// The models by their numbers.
    tenants: BTreeMap<usize, Tenant>,
    /// Number of the next model.
    next: usize,
    /// Models that wait for room, in the order of their arrival. Models in memory wait behind them, too; otherwise two
    /// busy models would never let in a third.
    line: VecDeque<usize>,
    clock: u64,
}

#[derive(Debug, Clone, Copy)]
struct Tenant {
    needs: Needs,
    present: bool,
    running: bool,
    last_used: u64,
}

/// The step to take before a model can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    /// No step: the model is in memory and may run.
    Present,
    /// Load the model: there is room for it.
    Room,
    /// Unload this tenant, which the ledger already counts as gone, and ask again.
    Unload(usize),
    /// Wait: every model that could be unloaded is running, or other models wait already.
    Wait,
}

impl Ledger {
    fn new(max_bytes: u64) -> Self {
        Self { max_bytes, tenants: BTreeMap::new(), next: 0, line: VecDeque::new(), clock: 0 }
    }

    fn add(&mut self, needs: Needs) -> Result<usize, TooLarge> {
        let needed = needs.weights.saturating_add(needs.batch);
        if needed > self.max_bytes {
            return Err(TooLarge { needed, max: self.max_bytes });
        }
        let tenant = self.next;
        self.next += 1;
        self.tenants.insert(tenant, Tenant { needs, present: false, running: false, last_used: 0 });
        Ok(tenant)
    }

    fn remove(&mut self, tenant: usize) {
        self.tenants.remove(&tenant);
        self.line.retain(|waiting| *waiting != tenant);
    }

    fn tenant(&mut self, tenant: usize) -> &mut Tenant {
        self.tenants.get_mut(&tenant).expect("a model that enters or leaves has a place")
    }

    fn enter(&mut self, tenant: usize) -> Admission {
        if self.line.front().is_some_and(|first| *first != tenant) {
            return self.wait(tenant);
        }
        if !self.tenant(tenant).present && self.bytes_with(tenant) > self.max_bytes {
            let idle = self.tenants.iter_mut().filter(|(_, other)| other.present && !other.running);
            return match idle.min_by_key(|(_, other)| other.last_used) {
                Some((&oldest, unloaded)) => {
                    unloaded.present = false;
                    Admission::Unload(oldest)
                }
                None => self.wait(tenant),
            };
        }
        self.line.pop_front_if(|first| *first == tenant);
        self.clock += 1;
        let last_used = self.clock;
        let entering = self.tenant(tenant);
        let was_present = std::mem::replace(&mut entering.present, true);
        (entering.running, entering.last_used) = (true, last_used);
        if was_present { Admission::Present } else { Admission::Room }
    }

    fn wait(&mut self, tenant: usize) -> Admission {
        if !self.line.contains(&tenant) {
            self.line.push_back(tenant);
        }
        Admission::Wait
    }

    fn leave(&mut self, tenant: usize, stays: bool) {
        let leaving = self.tenant(tenant);
        (leaving.running, leaving.present) = (false, stays);
    }

    /// Bytes that the models in memory need together with `tenant`: the weights of each, and the heaviest batch of each
    /// thread, since threads run their batches at the same time.
    fn bytes_with(&self, tenant: usize) -> u64 {
        let (mut weights, mut batches) = (0_u64, BTreeMap::<usize, u64>::new());
        for (at, Tenant { needs, present, .. }) in &self.tenants {
            if *present || *at == tenant {
                weights = weights.saturating_add(needs.weights);
                let heaviest = batches.entry(needs.thread).or_default();
                *heaviest = needs.batch.max(*heaviest);
            }
        }
        batches.into_values().fold(weights, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ledger of models that take turns on one thread, given the bytes of their weights and batches.
    fn ledger(max_bytes: u64, tenants: &[(u64, u64)]) -> Ledger {
        threaded(max_bytes, &tenants.iter().map(|(weights, batch)| (*weights, *batch, 0)).collect::<Vec<_>>())
    }

    /// Like `ledger`, with the thread of each model as the third number.
    fn threaded(max_bytes: u64, tenants: &[(u64, u64, usize)]) -> Ledger {
        let mut ledger = Ledger::new(max_bytes);
        for &(weights, batch, thread) in tenants {
            ledger.add(Needs { weights, batch, thread }).unwrap();
        }
        ledger
    }

    fn run(ledger: &mut Ledger, tenant: usize) -> Vec<Admission> {
        let mut seen = Vec::new();
        loop {
            seen.push(ledger.enter(tenant));
            match seen.last() {
                Some(Admission::Unload(_)) => {}
                Some(Admission::Wait) => return seen,
                _ => break,
            }
        }
        ledger.leave(tenant, true);
        seen
    }

    #[test]
    fn who_was_used_longest_ago_leaves_first_and_only_as_many_as_must() {
        let mut ledger = ledger(100, &[(40, 10), (40, 10), (40, 10), (10, 0)]);
        assert_eq!(run(&mut ledger, 0), [Admission::Room]);
        assert_eq!(run(&mut ledger, 1), [Admission::Room]);
        assert_eq!(run(&mut ledger, 0), [Admission::Present]);
        assert_eq!(run(&mut ledger, 2), [Admission::Unload(1), Admission::Room], "0 was used later");
        assert_eq!(run(&mut ledger, 3), [Admission::Room], "40 + 40 + 10 and a batch of 10 fit");
        assert_eq!(run(&mut ledger, 1), [Admission::Unload(0), Admission::Room]);
    }

    #[test]
    fn one_that_runs_does_not_leave() {
        let mut ledger = ledger(100, &[(60, 0), (60, 0)]);
        assert_eq!(ledger.enter(0), Admission::Room);
        assert_eq!(ledger.enter(1), Admission::Wait);
        ledger.leave(0, true);
        assert_eq!(ledger.enter(1), Admission::Unload(0));
        assert_eq!(ledger.enter(1), Admission::Room);
    }

    #[test]
    fn as_many_batches_count_as_threads_run_at_the_same_time() {
        let mut apart = threaded(100, &[(20, 30, 0), (20, 40, 1)]);
        assert_eq!(run(&mut apart, 0), [Admission::Room]);
        assert_eq!(run(&mut apart, 1), [Admission::Unload(0), Admission::Room], "20 + 20 + 30 + 40 do not fit");
        let mut taking_turns = threaded(100, &[(20, 30, 0), (20, 40, 0)]);
        assert_eq!(run(&mut taking_turns, 0), [Admission::Room]);
        assert_eq!(run(&mut taking_turns, 1), [Admission::Room], "20 + 20 + 40 do");
        let mut two_threads = threaded(100, &[(10, 30, 0), (10, 40, 1), (10, 20, 0)]);
        for tenant in 0..3 {
            assert_eq!(run(&mut two_threads, tenant), [Admission::Room], "30 + 30 + 40 fit to the byte");
        }
        let mut vast = threaded(u64::MAX, &[(u64::MAX, 0, 0), (u64::MAX, 0, 1)]);
        assert_eq!(run(&mut vast, 0), [Admission::Room]);
        assert_eq!(run(&mut vast, 1), [Admission::Room], "what cannot be counted counts as the most there is");
    }

    #[test]
    fn who_waits_for_room_is_let_in_before_others_run_again() {
        let mut ledger = threaded(100, &[(40, 0, 0), (40, 0, 1), (40, 0, 2)]);
        assert_eq!(ledger.enter(0), Admission::Room);
        assert_eq!(ledger.enter(1), Admission::Room);
        assert_eq!(ledger.enter(2), Admission::Wait, "both of the others run");
        ledger.leave(0, true);
        assert_eq!(ledger.enter(0), Admission::Wait, "2 came before");
        assert_eq!(ledger.enter(2), Admission::Unload(0));
        assert_eq!(ledger.enter(2), Admission::Room);
        assert_eq!(ledger.enter(0), Admission::Wait, "1 and 2 run");
        ledger.leave(1, true);
        assert_eq!(ledger.enter(0), Admission::Unload(1));
        assert_eq!(ledger.enter(0), Admission::Room);
    }

    #[test]
    fn one_that_could_not_be_loaded_takes_no_room() {
        let mut ledger = ledger(100, &[(60, 0), (60, 0)]);
        assert_eq!(ledger.enter(0), Admission::Room);
        ledger.leave(0, false);
        assert_eq!(ledger.enter(1), Admission::Room);
    }

    #[test]
    fn one_that_is_removed_takes_no_room_and_waits_for_none() {
        let mut ledger = ledger(100, &[(60, 0), (60, 0), (60, 0)]);
        assert_eq!(ledger.enter(0), Admission::Room);
        assert_eq!((ledger.enter(1), ledger.enter(2)), (Admission::Wait, Admission::Wait));
        ledger.leave(0, true);
        ledger.remove(0);
        ledger.remove(1);
        assert_eq!(ledger.enter(2), Admission::Room, "1 was before it in the line");
        ledger.leave(2, true);
        assert_eq!(ledger.add(Needs { weights: 40, batch: 0, thread: 0 }), Ok(3), "numbers are not used again");
        assert_eq!(run(&mut ledger, 3), [Admission::Room]);
    }

    #[test]
    fn one_that_can_never_fit_is_refused_at_once() {
        let refused = ledger(100, &[]).add(Needs { weights: 90, batch: 11, thread: 0 });
        assert_eq!(refused, Err(TooLarge { needed: 101, max: 100 }));
    }
}

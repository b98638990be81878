//! The memory of a device, shared by the models on it: who is in it, and who leaves when another does not fit.
//!
//! [`Ledger`] decides and is pure; [`DeviceMemory`] locks and waits. A model that is asked for comes back by itself.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::seat::NetworkSlot;

/// The models that share a device's memory.
pub(crate) struct DeviceMemory {
    state: Mutex<State>,
    /// Told whenever a model stops running or leaves.
    changed: Condvar,
}

struct State {
    ledger: Ledger,
    /// The network of each tenant, by its number.
    slots: Vec<Arc<NetworkSlot>>,
}

/// More than the device can ever hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the model needs {needed} bytes, and the device has {max}")]
pub(crate) struct TooLarge {
    pub(crate) needed: u64,
    pub(crate) max: u64,
}

impl DeviceMemory {
    pub(crate) fn new(max_bytes: u64) -> Self {
        let ledger = Ledger { max_bytes, tenants: Vec::new(), clock: 0 };
        Self { state: Mutex::new(State { ledger, slots: Vec::new() }), changed: Condvar::new() }
    }

    /// Adds a model that is not in memory yet, and gives its number.
    pub(crate) fn add(&self, needs: Needs, slot: Arc<NetworkSlot>) -> Result<usize, TooLarge> {
        let mut state = self.lock();
        let tenant = state.ledger.add(needs)?;
        state.slots.push(slot);
        Ok(tenant)
    }

    /// Makes room for a model that is about to run; others leave for it, but none that runs. Blocks until those that are in the way
    /// have run. Says whether the model is in memory already.
    pub(crate) fn enter(&self, tenant: usize) -> Entered {
        let mut state = self.lock();
        loop {
            match state.ledger.enter(tenant) {
                Admission::Present => return Entered::Present,
                Admission::Room => return Entered::Room,
                Admission::Unload(other) => {
                    let slot = Arc::clone(&state.slots[other]);
                    // Its memory has to be free before anything takes its place, and nobody may see it half gone.
                    tracing::info!(model = slot.name(), device = %slot.device(), "unloaded: another model needs the memory");
                    slot.unload();
                }
                Admission::Wait => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// A model that entered has run; `stays` says whether it is in memory.
    pub(crate) fn leave(&self, tenant: usize, stays: bool) {
        self.lock().ledger.leave(tenant, stays);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a model that may run is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entered {
    Present,
    /// There is room to load it.
    Room,
}

/// What a model needs of a device's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needs {
    /// For its weights, as long as it is loaded.
    pub(crate) weights: u64,
    /// For its heaviest batch, as long as that runs. Counted once for all models: what one gives back the next one takes.
    pub(crate) batch: u64,
}

/// Who is in memory.
#[derive(Debug)]
struct Ledger {
    max_bytes: u64,
    tenants: Vec<Tenant>,
    clock: u64,
}

#[derive(Debug, Clone, Copy)]
struct Tenant {
    needs: Needs,
    present: bool,
    running: bool,
    last_used: u64,
}

/// What has to happen before a model can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    /// Nothing: it is there.
    Present,
    /// Nothing but loading it.
    Room,
    /// This one has to leave, and has; ask again.
    Unload(usize),
    /// All that could leave are running.
    Wait,
}

impl Ledger {
    fn add(&mut self, needs: Needs) -> Result<usize, TooLarge> {
        let needed = needs.weights.saturating_add(needs.batch);
        if needed > self.max_bytes {
            return Err(TooLarge { needed, max: self.max_bytes });
        }
        self.tenants.push(Tenant { needs, present: false, running: false, last_used: 0 });
        Ok(self.tenants.len() - 1)
    }

    fn enter(&mut self, tenant: usize) -> Admission {
        if !self.tenants[tenant].present && self.bytes_with(tenant) > self.max_bytes {
            let idle = |at: &usize| self.tenants[*at].present && !self.tenants[*at].running;
            let oldest = (0..self.tenants.len()).filter(idle).min_by_key(|at| self.tenants[*at].last_used);
            return match oldest {
                Some(oldest) => {
                    self.tenants[oldest].present = false;
                    Admission::Unload(oldest)
                }
                None => Admission::Wait,
            };
        }
        self.clock += 1;
        let last_used = self.clock;
        let entering = &mut self.tenants[tenant];
        let was_present = std::mem::replace(&mut entering.present, true);
        (entering.running, entering.last_used) = (true, last_used);
        if was_present { Admission::Present } else { Admission::Room }
    }

    fn leave(&mut self, tenant: usize, stays: bool) {
        (self.tenants[tenant].running, self.tenants[tenant].present) = (false, stays);
    }

    /// What all that are in memory need together with one that comes.
    fn bytes_with(&self, tenant: usize) -> u64 {
        let there =
            self.tenants.iter().enumerate().filter(|(at, it)| it.present || *at == tenant).map(|(_, it)| it.needs);
        let weights = there.clone().map(|needs| needs.weights).fold(0, u64::saturating_add);
        weights.saturating_add(there.map(|needs| needs.batch).max().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(max_bytes: u64, tenants: &[(u64, u64)]) -> Ledger {
        let mut ledger = Ledger { max_bytes, tenants: Vec::new(), clock: 0 };
        for &(weights, batch) in tenants {
            ledger.add(Needs { weights, batch }).unwrap();
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
    fn one_that_could_not_be_loaded_takes_no_room() {
        let mut ledger = ledger(100, &[(60, 0), (60, 0)]);
        assert_eq!(ledger.enter(0), Admission::Room);
        ledger.leave(0, false);
        assert_eq!(ledger.enter(1), Admission::Room);
    }

    #[test]
    fn one_that_can_never_fit_is_refused_at_once() {
        let refused = ledger(100, &[]).add(Needs { weights: 90, batch: 11 });
        assert_eq!(refused, Err(TooLarge { needed: 101, max: 100 }));
    }
}

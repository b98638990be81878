//! The rungs of a model: one precision each, with its network, its queue and its keys in the cache.

use std::sync::Arc;
use std::time::Instant;

use sconce_batch::{CostLine, Depth, Queue, Role, Stats};
use sconce_models::{Demand, DeviceName, Precision};

use super::{Ladder, LadderStep};
use crate::cached::ModelCache;
use crate::devices::{Devices, ThreadKey};
use crate::network_executor::NetworkExecutor;
use crate::placement::Decision;
use crate::placing::{ModelInstance, PlacedModel};
use crate::slot::NetworkSlot;
use crate::{BuildError, InferError, ModelDevice, Permission};

/// The rungs of a model, the highest precision first. Most models have one.
pub(crate) struct Rungs {
    all: Vec<Rung>,
    home: usize,
    /// `None` if there is one rung.
    ladder: Option<Ladder>,
}

/// A model in one precision.
pub(crate) struct Rung {
    /// Its place among the rungs, the highest precision first.
    pub(crate) index: usize,
    pub(crate) precision: Precision,
    pub(crate) decision: Decision,
    pub(crate) permission: Permission,
    /// The id of the decision on the precision, as answers carry it.
    decision_id: Option<Arc<str>>,
    pub(crate) cache: Option<ModelCache>,
    pub(crate) queue: Queue<NetworkExecutor>,
    /// Devices in the order of the queue's devices: a completion names its device by the index.
    pub(crate) devices: Vec<OnDevice>,
    /// Number of devices of the rungs before this one. Figures of the whole model number the devices of all rungs.
    pub(crate) first_device: usize,
}

/// The fixed properties of a rung on one of its devices, and its network's slot there.
pub(crate) struct OnDevice {
    pub(crate) name: DeviceName,
    pub(crate) class: String,
    role: Role,
    demand: Demand,
    estimate: Option<CostLine>,
    slot: Arc<NetworkSlot>,
    _thread: ThreadKey,
}

impl Rung {
    /// Starts the queue of a placed model, which is the rung below those `before`.
    pub(crate) fn start(
        name: &str,
        placed_model: PlacedModel,
        cache: Option<ModelCache>,
        before: &[Self],
        devices: &Devices,
    ) -> Result<Self, BuildError> {
        let PlacedModel { signature, batching, decision, permission, instances, .. } = placed_model;
        let (mut on, mut learned, mut queues) = (Vec::new(), Vec::new(), Vec::new());
        for ModelInstance { device: name, class, demand, thread, executor, profile, learned: cost, .. } in instances {
            let slot = Arc::clone(&executor.slot);
            queues.push((devices.thread(&thread), executor, profile));
            let (role, estimate) = (profile.role, profile.estimate);
            on.push(OnDevice { name, class, role, demand, estimate, slot, _thread: thread });
            learned.push(cost);
        }
        let queue =
            Queue::placed(batching, queues).map_err(|source| BuildError::Queue { name: name.to_owned(), source })?;
        for (device, cost) in learned.into_iter().enumerate().filter(|(_, cost)| cost.is_known()) {
            queue.learned(device, cost);
        }
        let first_device = before.iter().map(|rung| rung.devices.len()).sum();
        let index = before.len();
        let (precision, decision_id) = (signature.precision, permission.id().map(Arc::from));
        let devices = on;
        Ok(Self { index, precision, decision, permission, decision_id, cache, queue, devices, first_device })
    }

    /// The learned time of a usual batch as a multiple of what the decision on this precision rests on.
    pub(crate) fn decided_cost_ratio(&self) -> Option<f64> {
        let decided = self.permission.decided()?.candidate.measured.cost;
        let learned = self.queue.cost().line()?;
        let usual = decided.usual_weight;
        let ratio = (learned.fixed + learned.per_weight * usual) / decided.seconds(usual);
        ratio.is_finite().then_some(ratio)
    }

    /// Number of devices that take batches.
    pub(crate) fn serving_devices(&self) -> usize {
        self.devices.iter().filter(|device| device.role == Role::Serves).count()
    }

    /// Returns true if the network is in the memory of the preferred device.
    pub(crate) fn is_loaded(&self) -> bool {
        self.devices[0].slot.is_loaded()
    }

    fn model_devices(&self) -> impl Iterator<Item = ModelDevice> {
        let device = |(at, device): (usize, &OnDevice)| ModelDevice {
            name: device.name,
            precision: self.precision,
            role: device.role,
            state: self.queue.device_state(at),
            loaded: device.slot.is_loaded(),
            loads: device.slot.loads(),
            weight_bytes: device.demand.weight_bytes,
            estimate: device.estimate,
            cost: self.queue.cost_on(at),
        };
        self.devices.iter().enumerate().map(device)
    }
}

impl Rungs {
    pub(crate) fn new(all: Vec<Rung>, home: usize, ladder: Option<Ladder>) -> Self {
        Self { all, home, ladder }
    }

    pub(crate) fn all(&self) -> &[Rung] {
        &self.all
    }

    /// The rung that answers when there is no load.
    pub(crate) fn home(&self) -> &Rung {
        &self.all[self.home]
    }

    /// The rung that answers requests which ask for no precision, right now.
    pub(crate) fn active(&self) -> &Rung {
        &self.all[self.active_index()]
    }

    pub(crate) fn active_index(&self) -> usize {
        self.ladder.as_ref().map_or(self.home, Ladder::active)
    }

    pub(crate) fn ladder(&self) -> Option<&Ladder> {
        self.ladder.as_ref()
    }

    /// The rung for a request that asks for this precision, or for none.
    pub(crate) fn of(&self, model: &str, asked: Option<Precision>) -> Result<&Rung, InferError> {
        let Some(asked) = asked else { return Ok(self.active()) };
        let other = || InferError::OtherPrecision { model: model.to_owned(), asked, has: self.precisions() };
        self.all.iter().find(|rung| rung.precision == asked).ok_or_else(other)
    }

    pub(crate) fn precisions(&self) -> Vec<Precision> {
        self.all.iter().map(|rung| rung.precision).collect()
    }

    /// The id of the decision on a precision, if a rung has it.
    pub(crate) fn decision_id(&self, precision: Precision) -> Option<Arc<str>> {
        self.all.iter().find(|rung| rung.precision == precision)?.decision_id.clone()
    }

    /// Gives the policy the present figures if it is time to, and tells of the step that it decides on.
    pub(crate) fn look(&self, model: &str) {
        if self.ladder.is_some() {
            self.look_at(model, Instant::now());
        }
    }

    pub(super) fn look_at(&self, model: &str, now: Instant) {
        if let Some(step) = self.ladder.as_ref().and_then(|ladder| ladder.look(now, self)) {
            self.tell(model, step);
        }
    }

    /// Lets neither a rung nor a lower one answer any more.
    pub(crate) fn forbid(&self, model: &str, rung: usize) {
        if let Some(step) = self.ladder.as_ref().and_then(|ladder| ladder.forbid(Instant::now(), rung)) {
            self.tell(model, step);
        }
    }

    fn tell(&self, model: &str, step: LadderStep) {
        let (from, to) = (self.all[step.from].precision, self.all[step.to].precision);
        let reason = step.reason;
        if step.to > step.from {
            tracing::warn!(model, %from, %to, %reason, "steps down to a lower precision");
        } else {
            tracing::warn!(model, %from, %to, %reason, "steps up to a higher precision");
        }
    }

    /// The devices of all rungs, those of the highest precision first.
    pub(crate) fn model_devices(&self) -> impl Iterator<Item = ModelDevice> {
        self.all.iter().flat_map(Rung::model_devices)
    }

    /// The precision and the name of one of the devices of all rungs.
    pub(crate) fn device(&self, device: usize) -> (Precision, DeviceName) {
        let rung = self.all.iter().rev().find(|rung| rung.first_device <= device).expect("the first begins at 0");
        (rung.precision, rung.devices[device - rung.first_device].name)
    }

    /// Number, weight and age of the entries of all queues.
    pub(crate) fn depth(&self) -> Depth {
        let depths = self.all.iter().map(|rung| rung.queue.depth());
        depths.reduce(Depth::plus).expect("a model has at least one rung")
    }

    /// Statistics of all queues together.
    pub(crate) fn stats(&self) -> Stats {
        self.all.iter().map(|rung| rung.queue.stats()).fold(Stats::default(), Stats::plus)
    }

    pub(crate) fn close(&self) {
        self.all.iter().for_each(|rung| rung.queue.close());
    }

    pub(crate) fn shutdown(&self) {
        self.all.iter().for_each(|rung| rung.queue.shutdown());
    }
}

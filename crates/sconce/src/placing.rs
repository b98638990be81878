//! Places a model on devices: surveys the model on each candidate, lets [`decide`] choose, loads the networks of the
//! devices that serve, and measures them if several do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sconce_batch::{BatcherConfig, CostLine, CostModel, Profile, Role};
use sconce_models::{
    BatchingSettings, Demand, Device, DeviceName, ForwardError, LoadError, LoadOptions, LoadedModel, ModelFiles,
    ModelSettings, Network, Placement, Precision, Processor, Registry, Settings, Signature, Survey,
};

use crate::decisions::{AboutToServe, DecisionRules, Permission};
use crate::devices::{DeviceCandidate, Devices, ThreadKey};
use crate::ladder::RungPlan;
use crate::memory::Needs;
use crate::network_executor::{NetworkExecutor, Reload};
use crate::placement::measure::{measure, sample};
use crate::placement::{Considered, Decision, Offer, Verdict, decide};
use crate::slot::NetworkSlot;
use crate::{BuildError, ModelSource};

/// The longest time to measure a device before it serves. Too short: its cost stays unknown, and is learned from
/// requests instead.
const MAX_WARM_UP: Duration = Duration::from_millis(1500);

/// Weight of the batch that warms up a model that one device serves.
const WARM_UP_WEIGHT: usize = 16;

/// Places models, with the settings that all models of a runtime share.
pub(crate) struct Placer<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) batching: &'a BatcherConfig,
    pub(crate) device: Option<Placement>,
    pub(crate) warm_up: bool,
    pub(crate) decisions: &'a DecisionRules,
}

/// The measuring of a model's batches before it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measuring {
    /// If several devices serve, to choose among them.
    ToChoose,
    /// On every device that serves, because the figures of several precisions are compared.
    Always,
}

/// A model placed on its devices.
pub(crate) struct PlacedModel {
    pub(crate) signature: Signature,
    pub(crate) processor: Arc<dyn Processor>,
    pub(crate) settings: Settings,
    pub(crate) files: ModelFiles,
    pub(crate) batching: BatcherConfig,
    pub(crate) decision: Decision,
    pub(crate) permission: Permission,
    /// The model's instances: that on the preferred device first, those on standby last.
    pub(crate) instances: Vec<ModelInstance>,
}

/// A model placed in each of its precisions.
pub(crate) struct PlacedRungs {
    pub(crate) plan: RungPlan,
    /// The model in each precision of the plan.
    pub(crate) rungs: Vec<PlacedModel>,
}

/// A model on one device.
pub(crate) struct ModelInstance {
    pub(crate) device: DeviceName,
    /// The device's class: devices of one class compute the same bits.
    pub(crate) class: String,
    /// Every precision that the model has on the device.
    pub(crate) precisions: Vec<Precision>,
    pub(crate) demand: Demand,
    pub(crate) thread: ThreadKey,
    pub(crate) executor: NetworkExecutor,
    pub(crate) profile: Profile,
    pub(crate) learned: CostModel,
}

/// The parts of a model that are the same on every device, taken from the network that is loaded first.
struct LoadedFirst {
    signature: Signature,
    processor: Arc<dyn Processor>,
    settings: Settings,
}

impl Placer<'_> {
    /// Decides on devices for a model, without loading it. Also returns the model's batching settings.
    pub(crate) fn decide(
        &self,
        name: &str,
        source: &ModelSource,
        devices: &mut Devices,
    ) -> Result<(Decision, BatcherConfig), BuildError> {
        let load_failed = |source| BuildError::Load { name: name.to_owned(), source: Box::new(source) };
        let settings = self.registry.settings(&source.directory).map_err(load_failed)?;
        let placement = source.device.or(settings.model.device).or(self.device).unwrap_or_default();
        let own = || with_settings(self.batching, &settings.batching);
        let batching = source.batching.clone().unwrap_or_else(own);
        let mut offers = Vec::new();
        let mut items = false;
        let mut unsupported = None;
        for DeviceCandidate { capability, device } in devices.candidates(placement)? {
            let demand = match device {
                Err(reason) => Err(reason),
                Ok(device) => {
                    let options = LoadOptions { device, precision: source.precision };
                    match self.registry.survey(&source.directory, &options) {
                        Ok(Survey { precision, demand, .. }) => {
                            items |= demand.unit == "item";
                            Ok((precision, demand))
                        }
                        // A device asked for by name: return its own error, which says most.
                        Err(error) if placement == Placement::On(capability.device) => return Err(load_failed(error)),
                        Err(error @ LoadError::UnsupportedPrecision { .. }) => {
                            let reason = error.to_string();
                            unsupported.get_or_insert(error);
                            Err(reason)
                        }
                        Err(error) => return Err(load_failed(error)),
                    }
                }
            };
            offers.push(Offer { capability, demand });
        }
        if let Some(error) = unsupported.filter(|_| offers.iter().all(|offer| offer.demand.is_err())) {
            return Err(load_failed(error));
        }
        let max_weight =
            if items { batching.max_batch_size.min(batching.max_batch_weight) } else { batching.max_batch_weight };
        let decision = decide(placement, max_weight, &offers)
            .map_err(|source| BuildError::Place { name: name.to_owned(), source: Box::new(source) })?;
        Ok((decision, batching))
    }

    /// Measures the cost of batches on each device that the model could run on, for at most `time` on each.
    pub(crate) fn measure(
        &self,
        name: &str,
        source: &ModelSource,
        devices: &mut Devices,
        time: Duration,
    ) -> Result<Vec<(DeviceName, CostModel)>, BuildError> {
        let (decision, _) = self.decide(name, source, devices)?;
        let candidates = devices.candidates(decision.placement)?;
        let mut measured = Vec::new();
        for considered in decision.considered.iter().filter(|considered| considered.estimate.is_some()) {
            let device = considered.capability.device;
            let options = LoadOptions { device: usable(&candidates, device), precision: source.precision };
            let LoadedModel { signature, processor, mut network, .. } = self
                .registry
                .load(&source.directory, &options)
                .map_err(|source| BuildError::Load { name: name.to_owned(), source: Box::new(source) })?;
            let cost = measure(&mut *network, &*processor, &signature, decision.max_weight, time)
                .map_err(|source| BuildError::Measure { name: name.to_owned(), device, source: Box::new(source) })?;
            measured.push((device, cost));
        }
        Ok(measured)
    }

    /// Loads a model in each precision that its source and its settings ask for: in its own, in those of its ladder, and in
    /// f32 if others are checked against it.
    pub(crate) fn place_rungs(
        &self,
        name: &str,
        source: &ModelSource,
        devices: &mut Devices,
    ) -> Result<PlacedRungs, BuildError> {
        let load_failed = |source| BuildError::Load { name: name.to_owned(), source: Box::new(source) };
        let settings = self.registry.settings(&source.directory).map_err(load_failed)?;
        let plan =
            RungPlan::of(source, &settings).map_err(|source| BuildError::Ladder { name: name.to_owned(), source })?;
        if let [_] = plan.precisions[..] {
            let placed_model = self.place(name, source, devices, Measuring::ToChoose)?;
            return Ok(PlacedRungs { plan, rungs: vec![placed_model] });
        }
        let sources = plan.precisions.iter().map(|precision| source.clone().precision(*precision));
        let sources: Vec<ModelSource> = sources.collect();
        // Before any is loaded: a precision that the model does not have.
        sources.iter().try_for_each(|source| self.decide(name, source, devices).map(drop))?;
        let mut rungs: Vec<PlacedModel> = Vec::new();
        for source in &sources {
            let placed_model = self.place(name, source, devices, Measuring::Always)?;
            let changed = rungs.first().and_then(|first| placed_model.files.changed_since(&first.files));
            if let Some(path) = changed {
                return Err(load_failed(LoadError::Changed { path }));
            }
            rungs.push(placed_model);
        }
        Ok(PlacedRungs { plan, rungs })
    }

    /// Loads a model on the devices that [`decide`](Self::decide) chooses.
    fn place(
        &self,
        name: &str,
        source: &ModelSource,
        devices: &mut Devices,
        measuring: Measuring,
    ) -> Result<PlacedModel, BuildError> {
        let (decision, batching) = self.decide(name, source, devices)?;
        let candidates = devices.candidates(decision.placement)?;
        let (mut first_loaded, mut instances) = (None, Vec::new());
        let made_of = Arc::new(MadeOf::default());
        for considered in decision.devices() {
            let device = usable(&candidates, considered.capability.device);
            let options = LoadOptions { device: Arc::clone(&device), precision: source.precision };
            let registry = self.registry.clone();
            let loading =
                Loading { registry, directory: source.directory.clone(), options, made_of: Arc::clone(&made_of) };
            let mut instance = instance(name, considered, devices, loading.clone().reload())?;
            instance.class = device.class();
            let survey = self.registry.survey(&source.directory, &loading.options);
            instance.precisions = survey.map(|survey| survey.precisions).unwrap_or_default();
            // A standby device serves after all if no device before it could load the network.
            if instance.profile.role == Role::Serves || first_loaded.is_none() {
                instance.profile.role = Role::Serves;
                match load(&instance.executor, &loading) {
                    Ok(first) => _ = first_loaded.get_or_insert(first),
                    Err(error) if decision.placement == Placement::Auto && instance.device != DeviceName::CPU => {
                        tracing::warn!(model = name, device = %instance.device, %error, "goes without this device");
                        continue;
                    }
                    Err(source) => return Err(BuildError::Load { name: name.to_owned(), source: Box::new(source) }),
                }
            }
            instances.push(instance);
        }
        let LoadedFirst { signature, processor, settings } =
            first_loaded.expect("at least one device serves, or loading it failed");
        let files = made_of.files().expect("what is loaded is made of files");
        let model = AboutToServe {
            name,
            directory: &source.directory,
            files: &files,
            settings: &settings.model,
            precision: signature.precision,
        };
        let permission = self.decisions.permit(&model, instances.iter().map(|instance| instance.device))?;
        self.choose(name, &mut instances, &*processor, &signature, decision.max_weight, measuring);
        Ok(PlacedModel { signature, processor, settings, files, batching, decision, permission, instances })
    }

    /// Warms the devices that serve up, and measures them if there are several, or always. If there is one, there is nothing to
    /// choose, so estimates are removed.
    fn choose(
        &self,
        name: &str,
        instances: &mut [ModelInstance],
        processor: &dyn Processor,
        signature: &Signature,
        max: usize,
        measuring: Measuring,
    ) {
        if instances.iter().filter(|instance| instance.profile.role == Role::Serves).count() < 2 {
            for instance in &mut *instances {
                instance.profile.estimate = None;
            }
            if measuring == Measuring::ToChoose {
                let serving = instances.iter().filter(|instance| instance.profile.role == Role::Serves);
                serving.filter(|_| self.warm_up).for_each(|instance| warm_up(name, instance, processor, signature));
                return;
            }
        }
        for instance in instances.iter_mut().filter(|instance| self.warm_up && instance.profile.role == Role::Serves) {
            let run = |network: &mut dyn Network| measure(network, processor, signature, max, MAX_WARM_UP);
            if let Some(cost) = rehearse(name, instance, run) {
                instance.learned = cost;
            }
            let CostLine { fixed, per_weight } =
                instance.learned.line().or(instance.profile.estimate).unwrap_or_default();
            tracing::info!(model = name, device = %instance.device, fixed, per_weight, "seconds of a batch");
        }
    }
}

/// Runs a small batch, so that the first request does not wait for memory and kernels. A failure is no error: requests will
/// tell.
fn warm_up(name: &str, instance: &ModelInstance, processor: &dyn Processor, signature: &Signature) {
    let run = |network: &mut dyn Network| {
        let batch = sample(processor, signature, WARM_UP_WEIGHT);
        if batch.is_empty() { Ok(()) } else { network.forward(&batch).map(drop) }
    };
    rehearse(name, instance, run);
}

/// Calls `act` with the network; a failure or a panic is logged.
fn rehearse<T>(
    name: &str,
    instance: &ModelInstance,
    act: impl FnOnce(&mut dyn Network) -> Result<T, ForwardError>,
) -> Option<T> {
    let device = instance.device;
    // Unwind safe: the batcher, too, goes on using a network that panicked.
    let Ok(done) = catch_unwind(AssertUnwindSafe(|| instance.executor.with_network(act))) else {
        tracing::warn!(model = name, %device, "panicked before it served");
        return None;
    };
    done?.inspect_err(|error| tracing::warn!(model = name, %device, %error, "does not run")).ok()
}

/// The candidate of that name, which is known to be open.
fn usable(candidates: &[DeviceCandidate], name: DeviceName) -> Arc<dyn Device> {
    let device = candidates.iter().find(|candidate| candidate.capability.device == name);
    device.and_then(|candidate| candidate.device.clone().ok()).expect("a device with an estimate is open")
}

fn instance(
    name: &str,
    considered: &Considered,
    devices: &mut Devices,
    reload: Reload,
) -> Result<ModelInstance, BuildError> {
    let device = considered.capability.device;
    let (_, demand) = considered.demand.expect("what serves or stands by has been asked for its demand");
    let slot = NetworkSlot::new(name, device);
    let thread = devices.assign(device)?;
    let tenancy = devices.memory(&considered.capability).map(|memory| {
        let needs = Needs {
            weights: demand.weight_bytes,
            batch: considered.needed_for_a_batch(),
            thread: thread.thread_of_device(),
        };
        memory.add(needs, Arc::clone(&slot)).expect("what is decided on fits")
    });
    let role = if considered.verdict == Verdict::Serves { Role::Serves } else { Role::Standby };
    Ok(ModelInstance {
        device,
        class: String::new(),
        precisions: Vec::new(),
        demand,
        thread,
        executor: NetworkExecutor { slot, reload, tenancy, running: devices.running.clone() },
        profile: Profile { estimate: considered.estimate, role },
        learned: CostModel::default(),
    })
}

fn load(executor: &NetworkExecutor, loading: &Loading) -> Result<LoadedFirst, LoadError> {
    let mut first_loaded = None;
    executor.load(|| {
        let LoadedModel { signature, processor, network, settings } = loading.load()?;
        first_loaded = Some(LoadedFirst { signature, processor, settings });
        Ok(network)
    })?;
    Ok(first_loaded.expect("it is loaded"))
}

/// Loads a model for one of its devices: at the start, and again after it was unloaded.
#[derive(Clone)]
struct Loading {
    registry: Registry,
    directory: PathBuf,
    options: LoadOptions,
    made_of: Arc<MadeOf>,
}

impl Loading {
    fn load(&self) -> Result<LoadedModel, LoadError> {
        let (model, files) = self.registry.load_with_files(&self.directory, &self.options)?;
        self.made_of.check(&self.directory, files, &model.settings.model)?;
        Ok(model)
    }

    fn reload(self) -> Reload {
        Arc::new(move || Ok(self.load()?.network))
    }
}

/// The files and settings of a model when it was loaded first. The keys of its cached answers depend on them, and its
/// processor is kept: so a network that is loaded later must be made of the same files and settings.
#[derive(Default)]
struct MadeOf(OnceLock<(ModelFiles, ModelSettings)>);

impl MadeOf {
    fn check(&self, directory: &Path, files: ModelFiles, settings: &ModelSettings) -> Result<(), LoadError> {
        let now = (files, settings.clone());
        let (first_files, first_settings) = self.0.get_or_init(|| now.clone());
        let changed = now.0.changed_since(first_files);
        match changed.or_else(|| (now.1 != *first_settings).then(|| directory.join("sconce.toml"))) {
            None => Ok(()),
            Some(path) => Err(LoadError::Changed { path }),
        }
    }

    fn files(&self) -> Option<ModelFiles> {
        self.0.get().map(|(files, _)| files.clone())
    }
}

/// The runtime's batching, with the settings of a model's `sconce.toml` in place of the defaults.
fn with_settings(defaults: &BatcherConfig, settings: &BatchingSettings) -> BatcherConfig {
    let BatchingSettings {
        max_batch_size,
        max_batch_weight,
        max_queue_size,
        max_queue_weight,
        max_queue_delay_us,
        priority_ageing_ms,
    } = *settings;
    BatcherConfig {
        max_batch_size: max_batch_size.unwrap_or(defaults.max_batch_size),
        max_batch_weight: max_batch_weight.unwrap_or(defaults.max_batch_weight),
        max_queue_size: max_queue_size.unwrap_or(defaults.max_queue_size),
        max_queue_weight: max_queue_weight.unwrap_or(defaults.max_queue_weight),
        max_queue_delay: max_queue_delay_us.map_or(defaults.max_queue_delay, Duration::from_micros),
        priority_ageing: priority_ageing_ms.map_or(defaults.priority_ageing, Duration::from_millis),
    }
}

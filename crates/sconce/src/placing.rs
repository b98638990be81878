//! Puts a model on devices: asks each what the model would be there, has [`decide`] choose, loads the networks of those that serve,
//! and measures them where there are several.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sconce_batch::{BatcherConfig, CostLine, CostModel, Profile, Role};
use sconce_models::{
    Demand, DeviceName, LoadError, LoadOptions, LoadedModel, ModelFiles, ModelSettings, Placement, Precision,
    Processor, Registry, Settings, Signature, Survey, Team,
};

use crate::builder::with_settings;
use crate::devices::{Devices, LaneKey, Open};
use crate::memory::Needs;
use crate::placement::measure::measure;
use crate::placement::{Considered, Decision, Offer, Verdict, decide};
use crate::seat::{NetworkSlot, Reload, Seat};
use crate::{BuildError, ModelSource};

/// How long a device is measured before it serves. Too short: its cost is not known, and is learned from requests instead.
const MAX_WARM_UP: Duration = Duration::from_millis(1500);

/// What is the same for every model of a runtime.
pub(crate) struct Placer<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) batching: &'a BatcherConfig,
    pub(crate) device: Option<Placement>,
    pub(crate) team: Arc<Team>,
    pub(crate) warm_up: bool,
}

/// A model on its devices.
pub(crate) struct Settled {
    pub(crate) signature: Signature,
    pub(crate) processor: Arc<dyn Processor>,
    pub(crate) settings: Settings,
    pub(crate) files: ModelFiles,
    pub(crate) batching: BatcherConfig,
    pub(crate) decision: Decision,
    /// The preferred one first, those on standby last.
    pub(crate) places: Vec<Place>,
}

/// A model on one device.
pub(crate) struct Place {
    pub(crate) device: DeviceName,
    pub(crate) demand: Demand,
    pub(crate) lane: LaneKey,
    pub(crate) seat: Seat,
    pub(crate) profile: Profile,
    pub(crate) learned: CostModel,
}

/// What is told of a model by the device that is loaded first.
struct Told {
    signature: Signature,
    processor: Arc<dyn Processor>,
    settings: Settings,
}

impl Placer<'_> {
    /// Decides on devices for a model; nothing is loaded.
    pub(crate) fn decide(
        &self,
        name: &str,
        source: &ModelSource,
        devices: &mut Devices,
    ) -> Result<(Decision, BatcherConfig), BuildError> {
        let load_failed = |source| BuildError::Load { name: name.to_owned(), source: Box::new(source) };
        let settings = self.registry.settings(&source.directory).map_err(load_failed)?;
        let placement = source.device.or(settings.model.device).or(self.device).unwrap_or_default();
        let batching = with_settings(self.batching, &settings.batching);
        let mut offers = Vec::new();
        let mut items = false;
        let mut unsupported = None;
        for Open { capability, device } in devices.candidates(placement)? {
            let demand = match device {
                Err(reason) => Err(reason),
                Ok(device) => {
                    let registry = devices.families(capability.device).unwrap_or(self.registry);
                    let survey = registry.survey(&source.directory, &self.options(device, source.precision));
                    match survey {
                        Ok(Survey { precision, demand, .. }) => {
                            items |= demand.unit == "item";
                            Ok((precision, demand))
                        }
                        // Where it is asked for by name its own words are the best.
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

    /// What batches cost on each device that the model could run on, by running some for so long on each.
    pub(crate) fn measure(
        &self,
        name: &str,
        source: &ModelSource,
        devices: &mut Devices,
        time: Duration,
    ) -> Result<Vec<(DeviceName, CostModel)>, BuildError> {
        let (decision, _) = self.decide(name, source, devices)?;
        let open = devices.candidates(decision.placement)?;
        let mut measured = Vec::new();
        for considered in decision.considered.iter().filter(|considered| considered.estimate.is_some()) {
            let device = considered.capability.device;
            let opened = open.iter().find(|open| open.capability.device == device);
            let opened = opened.and_then(|open| open.device.clone().ok()).expect("what has an estimate is open");
            let registry = devices.families(device).unwrap_or(self.registry);
            let LoadedModel { signature, processor, mut network, .. } = registry
                .load(&source.directory, &self.options(opened, source.precision))
                .map_err(|source| BuildError::Load { name: name.to_owned(), source: Box::new(source) })?;
            let cost = measure(&mut *network, &*processor, &signature, decision.max_weight, time)
                .map_err(|source| BuildError::Measure { name: name.to_owned(), device, source: Box::new(source) })?;
            measured.push((device, cost));
        }
        Ok(measured)
    }

    /// Puts a model on the devices that are decided on.
    pub(crate) fn settle(
        &self,
        name: &str,
        source: &ModelSource,
        devices: &mut Devices,
    ) -> Result<Settled, BuildError> {
        let (decision, batching) = self.decide(name, source, devices)?;
        let open = devices.candidates(decision.placement)?;
        let (mut told, mut places) = (None, Vec::new());
        let made_of = Arc::new(MadeOf::default());
        for considered in decision.devices() {
            let device = open.iter().find(|open| open.capability.device == considered.capability.device);
            let device = device.and_then(|open| open.device.clone().ok()).expect("what serves is open");
            let registry = devices.families(considered.capability.device).unwrap_or(self.registry).clone();
            let options = self.options(device, source.precision);
            let loading =
                Loading { registry, directory: source.directory.clone(), options, made_of: Arc::clone(&made_of) };
            let mut place = place(name, considered, devices, loading.clone().reload())?;
            // A standby serves after all if those before it cannot be loaded.
            if place.profile.role == Role::Serves || told.is_none() {
                place.profile.role = Role::Serves;
                match load(&place.seat, &loading) {
                    Ok(first) => _ = told.get_or_insert(first),
                    Err(error) if decision.placement == Placement::Auto && place.device != DeviceName::Cpu => {
                        tracing::warn!(model = name, device = %place.device, %error, "goes without this device");
                        continue;
                    }
                    Err(source) => return Err(BuildError::Load { name: name.to_owned(), source: Box::new(source) }),
                }
            }
            places.push(place);
        }
        let Told { signature, processor, settings } = told.expect("at least one device serves, or loading it failed");
        self.choose(name, &mut places, &*processor, &signature, decision.max_weight);
        let files = made_of.files().expect("what is loaded is made of files");
        Ok(Settled { signature, processor, settings, files, batching, decision, places })
    }

    /// Where several devices serve, they are measured; where one does, there is nothing to choose.
    fn choose(&self, name: &str, places: &mut [Place], processor: &dyn Processor, signature: &Signature, max: usize) {
        if places.iter().filter(|place| place.profile.role == Role::Serves).count() < 2 {
            for place in places {
                place.profile.estimate = None;
            }
            return;
        }
        for place in places.iter_mut().filter(|place| self.warm_up && place.profile.role == Role::Serves) {
            let measured = place.seat.with_network(|network| measure(network, processor, signature, max, MAX_WARM_UP));
            match measured {
                Some(Ok(cost)) => place.learned = cost,
                Some(Err(error)) => {
                    tracing::warn!(model = name, device = %place.device, %error, "could not be measured");
                }
                None => {}
            }
            let CostLine { fixed, per_weight } = place.learned.line().or(place.profile.estimate).unwrap_or_default();
            tracing::info!(model = name, device = %place.device, fixed, per_weight, "seconds of a batch");
        }
    }

    fn options(&self, device: sconce_models::Device, precision: Option<Precision>) -> LoadOptions {
        LoadOptions { device, precision, team: Arc::clone(&self.team) }
    }
}

fn place(name: &str, considered: &Considered, devices: &mut Devices, reload: Reload) -> Result<Place, BuildError> {
    let device = considered.capability.device;
    let (_, demand) = considered.demand.expect("what serves or stands by has been asked for its demand");
    let slot = NetworkSlot::new(name, device);
    let lane = devices.lane(device)?;
    let memory = devices.memory(&considered.capability).map(|memory| {
        let needs = Needs {
            weights: demand.weight_bytes,
            batch: considered.needed_for_a_batch(),
            thread: lane.thread_of_device(),
        };
        let tenant = memory.add(needs, Arc::clone(&slot));
        (memory, tenant.expect("what is decided on fits"))
    });
    let role = if considered.verdict == Verdict::Serves { Role::Serves } else { Role::Standby };
    Ok(Place {
        device,
        demand,
        lane,
        seat: Seat { slot, reload, memory },
        profile: Profile { estimate: considered.estimate, role },
        learned: CostModel::default(),
    })
}

fn load(seat: &Seat, loading: &Loading) -> Result<Told, LoadError> {
    let mut told = None;
    seat.load(|| {
        let LoadedModel { signature, processor, network, settings } = loading.load()?;
        told = Some(Told { signature, processor, settings });
        Ok(network)
    })?;
    Ok(told.expect("it is loaded"))
}

/// How a model is loaded for one of its devices, as often as that must be.
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

/// What a model was made of when it was loaded first. Its answers are cached by that, and its processor stays: so a network that is
/// loaded later must be made of the same.
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

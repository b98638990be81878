//! The candidates of a comparison: a precision on a device with limits of batches, each loaded into a runtime of its own.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use sconce::decide::{DecisionRecord, Policy, ServingCandidate};
use sconce::models::{Backends, LoadOptions, Team};
use sconce::{
    Answer, BatcherConfig, BuildError, DeviceName, InferError, LoadError, Model, ModelSource, Precision, Registry,
    Runtime,
};
use serde::{Deserialize, Serialize};
use tracing::subscriber::NoSubscriber;

use super::error::DecideError;
use crate::args::DecideArgs;
use crate::error::Error;
use crate::models_path::FoundModel;

/// Most candidates of one comparison: all of them are loaded at the same time.
const MAX_CANDIDATES: usize = 64;

/// A candidate and how it is loaded.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) candidate: ServingCandidate,
    precision: Precision,
    device: DeviceName,
    directory: PathBuf,
}

/// The candidates, the reference first, and what was left out.
#[derive(Debug)]
pub(crate) struct Contenders {
    pub(crate) all: Vec<Contender>,
    /// Precisions that the model does not have, one line each.
    pub(crate) left_out: Vec<String>,
}

/// A candidate in a runtime of its own.
pub(crate) struct LoadedContender {
    pub(crate) contender: Contender,
    pub(crate) runtime: Runtime,
    pub(crate) model: Model,
}

/// The candidates whose answers are the same: batch limits change none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct AnswerGroup {
    variant: Option<String>,
    precision: String,
    device: String,
}

/// `--candidate NAME=DIR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VariantArg {
    name: String,
    directory: PathBuf,
}

impl std::str::FromStr for VariantArg {
    type Err = DecideError;

    fn from_str(given: &str) -> Result<Self, DecideError> {
        match given.split_once('=') {
            Some((name, directory)) if !name.is_empty() && !directory.is_empty() => {
                Ok(Self { name: name.to_owned(), directory: directory.into() })
            }
            _ => Err(DecideError::CandidateForm { given: given.to_owned() }),
        }
    }
}

impl Contenders {
    /// All combinations of what the command line names.
    pub(crate) fn new(args: &DecideArgs, found: &FoundModel, policy: &Policy) -> Result<Self, Error> {
        let builder = Builder::new(args, found)?;
        let devices = builder.devices(&args.devices, policy)?;
        let variants = variants(&args.candidates)?;
        let (mut all, mut left_out) = (Vec::new(), Vec::new());
        for (at, device) in devices.iter().enumerate() {
            let offer = builder.offer(*device)?;
            if at == 0 && !offer.precisions.contains(&Precision::F32) {
                return Err(DecideError::NoReference { model: found.name.clone(), device: *device }.into());
            }
            let asked = if args.precisions.is_empty() { &offer.precisions } else { &args.precisions };
            let lower = asked.iter().copied().filter(|precision| *precision != Precision::F32);
            for precision in
                offer.precisions.contains(&Precision::F32).then_some(Precision::F32).into_iter().chain(lower)
            {
                if offer.precisions.contains(&precision) {
                    all.extend(offer.sizes.iter().map(|sizes| builder.contender(None, precision, *device, *sizes)));
                } else {
                    left_out.push(format!("{} has no {precision} on {device}", found.name));
                }
            }
            for (name, directory) in &variants {
                let variant = Some((*name, *directory));
                all.extend(offer.sizes.iter().map(|sizes| builder.contender(variant, Precision::F32, *device, *sizes)));
            }
        }
        if all.len() > MAX_CANDIDATES {
            return Err(DecideError::TooManyCandidates { count: all.len(), max: MAX_CANDIDATES }.into());
        }
        Ok(Self { all, left_out })
    }

    /// The candidates of a record.
    pub(crate) fn of(record: &DecisionRecord, args: &DecideArgs, found: &FoundModel) -> Result<Self, Error> {
        let builder = Builder::new(args, found)?;
        let variants = variants(&args.candidates)?;
        let contender = |candidate: &ServingCandidate| -> Result<Contender, Error> {
            let unknown = || DecideError::UnknownCandidate { candidate: candidate.clone() };
            let precision: Precision = candidate.precision.parse().map_err(|_| unknown())?;
            let device: DeviceName = candidate.device.parse().map_err(|_| unknown())?;
            let variant = match &candidate.variant {
                None => None,
                Some(name) => match variants.get_key_value(name.as_str()) {
                    Some((name, directory)) => Some((*name, *directory)),
                    None => return Err(DecideError::CandidateNotGiven { name: name.clone() }.into()),
                },
            };
            let directory = variant.map_or_else(|| builder.directory.clone(), |(_, directory)| directory.clone());
            let has = builder.offer(device)?.precisions.contains(&precision);
            if variant.is_none() && !has {
                return Err(DecideError::NotHere { model: found.name.clone(), precision, device }.into());
            }
            Ok(Contender { candidate: candidate.clone(), precision, device, directory })
        };
        let all = record.candidates.iter().map(|decided| contender(&decided.candidate)).collect::<Result<_, _>>()?;
        Ok(Self { all, left_out: Vec::new() })
    }
}

/// Makes contenders of one model.
struct Builder<'a> {
    found: &'a FoundModel,
    directory: PathBuf,
    backends: Backends,
    sizes: &'a [NonZeroUsize],
}

/// The precisions and batch sizes of a model on a device.
struct DeviceOffer {
    precisions: Vec<Precision>,
    /// Size and weight of batches.
    sizes: Vec<(u64, u64)>,
}

impl<'a> Builder<'a> {
    fn new(args: &'a DecideArgs, found: &'a FoundModel) -> Result<Self, Error> {
        let team = match args.threads {
            Some(threads) => Team::new(threads).map_err(|source| BuildError::CpuThreads { threads, source })?,
            None => Team::default(),
        };
        let backends = Backends::new(Arc::new(team));
        Ok(Self { found, directory: found.newest(), backends, sizes: &args.max_batch_sizes })
    }

    /// The devices that were named, else all of this machine that the policy has a price for.
    fn devices(&self, named: &[DeviceName], policy: &Policy) -> Result<Vec<DeviceName>, DecideError> {
        let has_price = |device: &DeviceName| policy.price_of(&device.to_string()).is_some();
        if let Some(device) = named.iter().find(|device| !has_price(device)) {
            return Err(DecideError::NoPrice { device: *device });
        }
        let mut devices = named.to_vec();
        if devices.is_empty() {
            let listed = self.backends.iter().flat_map(|backend| backend.listing().devices);
            devices.extend(listed.map(|listed| listed.device).filter(has_price));
        }
        let mut seen = Vec::new();
        devices.retain(|device| {
            !seen.contains(device) && {
                seen.push(*device);
                true
            }
        });
        if devices.is_empty() { Err(DecideError::NoPrice { device: DeviceName::CPU }) } else { Ok(devices) }
    }

    fn offer(&self, name: DeviceName) -> Result<DeviceOffer, Error> {
        let device = self.backends.open(name).map_err(|source| BuildError::OpenDevice { device: name, source })?;
        let survey = |precision| {
            Registry::default().survey(&self.directory, &LoadOptions { device: Arc::clone(&device), precision })
        };
        let survey = match survey(Some(Precision::F32)) {
            Err(LoadError::UnsupportedPrecision { .. }) => survey(None),
            surveyed => surveyed,
        };
        let load = |source| BuildError::Load { name: self.found.name.clone(), source: Box::new(source) };
        let survey = survey.map_err(load)?;
        let (set, default) = (&survey.settings.batching, BatcherConfig::default());
        let weight = set.max_batch_weight.unwrap_or(default.max_batch_weight) as u64;
        let mut sizes: Vec<usize> = self.sizes.iter().map(|size| size.get()).collect();
        if let Some((wanted, set)) =
            set.max_batch_size.and_then(|set| Some((*sizes.iter().find(|size| **size != set)?, set)))
        {
            return Err(DecideError::BatchSizeIsSet { model: self.found.name.clone(), wanted, set }.into());
        }
        if sizes.is_empty() {
            sizes.push(set.max_batch_size.unwrap_or(default.max_batch_size));
        }
        let sizes = sizes.into_iter().map(|size| (size as u64, weight)).collect();
        Ok(DeviceOffer { precisions: survey.precisions, sizes })
    }

    fn contender(
        &self,
        variant: Option<(&str, &PathBuf)>,
        precision: Precision,
        device: DeviceName,
        (max_batch_size, max_batch_weight): (u64, u64),
    ) -> Contender {
        Contender {
            candidate: ServingCandidate {
                variant: variant.map(|(name, _)| name.to_owned()),
                precision: precision.name().to_owned(),
                device: device.to_string(),
                max_batch_size,
                max_batch_weight,
            },
            precision,
            device,
            directory: variant.map_or_else(|| self.directory.clone(), |(_, directory)| directory.clone()),
        }
    }
}

/// The directories of other weights, by name.
fn variants(args: &[VariantArg]) -> Result<BTreeMap<&str, &PathBuf>, DecideError> {
    let mut variants = BTreeMap::new();
    for VariantArg { name, directory } in args {
        if !directory.is_dir() {
            return Err(DecideError::NoCandidate { name: name.clone(), directory: directory.clone() });
        }
        if variants.insert(&**name, directory).is_some() {
            return Err(DecideError::CandidateTwice { name: name.clone() });
        }
    }
    Ok(variants)
}

impl Contender {
    /// Loads the candidate under the model's name.
    pub(crate) fn load(self, name: &str, threads: Option<NonZeroUsize>) -> Result<LoadedContender, Error> {
        let size = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let ServingCandidate { max_batch_size, max_batch_weight, .. } = self.candidate;
        let default = BatcherConfig::default();
        let batching = BatcherConfig {
            max_batch_size: size(max_batch_size),
            max_batch_weight: size(max_batch_weight),
            // Twice a batch may wait, or the default if that is more.
            max_queue_size: default.max_queue_size.max(size(max_batch_size).saturating_mul(4)),
            max_queue_weight: default.max_queue_weight.max(size(max_batch_weight).saturating_mul(4)),
            ..default
        };
        let source = ModelSource::new(&self.directory).name(name).precision(self.precision).device(self.device);
        // A precision has to run to be decided on.
        let builder = Runtime::builder().batching(batching).allow_undecided(true).model(source.uncached());
        let builder = match threads {
            Some(threads) => builder.cpu_threads(threads),
            None => builder,
        };
        // Without the warnings that nothing is decided yet.
        let runtime = tracing::subscriber::with_default(NoSubscriber::new(), || builder.build())?;
        let model = runtime.model(name).expect("the runtime was built with this model");
        Ok(LoadedContender { contender: self, runtime, model })
    }
}

impl LoadedContender {
    /// The candidate in messages: `int8 on cpu`.
    pub(crate) fn name(&self) -> String {
        let ServingCandidate { variant, precision, device, max_batch_size, .. } = &self.contender.candidate;
        let variant = variant.as_ref().map(|variant| format!("{variant} in ")).unwrap_or_default();
        format!("{variant}{precision} on {device}, batches to {max_batch_size}")
    }

    pub(crate) fn group(&self) -> AnswerGroup {
        let ServingCandidate { variant, precision, device, .. } = self.contender.candidate.clone();
        AnswerGroup { variant, precision, device }
    }

    pub(crate) fn device(&self) -> DeviceName {
        self.contender.device
    }

    /// The error of the input of this number.
    pub(crate) fn failed(&self, number: usize, source: InferError) -> DecideError {
        DecideError::Answer { candidate: self.name(), number, source }
    }

    /// Checks that the candidate's device gave the answer: a batch that it could not run was computed elsewhere, and says
    /// nothing about it.
    pub(crate) fn check_device(&self, answer: &Answer) -> Result<(), DecideError> {
        if answer.device == self.device() {
            return Ok(());
        }
        let (model, wanted) = (self.model.name().to_owned(), self.device());
        Err(DecideError::OtherDevice { candidate: self.name(), model, wanted, got: answer.device })
    }

    /// Bytes of the weights and of the heaviest batch.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let &BatcherConfig { max_batch_size, max_batch_weight, .. } = self.model.batcher_config();
        let heaviest_item = self.model.signature().input.kind.max_tokens().unwrap_or(1);
        let weight = max_batch_weight.min(max_batch_size.saturating_mul(heaviest_item)) as u64;
        let mut considered = self.model.decision().considered.iter();
        let demand = considered.find(|it| it.capability.device == self.device()).and_then(|it| it.demand);
        demand.map_or(0, |(_, demand)| demand.weight_bytes + demand.bytes_per_weight.saturating_mul(weight))
    }
}

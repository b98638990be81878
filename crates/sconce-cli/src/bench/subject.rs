//! The cells that are compared: a model on a device in a precision, with a batch.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use sconce::models::{Backends, Features, LoadOptions, LoadedModel, Network, Processor, Team, cpu};
use sconce::{BuildError, DeviceName, LoadError, Precision, Registry};

use super::energy::EnergyMeter;
use super::shape::BenchShape;
use super::timing::Timings;
use crate::error::Error;
use crate::models_path::FoundModel;

/// Loads the cells that are compared.
pub(crate) struct Subjects<'a> {
    pub(crate) devices: &'a [DeviceName],
    pub(crate) precisions: &'a [Precision],
    pub(crate) team: Arc<Team>,
}

/// A network that several cells share and run in turns.
pub(crate) type SharedNetwork = Rc<RefCell<Box<dyn Network>>>;

/// One row of the table.
pub(crate) struct Cell {
    pub(crate) device: DeviceName,
    pub(crate) precision: Precision,
    pub(crate) shape: BenchShape,
    pub(crate) batch: Rc<Vec<Features>>,
    pub(crate) network: SharedNetwork,
    /// The same model on the CPU in f32, with whose answers all others are compared.
    pub(crate) reference: SharedNetwork,
    /// Turns rows into answers.
    pub(crate) processor: Arc<dyn Processor>,
    pub(crate) meter: Rc<EnergyMeter>,
    /// Distance of the answers from those of `reference`, if they were compared.
    pub(crate) distance: Option<f64>,
    /// Set if that distance is small enough for the cell to be timed.
    pub(crate) right: bool,
    pub(crate) timings: Timings,
}

/// The cells of a model.
pub(crate) struct Loaded {
    pub(crate) cells: Vec<Cell>,
    /// Precisions and batches that the model does not have, one line each.
    pub(crate) left_out: Vec<String>,
}

impl Subjects<'_> {
    /// Loads all cells of a model. A precision that it does not have on a device is left out, and so is a batch of
    /// longer texts than it takes.
    pub(crate) fn load(&self, found: &FoundModel, shapes: &[BenchShape]) -> Result<Loaded, Error> {
        let registry = Registry::default();
        let failed = |source| BuildError::Load { name: found.name.clone(), source: Box::new(source) };
        let options = |device, precision| LoadOptions { device, precision: Some(precision) };
        let backends = Backends::new(Arc::clone(&self.team));
        let cpu = cpu(Arc::clone(&self.team));
        let LoadedModel { signature, processor, network, .. } =
            registry.load(&found.newest(), &options(cpu, Precision::F32)).map_err(failed)?;
        let reference: SharedNetwork = Rc::new(RefCell::new(network));
        let (mut batches, mut left_out) = (Vec::new(), Vec::new());
        for shape in shapes {
            match shape.batch(&*processor, &signature.input.kind) {
                Some(batch) => batches.push((*shape, Rc::new(batch))),
                None => left_out.push(format!("{} takes no batch {shape}", found.name)),
            }
        }
        let mut cells = Vec::new();
        for name in self.devices {
            let device = backends.open(*name).map_err(|source| BuildError::OpenDevice { device: *name, source })?;
            let meter = Rc::new(EnergyMeter::of(*name));
            for precision in self.precisions {
                let network = if (*name, *precision) == (DeviceName::CPU, Precision::F32) {
                    Rc::clone(&reference)
                } else {
                    match registry.load(&found.newest(), &options(Arc::clone(&device), *precision)) {
                        Ok(loaded) => Rc::new(RefCell::new(loaded.network)),
                        Err(LoadError::UnsupportedPrecision { .. }) => {
                            left_out.push(format!("{} has no {precision} on {name}", found.name));
                            continue;
                        }
                        Err(error) => return Err(failed(error).into()),
                    }
                };
                cells.extend(batches.iter().map(|(shape, batch)| Cell {
                    device: *name,
                    precision: *precision,
                    shape: *shape,
                    batch: Rc::clone(batch),
                    network: Rc::clone(&network),
                    reference: Rc::clone(&reference),
                    processor: Arc::clone(&processor),
                    meter: Rc::clone(&meter),
                    distance: None,
                    right: false,
                    timings: Timings::default(),
                }));
            }
        }
        Ok(Loaded { cells, left_out })
    }
}

impl Cell {
    /// Weight of the batch: its tokens, or its items.
    pub(crate) fn weight(&self) -> usize {
        self.batch.iter().map(Features::weight).sum()
    }

    /// Runs the batch once.
    pub(crate) fn forward(&self) -> Result<Vec<Vec<f32>>, Error> {
        let Self { device, precision, shape, .. } = self;
        let rows = self.network.borrow_mut().forward(&self.batch);
        rows.map_err(|cause| Error::Forward { what: format!("{shape} in {precision} on {device}"), cause })
    }
}

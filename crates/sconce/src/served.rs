//! The models that a runtime serves, by name and version. Lookups take no lock, and a change is seen whole or not at all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::model::Inner;
use crate::{Model, UnknownModel};

/// The versions of one model; none is left out.
pub(crate) type Versions = BTreeMap<u64, Model>;

/// All models by their names; each has at least one version.
pub(crate) type ByName = BTreeMap<String, Versions>;

/// The models that are served right now.
pub(crate) struct ServedModels {
    models: ArcSwap<ByName>,
    /// The number of changes so far.
    changes: watch::Sender<u64>,
    /// Set once the runtime shuts down.
    closed: AtomicBool,
    /// Models that are served no more, which may still have requests to answer.
    retired: Mutex<Vec<Weak<Inner>>>,
}

impl ServedModels {
    pub(crate) fn new(models: ByName) -> Self {
        Self {
            models: ArcSwap::from_pointee(models),
            changes: watch::Sender::new(0),
            closed: AtomicBool::new(false),
            retired: Mutex::default(),
        }
    }

    /// The highest version of the model of that name.
    pub(crate) fn newest(&self, name: &str) -> Result<Model, UnknownModel> {
        let models = self.models.load();
        let newest = models.get(name).and_then(|versions| versions.values().next_back());
        newest.cloned().ok_or_else(|| unknown(name, &models))
    }

    /// All versions of the model of that name.
    pub(crate) fn versions(&self, name: &str) -> Result<Versions, UnknownModel> {
        let models = self.models.load();
        models.get(name).cloned().ok_or_else(|| unknown(name, &models))
    }

    pub(crate) fn all(&self) -> Arc<ByName> {
        self.models.load_full()
    }

    /// Serves these versions of a model, and no others of it, from now on.
    pub(crate) fn replace(&self, name: &str, versions: &Versions) {
        self.change(|models| {
            models.remove(name);
            if !versions.is_empty() {
                models.insert(name.to_owned(), versions.clone());
            }
        });
        if self.is_closed() {
            // The runtime shut down meanwhile, and may not have seen these.
            versions.values().for_each(Model::close);
        }
    }

    /// The number of changes so far, whose receiver tells of the next.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Refuses new requests to all models, also to those that come later. Returns them together with those that are served
    /// no more.
    pub(crate) fn close(&self) -> Vec<Model> {
        self.closed.store(true, Ordering::SeqCst);
        let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        let retired = retired.iter().filter_map(Weak::upgrade).map(|inner| Model { inner });
        let all: Vec<Model> = self.all().values().flat_map(BTreeMap::values).cloned().chain(retired).collect();
        all.iter().for_each(Model::close);
        all
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn change(&self, change: impl Fn(&mut ByName)) {
        let before = self.models.rcu(|models| {
            let mut models = ByName::clone(models);
            change(&mut models);
            models
        });
        let after = self.all();
        let stays = |model: &Model| {
            let now = after.get(model.name()).and_then(|versions| versions.get(&model.version()));
            now.is_some_and(|now| Arc::ptr_eq(&now.inner, &model.inner))
        };
        let gone = before.values().flat_map(BTreeMap::values).filter(|model| !stays(model));
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|inner| inner.strong_count() > 0);
        retired.extend(gone.map(|model| Arc::downgrade(&model.inner)));
        drop(retired);
        self.changes.send_modify(|changes| *changes += 1);
    }
}

fn unknown(name: &str, models: &ByName) -> UnknownModel {
    UnknownModel { name: name.to_owned(), known: models.keys().cloned().collect() }
}

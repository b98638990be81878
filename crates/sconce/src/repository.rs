//! The repository of a runtime: models are loaded, replaced and unloaded while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{MutexGuard, PoisonError};

use crate::loader::LoadingTurn;
use crate::served::Versions;
use crate::sources::{AddedModels, DirectoryStamp};
use crate::{BuildError, Model, ModelSource, Runtime, UnknownModel};

/// A version of a model in the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepositoryEntry {
    /// The model's name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Its state.
    pub state: ModelState,
}

/// The state of a version of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelState {
    /// The version answers requests.
    Ready,
    /// The version is being loaded.
    Loading,
    /// The version answers no requests.
    Unavailable {
        /// Why not: `unloaded`, `not loaded`, or the error of loading it.
        reason: String,
    },
}

/// Error of loading or unloading a model. The versions that were served before are served on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// No model has that name.
    #[error(transparent)]
    Unknown(#[from] UnknownModel),
    /// The model cannot be loaded, or the models cannot be listed.
    #[error(transparent)]
    Load(#[from] BuildError),
    /// The runtime is shutting down.
    #[error("the runtime is shutting down: no model is loaded any more")]
    ShuttingDown,
    /// Too many callers wait for their turn to load or unload.
    #[error("{max} calls to load or unload models wait already; try again when some are done")]
    TooManyWait {
        /// Calls that may wait.
        max: usize,
    },
}

/// The right of a server's clients to load and unload models, by the names of Triton's `--model-control-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ModelControl {
    /// Clients may not.
    #[default]
    None,
    /// Clients may load and unload the models that the builder was given.
    Explicit,
}

/// The changes that [`Runtime::refresh`] made.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Refreshed {
    /// Models that were loaded, or of which other versions are served now.
    pub loaded: Vec<String>,
    /// Models that are served no more, because their directories are gone.
    pub unloaded: Vec<String>,
    /// Models that changed and did not load, with the reasons. They are tried again when they change again.
    pub failed: BTreeMap<String, RepositoryError>,
}

/// The last attempts at loading models, by name.
#[derive(Default)]
pub(crate) struct LoadRecords {
    records: BTreeMap<String, LoadRecord>,
    /// The models as they were at the last look for changes.
    looked: BTreeMap<String, SeenVersions>,
}

/// The last attempt at loading a model.
#[derive(Default)]
struct LoadRecord {
    /// The versions as they were when loading them was last tried.
    tried: SeenVersions,
    /// The versions that are served, as they were when they were loaded.
    served: SeenVersions,
    outcome: LoadOutcome,
}

/// Versions of a model with what their directories held.
pub(crate) type SeenVersions = BTreeMap<u64, (ModelSource, DirectoryStamp)>;

#[derive(Default, Clone)]
enum LoadOutcome {
    #[default]
    Loading,
    Loaded,
    Failed(String),
    Unloaded,
}

/// The versions of a model right now.
pub(crate) fn see(sources: &BTreeMap<u64, ModelSource>) -> SeenVersions {
    let see =
        |(version, source): (&u64, &ModelSource)| (*version, (source.clone(), DirectoryStamp::of(&source.directory)));
    sources.iter().map(see).collect()
}

impl LoadRecords {
    fn begin(&mut self, name: &str, versions: SeenVersions) {
        let record = self.records.entry(name.to_owned()).or_default();
        (record.tried, record.outcome) = (versions, LoadOutcome::Loading);
    }

    /// Notes how loading a model ended.
    pub(crate) fn end(&mut self, name: &str, versions: SeenVersions, outcome: Result<(), &BuildError>) {
        let record = self.records.entry(name.to_owned()).or_default();
        record.outcome = match outcome {
            Ok(()) => {
                record.served.clone_from(&versions);
                LoadOutcome::Loaded
            }
            Err(error) => LoadOutcome::Failed(error.to_string()),
        };
        record.tried = versions;
    }

    fn tried(&self, name: &str) -> Option<&SeenVersions> {
        self.records.get(name).map(|record| &record.tried)
    }

    fn served(&self, name: &str) -> SeenVersions {
        self.records.get(name).map(|record| record.served.clone()).unwrap_or_default()
    }

    fn unloaded(&mut self, name: &str) {
        let record = self.records.entry(name.to_owned()).or_default();
        (record.served, record.outcome) = (SeenVersions::new(), LoadOutcome::Unloaded);
    }

    /// The state of a version that is not served.
    fn state(&self, name: &str, version: u64) -> ModelState {
        let record = self.records.get(name);
        let tried = record.filter(|record| record.tried.contains_key(&version));
        let reason = match tried.map(|record| &record.outcome) {
            Some(LoadOutcome::Loading) => return ModelState::Loading,
            Some(LoadOutcome::Failed(reason)) => reason.as_str(),
            Some(LoadOutcome::Unloaded) => "unloaded",
            Some(LoadOutcome::Loaded) | None => "not loaded",
        };
        ModelState::Unavailable { reason: reason.to_owned() }
    }
}

impl Runtime {
    /// Loads the model of that name from the directories and sources that the builder was given, which are looked at again:
    /// new versions, changed files and new directories count. Versions that are served and have not changed are kept.
    ///
    /// The model serves, warmed up, in place of what its name served before, in one step: each request is answered by the
    /// versions before or by those after it, and none is refused because of it. What was served before answers the requests
    /// that it has; then its memory is free. Both are in memory for that long.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let zoo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
    /// let runtime = sconce::Runtime::builder().model(zoo.join("tiny-bert-sentiment")).build()?;
    /// runtime.unload("tiny-bert-sentiment").await?;
    /// assert!(runtime.model("tiny-bert-sentiment").is_err());
    ///
    /// runtime.load("tiny-bert-sentiment").await?;
    /// assert_eq!(runtime.model("tiny-bert-sentiment")?.version(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RepositoryError`]; what was served before is served on.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn load(&self, name: &str) -> Result<Vec<Model>, RepositoryError> {
        let name = name.to_owned();
        self.blocking(move |runtime| runtime.load_blocking(&name)).await
    }

    /// Does the same as [`load`](Self::load) on a thread that may block.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_blocking(&self, name: &str) -> Result<Vec<Model>, RepositoryError> {
        let mut turn = self.loader.turn()?;
        // Listed when the turn has come: what changed while it waited counts.
        let mut named = self.loader.sources().named()?;
        let Some(sources) = named.remove(name) else {
            let known = named.into_keys().collect();
            return Err(UnknownModel { name: name.to_owned(), known }.into());
        };
        self.load_versions(&mut turn, name, &sources)
    }

    /// Adds a model, or a version of one, to those that the builder was given, in place of one with the same name and version
    /// that was added alone; then does what [`load`](Self::load) does.
    ///
    /// # Errors
    /// As [`load`](Self::load); the model is then not added.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn load_from(&self, source: impl Into<ModelSource>) -> Result<Vec<Model>, RepositoryError> {
        let source = source.into();
        self.blocking(move |runtime| runtime.load_from_blocking(&source)).await
    }

    /// Does the same as [`load_from`](Self::load_from) on a thread that may block.
    ///
    /// # Errors
    /// As [`load_from`](Self::load_from).
    pub fn load_from_blocking(&self, source: &ModelSource) -> Result<Vec<Model>, RepositoryError> {
        let name = source.resolved_name()?;
        let mut turn = self.loader.turn()?;
        let (replaced, named) = {
            let mut sources = self.loader.sources();
            let same = |added: &AddedModels| match added {
                AddedModels::Model(other) => {
                    other.version == source.version && other.resolved_name().is_ok_and(|other| other == name)
                }
                AddedModels::Directory(_) | AddedModels::Listed(_) => false,
            };
            let replaced: Vec<AddedModels> = sources.added.extract_if(.., |added| same(added)).collect();
            sources.added.push(AddedModels::Model(Box::new(source.clone())));
            (replaced, sources.named())
        };
        let loaded = named
            .map_err(RepositoryError::from)
            .and_then(|mut named| self.load_versions(&mut turn, &name, &named.remove(&name).unwrap_or_default()));
        if loaded.is_err() {
            let mut sources = self.loader.sources();
            let added = |added: &AddedModels| matches!(added, AddedModels::Model(other) if **other == *source);
            sources.added.retain(|other| !added(other));
            sources.added.extend(replaced);
        }
        loaded
    }

    /// Serves no version of the model of that name from now on. Requests that it has are answered; then its memory is free.
    ///
    /// # Errors
    /// [`RepositoryError`] if no model of that name is served, or too many calls wait.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn unload(&self, name: &str) -> Result<(), RepositoryError> {
        let name = name.to_owned();
        self.blocking(move |runtime| runtime.unload_blocking(&name)).await
    }

    /// Does the same as [`unload`](Self::unload) on a thread that may block.
    ///
    /// # Errors
    /// As [`unload`](Self::unload).
    pub fn unload_blocking(&self, name: &str) -> Result<(), RepositoryError> {
        // Waits for a load under way, which would otherwise bring the model back.
        let _turn = self.loader.turn()?;
        Ok(self.unload_in_turn(name)?)
    }

    fn unload_in_turn(&self, name: &str) -> Result<(), UnknownModel> {
        self.served.versions(name)?;
        self.records().unloaded(name);
        self.served.replace(name, &Versions::new());
        tracing::info!(model = name, "unloaded");
        Ok(())
    }

    /// Looks at the directories and sources that the builder was given: loads models that are new or changed, as
    /// [`load`](Self::load) does, and unloads those that are gone. A model that was unloaded comes back when it changes.
    ///
    /// # Errors
    /// [`RepositoryError`] if the models cannot be listed; then nothing changes.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn refresh(&self) -> Result<Refreshed, RepositoryError> {
        self.blocking(Self::refresh_blocking).await
    }

    /// Does the same as [`refresh`](Self::refresh), but leaves a model whose files are not as they were at the call before, or
    /// that was still there then, for the next: they may still be being written or replaced.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh).
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn refresh_settled(&self) -> Result<Refreshed, RepositoryError> {
        self.blocking(|runtime| runtime.refresh_by(true)).await
    }

    /// Does the same as [`refresh`](Self::refresh) on a thread that may block.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh).
    pub fn refresh_blocking(&self) -> Result<Refreshed, RepositoryError> {
        self.refresh_by(false)
    }

    fn refresh_by(&self, must_have_settled: bool) -> Result<Refreshed, RepositoryError> {
        let mut turn = self.loader.turn()?;
        let named = self.loader.sources().named()?;
        let mut refreshed = Refreshed::default();
        for name in self.served.all().keys().filter(|name| !named.contains_key(*name)) {
            let before = self.records().looked.insert(name.clone(), SeenVersions::new());
            // A directory that is being replaced is gone for a moment.
            let is_gone = !must_have_settled || before == Some(SeenVersions::new());
            if is_gone && self.unload_in_turn(name).is_ok() {
                refreshed.unloaded.push(name.clone());
            }
        }
        for (name, sources) in &named {
            let seen = see(sources);
            let before = self.records().looked.insert(name.clone(), seen.clone());
            let has_settled = !must_have_settled || before.as_ref() == Some(&seen);
            if !has_settled || self.records().tried(name) == Some(&seen) {
                continue;
            }
            match self.load_versions(&mut turn, name, sources) {
                Ok(_) => refreshed.loaded.push(name.clone()),
                Err(error) => _ = refreshed.failed.insert(name.clone(), error),
            }
        }
        Ok(refreshed)
    }

    /// Every version of every model that is served, could be loaded, or was tried, in the order of the names.
    ///
    /// # Errors
    /// [`BuildError`] if the models cannot be listed.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn repository_index(&self) -> Result<Vec<RepositoryEntry>, BuildError> {
        self.blocking(Self::repository_index_blocking).await
    }

    /// Does the same as [`repository_index`](Self::repository_index) on a thread that may block.
    ///
    /// # Errors
    /// As [`repository_index`](Self::repository_index).
    pub fn repository_index_blocking(&self) -> Result<Vec<RepositoryEntry>, BuildError> {
        let named = self.loader.sources().named()?;
        let (served, records) = (self.served.all(), self.records());
        let mut all = BTreeSet::new();
        all.extend(named.iter().flat_map(|(name, sources)| sources.keys().map(move |version| (name, *version))));
        all.extend(served.iter().flat_map(|(name, versions)| versions.keys().map(move |version| (name, *version))));
        let entry = |(name, version): (&String, u64)| {
            let ready = served.get(name).is_some_and(|versions| versions.contains_key(&version));
            let state = if ready { ModelState::Ready } else { records.state(name, version) };
            RepositoryEntry { name: name.clone(), version, state }
        };
        Ok(all.into_iter().map(entry).collect())
    }

    /// Loads the versions of a model that are not served yet or have changed, and serves all of them.
    fn load_versions(
        &self,
        turn: &mut LoadingTurn<'_>,
        name: &str,
        sources: &BTreeMap<u64, ModelSource>,
    ) -> Result<Vec<Model>, RepositoryError> {
        if self.served.is_closed() {
            return Err(RepositoryError::ShuttingDown);
        }
        // Before loading: what changes meanwhile is a change since.
        let seen = see(sources);
        let before = self.records().served(name);
        let mut versions = self.served.versions(name).unwrap_or_default();
        versions.retain(|version, _| seen.contains_key(version) && seen.get(version) == before.get(version));
        let missing = sources.iter().filter(|(version, _)| !versions.contains_key(version));
        let missing = missing.map(|(version, source)| (*version, source.clone())).collect();
        self.records().begin(name, seen.clone());
        let loaded = turn.load_versions(name, missing);
        self.records().end(name, seen, loaded.as_ref().map(drop));
        versions.extend(loaded?);
        self.served.replace(name, &versions);
        Ok(versions.into_values().collect())
    }

    fn records(&self) -> MutexGuard<'_, LoadRecords> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn blocking<T: Send + 'static>(&self, act: impl FnOnce(&Self) -> T + Send + 'static) -> T {
        let runtime = self.clone();
        let joined = tokio::task::spawn_blocking(move || act(&runtime)).await;
        joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

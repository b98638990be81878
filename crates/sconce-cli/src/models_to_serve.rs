//! The models that `sconce serve` serves, as the models path and the flags name them, listed anew while it serves.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use sconce::ModelSource;

use crate::args::{ComputeArgs, LadderArgs, ServeArgs};
use crate::error::Error;
use crate::models_path::{FoundModel, ModelsPath};
use crate::precision::Precisions;

/// Finds the models to serve.
pub(crate) struct ModelsToServe {
    path: ModelsPath,
    /// The values of `--model`; none: every model on the path.
    only: Vec<String>,
    precisions: Precisions,
    ladders: LadderArgs,
    compute: ComputeArgs,
    /// The sources of the models that were found before, so that their precisions are asked for once.
    asked: Mutex<BTreeMap<(String, PathBuf), ModelSource>>,
}

impl ModelsToServe {
    /// Checks the flags against the models that there are.
    pub(crate) fn new(args: &ServeArgs) -> Result<Self, Error> {
        let (path, only) = (ModelsPath::new(&args.models), args.only.clone());
        let found = find(&path, &only)?;
        let precisions = Precisions::new(&args.precision, &found)?;
        args.ladder.check(&found)?;
        let (ladders, compute) = (args.ladder.clone(), args.compute.clone());
        Ok(Self { path, only, precisions, ladders, compute, asked: Mutex::default() })
    }

    /// The models that are to be served; each that is named must be there.
    pub(crate) fn sources(&self) -> Result<Vec<ModelSource>, Error> {
        Ok(self.asked(&find(&self.path, &self.only)?))
    }

    /// The models that are to be served and there now, which may be none.
    pub(crate) fn present_sources(&self) -> Result<Vec<ModelSource>, Error> {
        let named = |name: &String| self.path.find_all(std::slice::from_ref(name)).ok();
        let found = match self.only.as_slice() {
            [] => self.path.list()?,
            only => only.iter().filter_map(named).flatten().collect(),
        };
        Ok(self.asked(&found))
    }

    /// The sources of models, with the precisions and ladders that the flags ask of them.
    fn asked(&self, found: &[FoundModel]) -> Vec<ModelSource> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let key = |found: &FoundModel| (found.name.clone(), found.directory.clone());
        let new: Vec<FoundModel> = found.iter().filter(|found| !asked.contains_key(&key(found))).cloned().collect();
        for (found, source) in new.iter().zip(self.precisions.ask(new.clone(), &self.compute)) {
            asked.insert(key(found), self.ladders.apply(&found.name, source));
        }
        found.iter().filter_map(|found| asked.get(&key(found)).cloned()).collect()
    }
}

fn find(path: &ModelsPath, only: &[String]) -> Result<Vec<FoundModel>, Error> {
    if only.is_empty() { path.list_some() } else { path.find_all(only) }
}

//! `sconce serve --precision`: a precision for every model, or for one by its name.

use std::collections::BTreeMap;
use std::str::FromStr;

use sconce::placement::Decision;
use sconce::{BuildError, LoadError, ModelSource, Precision, Runtime, UnknownPrecision};

use crate::args::ComputeArgs;
use crate::error::Error;
use crate::models_path::FoundModel;
use crate::say::say;

/// A value of `--precision`: `int8` for every model, or `minilm=int8` for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PrecisionArg {
    model: Option<String>,
    precision: Precision,
}

impl FromStr for PrecisionArg {
    type Err = UnknownPrecision;

    fn from_str(arg: &str) -> Result<Self, UnknownPrecision> {
        // Split at the last `=`: a directory, and so a model's name, may have one, too.
        let (model, precision) = match arg.rsplit_once('=') {
            Some((model, precision)) => (Some(model.to_owned()), precision),
            None => (None, arg),
        };
        Ok(Self { model, precision: precision.parse()? })
    }
}

/// The precision that the flags ask of each model.
#[derive(Debug, Default)]
pub(crate) struct Precisions {
    /// Precisions by the model's name; `None` stands for every model that is not named.
    asked: BTreeMap<Option<String>, Precision>,
}

impl Precisions {
    /// Checks the flags.
    ///
    /// # Errors
    /// A name that is none of `models`, and a model or "every model" that is given twice.
    pub(crate) fn new(args: &[PrecisionArg], models: &[FoundModel]) -> Result<Self, Error> {
        let mut asked = BTreeMap::new();
        for PrecisionArg { model, precision } in args {
            if let Some(name) = model
                && !models.iter().any(|found| found.name == *name)
            {
                let known = models.iter().map(|found| found.name.clone()).collect();
                return Err(Error::PrecisionOfUnknownModel { name: name.clone(), precision: *precision, known });
            }
            if let Some(first) = asked.insert(model.clone(), *precision) {
                let name = model.clone().unwrap_or_else(|| "every model".to_owned());
                return Err(Error::PrecisionTwice { name, first, second: *precision });
            }
        }
        Ok(Self { asked })
    }

    /// The precision that the flags ask of the model of that name.
    fn of(&self, name: &str) -> Option<Precision> {
        let named = self.asked.get(&Some(name.to_owned()));
        named.or_else(|| self.asked.get(&None)).copied()
    }

    /// Sets the precision of each model. A precision for every model is set only for the models that have it; a warning
    /// says what the others run in. If no model has it, it is set for all, and loading them fails with the precisions
    /// that they have.
    pub(crate) fn ask(&self, models: Vec<FoundModel>, compute: &ComputeArgs) -> Vec<ModelSource> {
        let source = |found: FoundModel, precision| {
            let source = ModelSource::new(found.directory).name(found.name);
            ModelSource { precision, device: compute.device, ..source }
        };
        let common = self.asked.get(&None).copied();
        let lacks = |found: &FoundModel| {
            let precision = common.filter(|_| !self.asked.contains_key(&Some(found.name.clone())))?;
            lacking(&source(found.clone(), Some(precision)), compute)
        };
        let lacking: Vec<_> = models.iter().map(lacks).collect();
        if lacking.iter().all(Option::is_some) {
            return models.into_iter().map(|found| source(found, common)).collect();
        }
        let ask = |(found, lacking): (FoundModel, Option<Lacking>)| {
            let Some(Lacking { asked, has }) = lacking else {
                let precision = self.of(&found.name);
                return source(found, precision);
            };
            let name = found.name.clone();
            let asked_nothing = source(found, None);
            let own = runs_in(&asked_nothing, compute).map(|own| format!(", and runs in {own}"));
            say!("warning: --precision {asked}: {name} has {has} alone{}", own.unwrap_or_default());
            asked_nothing
        };
        models.into_iter().zip(lacking).map(ask).collect()
    }
}

/// A precision that a model does not have, and the names of those that it has.
struct Lacking {
    asked: Precision,
    has: String,
}

/// The precision that is asked of the model, if it has it on none of its devices.
fn lacking(source: &ModelSource, compute: &ComputeArgs) -> Option<Lacking> {
    match compute.apply(Runtime::builder()).model(source.clone()).decide() {
        Err(BuildError::Load { source, .. }) => match *source {
            LoadError::UnsupportedPrecision { precision: asked, allowed, .. } => {
                let has: Vec<_> = allowed.iter().map(|precision| precision.name()).collect();
                Some(Lacking { asked, has: has.join(", ") })
            }
            _ => None,
        },
        // Loading the model reports every other error.
        _ => None,
    }
}

/// The precision of the model on the first of its devices.
fn runs_in(source: &ModelSource, compute: &ComputeArgs) -> Option<Precision> {
    let decisions = compute.apply(Runtime::builder()).model(source.clone()).decide().ok()?;
    let mut decided = decisions.values().flat_map(Decision::devices);
    decided.find_map(|considered| considered.demand).map(|(precision, _)| precision)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn precisions(args: &[&str]) -> Result<Precisions, String> {
        let found = |name: &&str| FoundModel { name: (*name).to_owned(), directory: name.into() };
        let models: Vec<FoundModel> = ["minilm", "magika", "a=b"].iter().map(found).collect();
        let args: Result<Vec<PrecisionArg>, _> = args.iter().map(|arg| arg.parse()).collect();
        let args = args.map_err(|error: UnknownPrecision| error.to_string())?;
        Precisions::new(&args, &models).map_err(|error| error.to_string())
    }

    #[test]
    fn a_named_model_goes_before_every_model_and_nothing_said_leaves_it_to_sconce_toml() {
        let table: [(&[&str], [Option<Precision>; 3]); 4] = [
            (&[], [None; 3]),
            (&["int8"], [Some(Precision::Int8); 3]),
            (&["minilm=int8", "a=b=q4k"], [Some(Precision::Int8), None, Some(Precision::Q4K)]),
            (&["magika=f32", "q8_0"], [Some(Precision::Q8_0), Some(Precision::F32), Some(Precision::Q8_0)]),
        ];
        for (args, expected) in table {
            let precisions = precisions(args).unwrap();
            assert_eq!(["minilm", "magika", "a=b"].map(|name| precisions.of(name)), expected, "{args:?}");
        }
    }

    #[test]
    fn what_is_unknown_or_said_twice_is_refused_with_what_there_is() {
        let table: [(&[&str], &str); 6] = [
            (&["int4"], "precision 'int4' is not known; known are: f32, f16, bf16, int8, q8_0, q4k"),
            (&["minilm="], "precision '' is not known"),
            (
                &["bert=int8"],
                "--precision bert=int8: no model is named 'bert'; those to be served: minilm, magika, a=b",
            ),
            (&["=int8"], "--precision =int8: no model is named ''"),
            (&["f32", "int8"], "--precision is given twice for every model: f32 and int8; give one"),
            (&["magika=f32", "magika=f32"], "--precision is given twice for magika: f32 and f32; give one"),
        ];
        for (args, message) in table {
            let error = precisions(args).unwrap_err();
            assert!(error.starts_with(message), "{args:?}: {error}");
        }
    }
}

//! The choice of a model's precision by the caller, `sconce.toml` or default, and the error for one that the model lacks.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use sconce_models::{
    Blueprint, Compute, Device, Family, Halves, LoadError, LoadOptions, ModelDirectory, Precision, Registry, Target,
    Task, Team, cpu,
};
use tempfile::TempDir;

use crate::{ZOO, copy_of, directory, edit_config, load};

/// A model directory of the family `told`.
fn told(toml: &str) -> TempDir {
    let copy = copy_of("digits-cnn");
    edit_config(copy.path(), |config| config["model_type"] = "told".into());
    fs::write(copy.path().join("sconce.toml"), toml).unwrap();
    copy
}

/// A family that claims every precision and has one label: the number of threads of its device.
struct Told;

impl Blueprint for Told {
    fn precisions(&self, _: &dyn Device) -> Vec<Precision> {
        Precision::ALL.to_vec()
    }

    fn load(&self, directory: &ModelDirectory, target: &Target) -> Result<Halves, LoadError> {
        let digits = (Registry::default().family("digits-cnn").unwrap().read)(directory)?;
        let Compute::Kernels(team) = target.device.compute()? else { panic!("the CPU has kernels") };
        let labels = [team.threads().to_string()].into();
        Ok(Halves { task: Task::Classification { labels }, ..digits.load(directory, target)? })
    }
}

/// This crate's families and `told`.
fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.register(Family { model_type: "told", summary: "says what it was told", read: |_| Ok(Box::new(Told)) });
    registry
}

fn asking(precision: impl Into<Option<Precision>>) -> LoadOptions {
    LoadOptions { precision: precision.into(), ..LoadOptions::default() }
}

fn refusal(directory: &Path, options: &LoadOptions) -> String {
    registry().load(directory, options).unwrap_err().to_string()
}

#[test]
fn every_model_is_loaded_in_f32_unless_somebody_asks_for_another() {
    for name in ZOO {
        assert_eq!(load(name).signature.precision, Precision::F32, "{name}");
    }
    assert_eq!(registry().load(told("").path(), &asking(None)).unwrap().signature.precision, Precision::F32);
}

#[test]
fn whoever_loads_a_model_goes_before_its_sconce_toml_in_every_precision() {
    for set in Precision::ALL {
        let copy = told(&format!("[model]\nprecision = \"{set}\""));
        assert_eq!(registry().load(copy.path(), &asking(None)).unwrap().signature.precision, set);
        for asked in Precision::ALL {
            let model = registry().load(copy.path(), &asking(asked)).unwrap();
            assert_eq!(model.signature.precision, asked, "asked over {set}");
        }
    }
}

#[test]
fn a_precision_that_a_model_does_not_have_is_refused_with_those_that_it_has() {
    let digits = directory("digits-cnn");
    assert_eq!(
        refusal(&digits, &asking(Precision::Q4K)),
        format!(
            "{}: 'digits-cnn' models have no precision 'q4k' on device 'cpu'; choose one of: f32",
            digits.display()
        )
    );
    let error = registry().load(&digits, &asking(Precision::Q4K)).unwrap_err();
    let LoadError::UnsupportedPrecision { precision, allowed, .. } = error else { panic!("{error}") };
    assert_eq!((precision, allowed), (Precision::Q4K, vec![Precision::F32]));
}

#[test]
fn a_sconce_toml_that_asks_for_what_a_model_does_not_have_is_named() {
    let copy = copy_of("magika");
    let file = copy.path().join("sconce.toml");
    fs::write(&file, "[model]\nprecision = \"q8_0\"").unwrap();
    let expected = "'magika' models have no precision 'q8_0' on device 'cpu'; choose one of: f32";
    assert_eq!(refusal(copy.path(), &asking(None)), format!("{}: {expected}", file.display()));
    let overruled = registry().load(copy.path(), &asking(Precision::F32)).unwrap();
    assert_eq!(overruled.signature.precision, Precision::F32);
}

#[test]
fn a_sconce_toml_that_is_wrong_is_refused_even_where_another_precision_is_asked_for() {
    let copy = told("[model]\nprecision = \"int4\"");
    for options in [asking(None), asking(Precision::Int8)] {
        let message = refusal(copy.path(), &options);
        for part in ["sconce.toml", "'model.precision'", "'int4' is not known", "int8, q8_0, q4k", "did you mean q4k?"]
        {
            assert!(message.contains(part), "'{part}' is not in: {message}");
        }
    }
}

#[test]
fn a_family_is_told_how_many_threads_it_may_use() {
    let threads = NonZeroUsize::new(3).unwrap();
    let options = LoadOptions { device: cpu(Arc::new(Team::new(threads).unwrap())), ..LoadOptions::default() };
    let task = registry().load(told("").path(), &options).unwrap().signature.task;
    assert_eq!(task, Task::Classification { labels: ["3".to_owned()].into() });
}

#[test]
fn every_model_of_the_zoo_has_f32_and_encoders_have_the_precisions_of_the_kernels() {
    for name in ZOO {
        let precisions = registry().survey(&directory(name), &asking(None)).unwrap().precisions;
        let is_encoder = ["encoder-mini", "tiny-bert-sentiment"].contains(&name);
        let lower = [Precision::Int8, Precision::Q8_0, Precision::Q4K];
        let expected = std::iter::once(Precision::F32).chain(lower.into_iter().filter(|_| is_encoder));
        assert_eq!(precisions, expected.collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn families_are_found_by_name() {
    let registry = registry();
    assert!(registry.known().all(|family| registry.family(family.model_type).is_some()));
    assert!(registry.family("gpt-17").is_none());
}

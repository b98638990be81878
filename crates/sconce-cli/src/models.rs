//! `sconce models`: the models on the models path, and whether each of them loads.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use sconce::models::LoadOptions;
use sconce::{BuildError, Precision, Registry, Runtime, Signature};
use serde_json::{Value, json};

use crate::args::ModelsArgs;
use crate::error::Error;
use crate::languages;
use crate::models_path::{FoundModel, ModelsPath};
use crate::progress;
use crate::say::say;
use crate::table;

const HEADER: [&str; 8] = ["NAME", "FAMILY", "TASK", "LANGUAGES", "PARAMETERS", "PRECISION", "INPUT", "DIRECTORY"];

/// Loads each model by itself, so that a broken one hides no other.
pub(crate) async fn run(args: &ModelsArgs) -> Result<ExitCode, Error> {
    let found = ModelsPath::new(&args.models).list_some()?;
    let spinner = progress::spinner(format!("loading {} models", found.len()));
    let mut models = Vec::new();
    for found in found {
        let loaded = load(&found).await;
        models.push((found, loaded));
    }
    spinner.finish_and_clear();

    let broken = models.iter().filter(|(_, loaded)| loaded.is_err()).count();
    if args.json {
        print_json(&models)?;
    } else {
        print_table(&models)?;
    }
    if broken > 0 {
        say!("{broken} of {} models do not load", models.len());
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

async fn load(found: &FoundModel) -> Result<Signature, BuildError> {
    let runtime = Runtime::builder().allow_undecided(true).named_model(&found.name, &found.directory).build()?;
    let signature = runtime.model(&found.name).expect("the runtime was built with this model").signature().clone();
    runtime.shutdown().await;
    Ok(signature)
}

fn print_table(models: &[(FoundModel, Result<Signature, BuildError>)]) -> io::Result<()> {
    let mut rows = vec![HEADER.map(str::to_owned)];
    for (found, loaded) in models {
        if let Ok(signature) = loaded {
            rows.push([
                found.name.clone(),
                signature.model_type.clone(),
                signature.task.to_string(),
                languages::shown(&languages::of(&found.newest())),
                parameters(signature.parameters),
                precision(found, signature),
                signature.input.kind.to_string(),
                shown(&found.directory),
            ]);
        }
    }
    let mut out = io::stdout().lock();
    table::write(&mut out, &rows)?;
    for (found, loaded) in models {
        if let Err(cause) = loaded {
            writeln!(out, "\nBROKEN {} in {}\n  {cause}", found.name, shown(&found.directory))?;
        }
    }
    out.flush()
}

fn print_json(models: &[(FoundModel, Result<Signature, BuildError>)]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (found, loaded) in models {
        let object = match loaded {
            Ok(signature) => object(found, signature),
            Err(cause) => {
                json!({"name": found.name, "directory": shown(&found.directory), "error": cause.to_string()})
            }
        };
        writeln!(out, "{object}")?;
    }
    out.flush()
}

fn object(found: &FoundModel, signature: &Signature) -> Value {
    let mut object = json!({
        "name": found.name,
        "family": signature.model_type,
        "task": signature.task.name(),
        "parameters": signature.parameters,
        "precision": signature.precision,
        "precisions": precisions(found),
        "input": signature.input.kind,
        "directory": shown(&found.directory),
    });
    let languages = languages::of(&found.newest());
    if !languages.is_empty() {
        object["languages"] = json!(languages);
    }
    if let Some(dimensions) = signature.task.dimensions() {
        object["dimensions"] = json!(dimensions);
    }
    if let Some(labels) = signature.task.labels() {
        object["labels"] = json!(labels.to_vec());
    }
    object
}

/// `9.2 M`.
pub(crate) fn parameters(count: usize) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..1_000_000 => format!("{:.1} k", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", count as f64 / 1e6),
        _ => format!("{:.1} G", count as f64 / 1e9),
    }
}

/// The model's precision and the others that it has: `f32 (or int8, q4k)`.
fn precision(found: &FoundModel, signature: &Signature) -> String {
    let others: Vec<_> = precisions(found).into_iter().filter(|other| *other != signature.precision).collect();
    match others.iter().map(|other| other.name()).collect::<Vec<_>>().as_slice() {
        [] => signature.precision.to_string(),
        others => format!("{} (or {})", signature.precision, others.join(", ")),
    }
}

/// The precisions that a model has on the CPU.
fn precisions(found: &FoundModel) -> Vec<Precision> {
    let survey = Registry::default().survey(&found.newest(), &LoadOptions::default());
    survey.map(|survey| survey.precisions).unwrap_or_default()
}

fn shown(directory: &Path) -> String {
    directory.display().to_string()
}

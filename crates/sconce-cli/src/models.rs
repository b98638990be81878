//! `sconce models`: the models on the models path, and whether each of them loads.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use sconce::models::Device;
use sconce::{BuildError, InputKind, Precision, Registry, Runtime, Signature, Task};
use serde_json::{Value, json};

use crate::args::ModelsArgs;
use crate::error::Error;
use crate::models_path::{Found, ModelsPath};
use crate::progress;
use crate::say::say;
use crate::table;

const HEADER: [&str; 7] = ["NAME", "FAMILY", "TASK", "PARAMETERS", "PRECISION", "INPUT", "DIRECTORY"];

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

async fn load(found: &Found) -> Result<Signature, BuildError> {
    let runtime = Runtime::builder().named_model(&found.name, &found.directory).build()?;
    let signature = runtime.model(&found.name).expect("the runtime was built with this model").signature().clone();
    runtime.shutdown().await;
    Ok(signature)
}

fn print_table(models: &[(Found, Result<Signature, BuildError>)]) -> io::Result<()> {
    let mut rows = vec![HEADER.map(str::to_owned)];
    for (found, loaded) in models {
        if let Ok(signature) = loaded {
            rows.push([
                found.name.clone(),
                signature.model_type.clone(),
                task(&signature.task),
                parameters(signature.parameters),
                precision(signature),
                input(signature),
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

fn print_json(models: &[(Found, Result<Signature, BuildError>)]) -> io::Result<()> {
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

fn object(found: &Found, signature: &Signature) -> Value {
    let input = match &signature.input.kind {
        InputKind::Text { max_tokens } => json!({"kind": "text", "max_tokens": max_tokens}),
        InputKind::Content => json!({"kind": "content"}),
        InputKind::Image { shape } => json!({"kind": "image", "shape": shape}),
        _ => Value::Null,
    };
    let mut object = json!({
        "name": found.name,
        "family": signature.model_type,
        "task": signature.task.name(),
        "parameters": signature.parameters,
        "precision": signature.precision,
        "precisions": precisions(signature),
        "input": input,
        "directory": shown(&found.directory),
    });
    match &signature.task {
        Task::Embedding { dimensions } => object["dimensions"] = json!(dimensions),
        Task::Classification { labels } => object["labels"] = json!(labels.to_vec()),
        _ => {}
    }
    object
}

/// Describes a task: `embedding, 384 dimensions`.
pub(crate) fn task(task: &Task) -> String {
    match task {
        Task::Embedding { dimensions } => format!("embedding, {dimensions} dimensions"),
        Task::Classification { labels } => format!("classification, {} labels", labels.len()),
        other => other.name().to_owned(),
    }
}

/// Formats a number of parameters: `9.2 M`.
pub(crate) fn parameters(count: usize) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..1_000_000 => format!("{:.1} k", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", count as f64 / 1e6),
        _ => format!("{:.1} G", count as f64 / 1e9),
    }
}

/// The model's precision and the others that it has: `f32 (or int8, q4k)`.
fn precision(signature: &Signature) -> String {
    let others = precisions(signature).iter().filter(|other| **other != signature.precision);
    match others.map(|other| other.name()).collect::<Vec<_>>().as_slice() {
        [] => signature.precision.to_string(),
        others => format!("{} (or {})", signature.precision, others.join(", ")),
    }
}

/// Precisions that models of this family have on the CPU.
fn precisions(signature: &Signature) -> &'static [Precision] {
    let registry = Registry::default();
    let family = registry.family(&signature.model_type).expect("the default registry has loaded this model");
    (family.precisions)(&Device::Cpu)
}

fn input(signature: &Signature) -> String {
    let name = signature.input.name;
    match &signature.input.kind {
        InputKind::Text { max_tokens } => format!("{name}, to {max_tokens} tokens"),
        InputKind::Content => format!("{name} of a file"),
        InputKind::Image { shape: [channels, height, width] } => format!("{name} {channels}×{height}×{width}"),
        _ => name.to_owned(),
    }
}

fn shown(directory: &Path) -> String {
    directory.display().to_string()
}

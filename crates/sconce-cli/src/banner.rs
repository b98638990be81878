//! The lines that `sconce serve` prints when it is ready: the models, the address, commands to try.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sconce::models::Written;
use sconce::{InputTensor, Model, Permission, Precision, Role, Runtime};

use crate::listen::{Address, BoundAddress};
use crate::models;
use crate::serve::Failed;

/// A sample text, and its base64 form, in which grpcurl takes bytes. No `!`: an interactive shell would expand it.
const SAMPLE: (&str, &str) = ("What a lovely day", "V2hhdCBhIGxvdmVseSBkYXk=");

/// The addresses that are listened on.
#[derive(Clone, Copy)]
pub(crate) struct Addresses<'a> {
    pub(crate) grpc: Option<&'a BoundAddress>,
    pub(crate) http: Option<&'a BoundAddress>,
    pub(crate) monitoring: Option<&'a BoundAddress>,
    /// True if metrics and dashboard are on the address of HTTP.
    pub(crate) on_http: bool,
}

/// The means that clients need to be let in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guards {
    pub(crate) tls: bool,
    pub(crate) tokens: bool,
}

/// Prints to standard output, and flushes it: scripts wait for the addresses.
pub(crate) fn print(runtime: &Runtime, failed: &Failed, addresses: &Addresses<'_>, guards: Guards) -> io::Result<()> {
    let Addresses { grpc, http, monitoring, on_http } = *addresses;
    let mut out = io::stdout().lock();
    let models = runtime.all_versions();
    let width = models.iter().map(|model| model.name().len()).max().unwrap_or_default();
    for model in &models {
        let signature = model.signature();
        let name = model.name();
        let task = signature.task.to_string();
        let parameters = models::parameters(signature.parameters);
        let precision = signature.precision;
        let serving = model.devices().into_iter().filter(|it| it.role == Role::Serves && it.precision == precision);
        let devices: Vec<_> = serving.map(|it| it.name.to_string()).collect();
        let device = devices.join(" and ");
        write!(out, "{name:width$}  {task:30}  {parameters:>7} parameters in {precision:4}  {device}")?;
        write!(out, "  loaded in {:.0?}", model.load_time())?;
        match model.permission() {
            Permission::Decided(decided) => write!(out, ", by decision {}", decided.id)?,
            Permission::Undecided => write!(out, ", undecided")?,
            _ => {}
        }
        let others = model.precisions().into_iter().filter(|other| *other != precision);
        let others: Vec<_> = others.map(Precision::name).collect();
        if !others.is_empty() {
            write!(out, ", also in {}", others.join(" and "))?;
        }
        writeln!(out)?;
    }
    if !failed.is_empty() {
        let names: Vec<_> = failed.keys().map(String::as_str).collect();
        writeln!(out, "NOT SERVED (standard error says why): {}", names.join(", "))?;
    }
    writeln!(out, "\nCPU threads: {}", runtime.cpu_threads())?;
    if let Some(cache) = runtime.cache() {
        let tiers: Vec<_> = cache.stats().tiers.iter().map(|stats| stats.tier).collect();
        writeln!(out, "Answers are cached: {}", tiers.join(", then "))?;
    }
    let asked = [(guards.tls, "TLS"), (guards.tokens, "a token (authorization: Bearer TOKEN)")];
    let asked: Vec<_> = asked.iter().filter(|(is_asked, _)| *is_asked).map(|(_, name)| *name).collect();
    if !asked.is_empty() {
        writeln!(out, "Clients need {}", asked.join(" and "))?;
    }
    if let Some(BoundAddress { address, .. }) = http {
        writeln!(out, "HTTP (Open Inference Protocol v2, OpenAI, Cohere, text-embeddings-inference) on {address}")?;
    }
    if let Some(BoundAddress { address, .. }) = monitoring.or(http.filter(|_| on_http)) {
        writeln!(out, "Metrics (/metrics, /metrics.json) and dashboard (/) on {address}")?;
    }
    if let Some(BoundAddress { address, .. }) = grpc {
        writeln!(out, "gRPC (Open Inference Protocol v2) on {address}")?;
    }
    let is_open = !guards.tls && !guards.tokens;
    if let (true, Some(BoundAddress { address: Address::Tcp(address), .. }), Some(example)) =
        (is_open, grpc, example(&models))
    {
        writeln!(out, "\nTry it from another terminal:\n{}", lines_to_try(example, reachable(*address)))?;
    }
    out.flush()
}

/// The model whose answer reads best: a text classifier, else another text model, else any.
fn example(models: &[Model]) -> Option<&Model> {
    // The lines to try have one input.
    let with_one_input = |model: &&Model| inputs(model).len() == 1;
    models.iter().filter(with_one_input).min_by_key(|model| {
        let signature = model.signature();
        match (signature.input.kind.written(), signature.task.labels()) {
            (Written::Line, Some(_)) => 0,
            (Written::Line, None) => 1,
            (Written::File, _) => 2,
            (Written::Json { .. }, _) => 3,
        }
    })
}

fn inputs(model: &Model) -> Vec<InputTensor> {
    let input = &model.signature().input;
    input.kind.tensors(input.name)
}

fn lines_to_try(model: &Model, address: SocketAddr) -> String {
    let name = model.name();
    let input = model.signature().input.name;
    let output = model.signature().task.tensors()[0].name;
    let (datatype, shape, values) = match &inputs(model)[0].shape {
        Some(shape) => {
            let shape = shape.iter().fold("1".to_owned(), |sizes, size| format!("{sizes},{size}"));
            let values = format!("np.zeros(({shape}), np.float32)");
            ("FP32", shape, values)
        }
        None => ("BYTES", "1,1".to_owned(), format!("np.array([[b'{}']], object)", SAMPLE.0)),
    };
    let mut lines = format!(
        r#"
  pip install 'tritonclient[grpc]' && python3 -c "
import numpy as np, tritonclient.grpc as triton
x = triton.InferInput('{input}', [{shape}], '{datatype}')
x.set_data_from_numpy({values})
print(triton.InferenceServerClient('{address}').infer('{name}', [x]).as_numpy('{output}'))"
"#
    );
    if datatype == "BYTES" {
        let contents = format!(r#"{{"bytes_contents":["{}"]}}"#, SAMPLE.1);
        let tensor = format!(r#"{{"name":"{input}","datatype":"BYTES","shape":[{shape}],"contents":{contents}}}"#);
        let request = format!(r#"{{"model_name":"{name}","inputs":[{tensor}]}}"#);
        let method = "inference.GRPCInferenceService/ModelInfer";
        let _ = writeln!(lines, "\n  grpcurl -plaintext -d '{request}' {address} {method}");
        let _ = writeln!(lines, "\nOr without a server:\n\n  {}", line_without_server(model));
    }
    lines
}

fn line_without_server(model: &Model) -> String {
    let command = if model.signature().task.dimensions().is_some() { "embed" } else { "classify" };
    let executable = std::env::args().next().unwrap_or_else(|| "sconce".to_owned());
    let directory = model.directory().display().to_string();
    format!("echo '{}' | {} {command} --model {}", SAMPLE.0, quoted(&executable), quoted(&directory))
}

/// Quotes `word` for a POSIX shell, if it needs quotes.
fn quoted(word: &str) -> String {
    if word.chars().all(|letter| letter.is_alphanumeric() || "/._-+:@%".contains(letter)) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// An address that clients can call: loopback in place of "every interface".
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

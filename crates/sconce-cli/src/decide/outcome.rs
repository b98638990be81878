//! The outcome of a comparison: figures, the record with its page and picture, or the comparison with an earlier record.

use std::io::{self, Write as _};
use std::process::ExitCode;

use jiff::Timestamp;
use sconce::BuildError;
use sconce::DECISION_FILE;
use sconce::decide::{
    DecidedCandidate, DecidedData, DecidedModel, DecisionRecord, Estimate, ExampleFigures, Hardware, Likeness,
    Measured, MeasuringBinary, Metric, PairedBootstrap, SCHEMA, ServingCandidate, ServingVerdict, candidate_name,
    choose, figure, hex, markdown, money, sign,
};

use super::answers::ExampleScores;
use super::contender::LoadedContender;
use super::error::DecideError;
use super::examples::Examples;
use super::load::Speed;
use super::work::{WorkSoFar, write_whole};
use super::{Comparison, origin, picture, verify};
use crate::args::DecideArgs;
use crate::error::Error;
use crate::{say::say, table};

const PAGE_FILE: &str = "decision.md";
const PICTURE_FILE: &str = "decision.svg";

/// Everything that figures depend on.
pub(crate) struct FigureOrigin {
    model: DecidedModel,
    data: DecidedData,
    binary: MeasuringBinary,
    hardware: Hardware,
    /// Digests of the weights and of the other files of each candidate.
    candidates: Vec<[String; 2]>,
}

impl FigureOrigin {
    /// The key under which work goes on.
    pub(crate) fn key(&self, args: &DecideArgs, loaded: &[LoadedContender]) -> String {
        let Self { model, data, binary, hardware, candidates } = self;
        let named: Vec<&ServingCandidate> = loaded.iter().map(|one| &one.contender.candidate).collect();
        let settings = (&args.columns, &args.header, args.format, args.turn_ms, args.seed, args.verify.is_some());
        let all = format!("{model:?} {data:?} {binary:?} {hardware:?} {candidates:?} {named:?} {settings:?}");
        blake3::hash(all.as_bytes()).to_hex().to_string()
    }
}

impl Comparison<'_> {
    /// Digests files, and compares them with those of the record, if there is one.
    pub(crate) fn origin(
        &self,
        loaded: &[LoadedContender],
        examples: &Examples,
        data: String,
    ) -> Result<FigureOrigin, Error> {
        let digests = |one: &LoadedContender| -> Result<[String; 2], Error> {
            let directory = one.model.directory().to_owned();
            let digests = one.model.digests().map_err(|source| BuildError::Digest { directory, source })?;
            Ok([hex(digests.weights), hex(digests.processing)])
        };
        let candidates = loaded.iter().map(digests).collect::<Result<Vec<_>, _>>()?;
        let [weights, processing] = candidates[0].clone();
        let parameters = loaded[0].model.signature().parameters as u64;
        let file = self.args.data.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let devices: Vec<_> = loaded.iter().map(LoadedContender::device).collect();
        let found = FigureOrigin {
            model: DecidedModel { name: self.found.name.clone(), parameters, weights, processing },
            data: DecidedData { file, digest: data, examples: examples.count() as u64 },
            binary: origin::binary(),
            hardware: origin::hardware(loaded[0].runtime.cpu_threads().get(), &devices),
            candidates,
        };
        if let Some(record) = &self.recorded {
            let pairs = [
                ("weights", &record.model.weights, &found.model.weights),
                ("tokenizer and settings", &record.model.processing, &found.model.processing),
                ("data", &record.data.digest, &found.data.digest),
            ];
            if let Some((what, recorded, found)) = pairs.into_iter().find(|(_, recorded, found)| recorded != found) {
                let (recorded, found) = (recorded.clone(), found.clone());
                return Err(DecideError::OtherThanRecord { what, recorded, found }.into());
            }
            if record.hardware != found.hardware {
                let (before, now) = (&record.hardware, &found.hardware);
                let of =
                    |it: &Hardware| format!("{}, {} threads, {}", it.processor, it.cpu_threads, it.devices.join(", "));
                say!("the record was measured on other hardware ({}; here {}): times will differ", of(before), of(now));
            }
        }
        Ok(found)
    }

    /// The figures of all candidates, from all that was done.
    pub(crate) fn measured(&self, loaded: &[LoadedContender], work: &WorkSoFar) -> Vec<Measured> {
        let scores = |one: &LoadedContender| work.scores(&one.group()).expect("every group has answered");
        let reference = scores(&loaded[0]);
        let confidence = self.policy.max_drop.confidence;
        let bootstrap = PairedBootstrap::new(self.args.seed, confidence);
        let mut compared: Vec<(super::contender::AnswerGroup, MetricFigures)> = Vec::new();
        let mut all = Vec::new();
        for one in loaded {
            let group = one.group();
            let known = compared.iter().find(|(other, _)| *other == group).map(|(_, figures)| figures.clone());
            let figures = known.unwrap_or_else(|| {
                let is_reference = group == loaded[0].group();
                MetricFigures::of(&bootstrap, self.policy.metric, scores(one), reference, is_reference)
            });
            all.push(self.measured_one(one, figures.clone(), Speed::of(work.turns(&one.contender.candidate))));
            compared.push((group, figures));
        }
        all
    }

    fn measured_one(&self, one: &LoadedContender, figures: MetricFigures, speed: Speed) -> Measured {
        let MetricFigures { accuracy, drop, also, likeness } = figures;
        let price = self.policy.price_of(&one.contender.candidate.device).unwrap_or(0.0);
        Measured {
            accuracy,
            drop,
            also,
            likeness,
            latency_p50_ms: speed.p50_ms,
            latency_p99_ms: speed.p99_ms,
            throughput: speed.throughput,
            memory_bytes: one.memory_bytes(),
            cost_per_million: price / 3600.0 / speed.throughput.value * 1e6,
            cost: speed.cost,
        }
    }

    /// Writes the record and prints it, or compares with the earlier one.
    pub(crate) fn finish(
        &self,
        origin: FigureOrigin,
        loaded: &[LoadedContender],
        measured: Vec<Measured>,
    ) -> Result<ExitCode, Error> {
        let mut out = io::stdout().lock();
        if let Some(record) = &self.recorded {
            let outside = verify::write(&mut out, record, &measured)?;
            return Ok(if outside == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        let candidates = loaded.iter().map(|one| one.contender.candidate.clone()).zip(measured).collect();
        let FigureOrigin { model, data, binary, hardware, .. } = origin;
        let record = DecisionRecord {
            schema: SCHEMA,
            made_at: Timestamp::now(),
            model,
            data,
            binary,
            hardware,
            policy: self.policy.clone(),
            seed: self.args.seed,
            candidates: choose(&self.policy, candidates),
        };
        self.write(&record)?;
        if self.args.json {
            out.write_all(&record.to_json())?;
        } else {
            write_table(&mut out, &record)?;
            self.write_next(&mut out, &record)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Writes the record's files. An old signature is removed: it is of the old record.
    fn write(&self, record: &DecisionRecord) -> Result<(), Error> {
        let json = record.to_json();
        let signed = self
            .key
            .as_ref()
            .zip(self.args.sign_with.as_ref())
            .map(|(key, path)| sign(&json, key).map_err(|source| DecideError::Sign { path: path.clone(), source }));
        let signature = signed.transpose()?;
        let svg_path = self.out.join(PICTURE_FILE);
        let svg = picture::svg(record).map_err(|message| Error::Plot { path: svg_path.clone(), message })?;
        let signature_path = self.out.join(format!("{DECISION_FILE}.sig"));
        write_whole(&svg_path, svg.as_bytes())?;
        write_whole(&self.out.join(PAGE_FILE), markdown(record, PICTURE_FILE).as_bytes())?;
        // As late as can be: until here the old record counts.
        match std::fs::remove_file(&signature_path) {
            Ok(()) if signature.is_none() => {
                say!("the old record's signature was removed; the new record needs its own");
            }
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Write { path: signature_path, source });
            }
            _ => {}
        }
        write_whole(&self.out.join(DECISION_FILE), &json)?;
        signature.map_or(Ok(()), |signature| write_whole(&signature_path, signature.as_bytes()))
    }

    /// Says where the record is, how it is signed and how the model is served.
    fn write_next(&self, out: &mut impl io::Write, record: &DecisionRecord) -> io::Result<()> {
        let (path, page) = (self.out.join(DECISION_FILE), self.out.join(PAGE_FILE));
        writeln!(out, "\nwritten: {}, {}, {PICTURE_FILE}", path.display(), page.display())?;
        let Some(chosen) = record.chosen() else { return Ok(()) };
        if self.args.sign_with.is_none() {
            let approver = &record.policy.approver;
            writeln!(
                out,
                "to be signed by {approver}:\n  ssh-keygen -Y sign -n sconce-decision -f ~/.ssh/id_ed25519 {}",
                path.display()
            )?;
        }
        if self.args.out.is_some() {
            writeln!(
                out,
                "copy {DECISION_FILE} and {DECISION_FILE}.sig into the model's directory, {}",
                self.found.newest().display()
            )?;
        }
        let ServingCandidate { precision, device, max_batch_size, .. } = &chosen.candidate;
        writeln!(
            out,
            "serve it:\n  sconce serve --model {} --precision {precision} --device {device} --max-batch-size {max_batch_size} \
             --allowed-signers FILE",
            self.args.model
        )
    }
}

/// The figures of accuracy of a candidate.
#[derive(Debug, Clone)]
struct MetricFigures {
    accuracy: Estimate,
    drop: Estimate,
    also: Vec<(Metric, Estimate)>,
    likeness: Likeness,
}

impl MetricFigures {
    fn of(
        bootstrap: &PairedBootstrap,
        metric: Metric,
        scores: &ExampleScores,
        reference: &ExampleScores,
        is_reference: bool,
    ) -> Self {
        let compare =
            |metric: Metric, figures: &ExampleFigures| bootstrap.compare(figures, &reference.metrics[&metric]);
        let compared = compare(metric, &scores.metrics[&metric]);
        let others = scores.metrics.iter().filter(|(other, _)| **other != metric);
        let also = others.map(|(other, figures)| (*other, compare(*other, figures).metric)).collect();
        // The reference is not compared with itself.
        let drop = if is_reference { Estimate::exact(0.0) } else { compared.drop };
        Self { accuracy: compared.metric, drop, also, likeness: Likeness::of(&scores.likeness) }
    }
}

fn write_table(out: &mut impl io::Write, record: &DecisionRecord) -> io::Result<()> {
    let metric = record.policy.metric.name().to_uppercase();
    let heading = ["CANDIDATE", "VERDICT", &metric, "LOST", "P50", "P99", "ITEMS/S", "MEMORY", "A MILLION"];
    let mut rows = vec![heading.map(str::to_owned)];
    for DecidedCandidate { candidate, measured, verdict, .. } in &record.candidates {
        let Estimate { value, low, high } = measured.drop;
        rows.push([
            candidate_name(candidate, &record.candidates),
            match verdict {
                ServingVerdict::Chosen => "CHOSEN",
                ServingVerdict::Allowed => "allowed",
                ServingVerdict::Refused => "refused",
            }
            .to_owned(),
            format!("{:.4}", measured.accuracy.value),
            if measured.drop == Estimate::exact(value) {
                format!("{value:.4}")
            } else {
                format!("{value:.4} [{low:.4}, {high:.4}]")
            },
            format!("{} ms", figure(measured.latency_p50_ms.value)),
            format!("{} ms", figure(measured.latency_p99_ms.value)),
            figure(measured.throughput.value),
            format!("{} MiB", measured.memory_bytes >> 20),
            money(measured.cost_per_million),
        ]);
    }
    table::write(out, &rows)?;
    writeln!(out)?;
    for DecidedCandidate { candidate, reason, .. } in &record.candidates {
        writeln!(out, "{}: {reason}", candidate_name(candidate, &record.candidates))?;
    }
    Ok(())
}

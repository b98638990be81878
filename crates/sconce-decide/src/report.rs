//! A record as a page of Markdown for the people who pay and answer for it.

use std::fmt::Write as _;

use crate::choice::pareto;
use crate::{DecidedCandidate, DecisionRecord, Estimate, Metric, ServingCandidate, ServingVerdict};

/// The page of a record. Its picture is expected beside it under the name `picture`.
#[must_use]
pub fn markdown(record: &DecisionRecord, picture: &str) -> String {
    let parts = [decision(record), candidates(record, picture), reasons(record), measured_on(record), people(record)];
    parts.join("\n")
}

/// The name of a candidate in tables and pictures: `int8 on cpu`, with its limit if candidates differ in it.
#[must_use]
pub fn candidate_name(candidate: &ServingCandidate, among: &[DecidedCandidate]) -> String {
    let ServingCandidate { variant, precision, device, max_batch_size, max_batch_weight } = candidate;
    let mut name = match variant {
        Some(variant) => format!("{variant} ({precision}) on {device}"),
        None => format!("{precision} on {device}"),
    };
    if among.iter().any(|it| it.candidate.max_batch_size != *max_batch_size) {
        let _ = write!(name, ", batches to {max_batch_size}");
    }
    if among.iter().any(|it| it.candidate.max_batch_weight != *max_batch_weight) {
        let _ = write!(name, ", weights to {max_batch_weight}");
    }
    name
}

/// A number with three digits that count: `0.0123`, `4.50`, `1230`.
#[must_use]
pub fn figure(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    #[expect(clippy::cast_possible_truncation, reason = "the number of digits of a finite number")]
    let magnitude = value.abs().log10().floor() as i32;
    let decimals = usize::try_from(2 - magnitude).unwrap_or(0);
    format!("{value:.decimals$}")
}

/// An amount of money: at least two decimals, and three digits that count.
#[must_use]
pub fn money(amount: f64) -> String {
    if amount.abs() >= 1.0 { format!("{amount:.2}") } else { figure(amount) }
}

/// The decision in two sentences, and the money.
fn decision(record: &DecisionRecord) -> String {
    let (policy, model) = (&record.policy, text(&record.model.name));
    let Some(chosen) = record.chosen() else { return format!("# {model}: no decision\n") };
    let reference = &record.candidates[0];
    let ServingCandidate { precision, device, max_batch_size, .. } = &chosen.candidate;
    let mut page = format!("# {model}: {precision} on {device}\n\n");
    let _ = writeln!(
        page,
        "**Serve {model} in {precision} on {device}, in batches of up to {max_batch_size}, until {}.**",
        policy.expires
    );
    let metric = metric_in_words(policy.metric);
    let (cost, before) = (chosen.measured.cost_per_million, reference.measured.cost_per_million);
    let (p99, slo) = (figure(chosen.measured.latency_p99_ms.value), figure(policy.slo_p99_ms));
    let speed = if chosen.measured.latency_p99_ms.value <= policy.slo_p99_ms {
        format!("99 of 100 lone requests take at most {p99} ms; the policy asks for {slo} ms.")
    } else {
        format!(
            "It is the fallback: 99 of 100 lone requests take up to {p99} ms, and no candidate that may serve keeps the {slo} ms of the policy."
        )
    };
    let drop = chosen.measured.drop;
    if drop.low == 0.0 && drop.high == 0.0 {
        let _ = writeln!(
            page,
            "Its answers are those of the reference: no accuracy is given up, and a million requests cost {}.",
            money(cost)
        );
    } else {
        let drop = drop.high.max(0.0);
        let allowed = policy.max_drop.of(reference.measured.accuracy.value);
        let _ = writeln!(
            page,
            "A million requests then cost {} instead of {} ({}), and at most {drop:.4} of the {metric} is lost, of {:.4} with the \
             reference ({} on {}); {allowed:.4} is allowed.",
            money(cost),
            money(before),
            change(cost, before),
            reference.measured.accuracy.value,
            reference.candidate.precision,
            reference.candidate.device,
        );
    }
    let _ = writeln!(page, "{speed}");
    page
}

fn candidates(record: &DecisionRecord, picture: &str) -> String {
    let metric = record.policy.metric;
    let mut page = format!("## Candidates\n\n![Accuracy against cost of each candidate]({picture})\n\n");
    let _ = writeln!(
        page,
        "| candidate | verdict | {metric} | lost against the reference | cost of a million | p50 | p99 | items a second | memory | likeness: mean, least |"
    );
    let _ = writeln!(page, "|---|---|---|---|---|---|---|---|---|---|");
    for (it, on_front) in record.candidates.iter().zip(pareto(&record.candidates)) {
        let DecidedCandidate { candidate, measured, verdict, .. } = it;
        let mark = if on_front { " ◆" } else { "" };
        let _ = writeln!(
            page,
            "| {}{mark} | {} | {} | {} | {} | {} ms | {} ms | {} | {} MiB | {:.4}, {:.4} |",
            text(&candidate_name(candidate, &record.candidates)),
            verdict_in_words(*verdict),
            interval(&measured.accuracy),
            interval(&measured.drop),
            money(measured.cost_per_million),
            figure(measured.latency_p50_ms.value),
            figure(measured.latency_p99_ms.value),
            figure(measured.throughput.value),
            figure(measured.memory_bytes as f64 / f64::from(1 << 20)),
            measured.likeness.mean,
            measured.likeness.least,
        );
    }
    let confidence = 100.0 * record.policy.max_drop.confidence;
    let _ = writeln!(
        page,
        "\n◆: no other candidate is both cheaper and more accurate. Brackets: {confidence} % confidence (paired bootstrap \
         over the examples). Costs are those of full load, at {}.",
        prices(record)
    );
    page + &further_metrics(record)
}

/// The metrics beside the policy's, if there are any.
fn further_metrics(record: &DecisionRecord) -> String {
    let metrics: Vec<Metric> = record.candidates[0].measured.also.iter().map(|(metric, _)| *metric).collect();
    if metrics.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = metrics.iter().map(|metric| metric.name()).collect();
    let mut page = format!(
        "\nOn the same examples:\n\n| candidate | {} |\n|---|{}\n",
        names.join(" | "),
        "---|".repeat(names.len())
    );
    for DecidedCandidate { candidate, measured, .. } in &record.candidates {
        let figures: Vec<String> = measured.also.iter().map(|(_, estimate)| interval(estimate)).collect();
        let name = text(&candidate_name(candidate, &record.candidates));
        let _ = writeln!(page, "| {name} | {} |", figures.join(" | "));
    }
    page
}

fn reasons(record: &DecisionRecord) -> String {
    let mut page = String::from("## Why\n\n");
    for it in &record.candidates {
        let name = text(&candidate_name(&it.candidate, &record.candidates));
        let _ = writeln!(page, "- **{name}** ({}): {}", verdict_in_words(it.verdict), text(&it.reason));
    }
    page
}

fn measured_on(record: &DecisionRecord) -> String {
    let DecisionRecord { model, data, binary, hardware, .. } = record;
    let mut page = String::from("## Measured on\n\n");
    let rows = [
        ("data", format!("`{}`, {} examples, BLAKE3 `{}`", text(&data.file), data.examples, data.digest)),
        (
            "model",
            format!(
                "{} weights, BLAKE3 `{}`; tokenizer and settings `{}`",
                model.parameters, model.weights, model.processing
            ),
        ),
        (
            "processor",
            format!(
                "{}, {} threads, {}",
                text(&hardware.processor),
                hardware.cpu_threads,
                hardware.instructions.join(", ")
            ),
        ),
        (
            "other devices",
            if hardware.devices.is_empty() { "none".to_owned() } else { text(&hardware.devices.join(", ")) },
        ),
        ("program", format!("sconce {}, BLAKE3 `{}`", text(&binary.version), binary.digest)),
        ("seed, time", format!("{}, {}", record.seed, record.made_at)),
    ];
    for (name, content) in rows {
        let _ = writeln!(page, "- {name}: {content}");
    }
    let _ = writeln!(
        page,
        "\nA batch was learned to take a + c·weight (tokens, or items):\n\n| candidate | a | c |\n|---|---|---|"
    );
    for DecidedCandidate { candidate, measured, .. } in &record.candidates {
        let name = text(&candidate_name(candidate, &record.candidates));
        let (a, c) = (figure(measured.cost.fixed * 1e3), figure(measured.cost.per_weight * 1e6));
        let _ = writeln!(page, "| {name} | {a} ms | {c} µs |");
    }
    page
}

fn people(record: &DecisionRecord) -> String {
    let policy = &record.policy;
    format!(
        "## Who answers for it\n\n\
         - {} runs the model and renews this decision.\n\
         - {} approves it. It counts once `decision.json` is signed: \
         `ssh-keygen -Y sign -n sconce-decision -f ~/.ssh/id_ed25519 decision.json`.\n\
         - It ends with {} (UTC). Then the model serves in {} until there is a new one.\n\
         - `sconce decide MODEL --data FILE --verify decision.json` measures again and compares.\n",
        text(&policy.owner),
        text(&policy.approver),
        policy.expires,
        text(&policy.fallback)
    )
}

fn verdict_in_words(verdict: ServingVerdict) -> &'static str {
    match verdict {
        ServingVerdict::Chosen => "**chosen**",
        ServingVerdict::Allowed => "allowed",
        ServingVerdict::Refused => "refused",
    }
}

/// A metric in the words of people who do not know its name.
#[must_use]
pub fn metric_in_words(metric: Metric) -> &'static str {
    match metric {
        Metric::Spearman => "agreement with human scores (Spearman)",
        Metric::Accuracy => "share of right labels (accuracy)",
        Metric::MacroF1 => "quality of labels (macro F1)",
        Metric::Map => "quality of rankings (MAP)",
        Metric::Mrr => "rank of the first right answer (MRR)",
        Metric::Ndcg => "quality of the first ten answers (nDCG@10)",
        Metric::Cosine => "likeness to the reference (cosine)",
        Metric::Agreement => "agreement with the reference's answers",
    }
}

fn prices(record: &DecisionRecord) -> String {
    let price = |(kind, price): (&String, &f64)| format!("{price} an hour of {}", text(kind));
    record.policy.price_per_hour.iter().map(price).collect::<Vec<_>>().join(" and ")
}

/// A change of cost: `60 % less`.
fn change(cost: f64, before: f64) -> String {
    let percent = 100.0 * (cost / before - 1.0);
    if percent.is_nan() {
        return "the same".to_owned();
    }
    format!("{:.0} % {}", percent.abs(), if percent <= 0.0 { "less" } else { "more" })
}

fn interval(estimate: &Estimate) -> String {
    // A zero that was rounded from below has no sign.
    let plain = |value: f64| format!("{:.4}", if value.abs() < 5e-5 { 0.0 } else { value });
    let Estimate { value, low, high } = *estimate;
    if *estimate == Estimate::exact(value) {
        return plain(value);
    }
    format!("{} [{}, {}]", plain(value), plain(low), plain(high))
}

/// A text of the user's that must not end a cell, a line or a span of Markdown.
fn text(content: &str) -> String {
    let plain = |letter: char| match letter {
        '|' => "\\|".to_owned(),
        '<' => "&lt;".to_owned(),
        '`' => "'".to_owned(),
        letter if letter.is_control() => " ".to_owned(),
        letter => letter.to_string(),
    };
    content.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choice::tests::{measured, policy};
    use crate::{DecidedData, DecidedModel, Hardware, MeasuringBinary, SCHEMA, choose};

    fn record() -> DecisionRecord {
        let candidates = vec![
            measured("f32", (0.867, 0.0, 20.0, 100.0)),
            measured("int8", (0.8665, 0.003, 8.0, 250.0)),
            measured("q4k", (0.85, 0.03, 9.0, 500.0)),
        ];
        DecisionRecord {
            schema: SCHEMA,
            made_at: "2026-11-28T16:00:00Z".parse().expect("a time"),
            model: DecidedModel {
                name: "mini|lm".to_owned(),
                parameters: 22_000_000,
                weights: "ab".repeat(32),
                processing: "cd".repeat(32),
            },
            data: DecidedData { file: "pairs.csv".to_owned(), digest: "ef".repeat(32), examples: 1500 },
            binary: MeasuringBinary { version: "0.1.0".to_owned(), digest: "01".repeat(32) },
            hardware: Hardware {
                processor: "EPYC".to_owned(),
                cpu_threads: 2,
                instructions: vec!["avx2".to_owned()],
                devices: Vec::new(),
            },
            policy: policy(),
            seed: 0,
            candidates: choose(&policy(), candidates),
        }
    }

    #[test]
    fn the_page_begins_with_the_decision_and_the_money() {
        let page = markdown(&record(), "decision.svg");
        let mut paragraphs = page.split("\n\n");
        assert_eq!(paragraphs.next(), Some("# mini\\|lm: int8 on cpu"));
        assert_eq!(
            paragraphs.next(),
            Some(
                "**Serve mini\\|lm in int8 on cpu, in batches of up to 32, until 2027-06-30.**\nA million requests then cost 0.400 \
                 instead of 1.00 (60 % less), and at most 0.0030 of the agreement with human scores (Spearman) is lost, of \
                 0.8670 with the reference (f32 on cpu); 0.0050 is allowed.\n99 of 100 lone requests take at most 8.00 ms; the \
                 policy asks for 50.0 ms."
            )
        );
    }

    #[test]
    fn the_page_says_who_answers_for_it_until_when_and_why_others_lost() {
        let page = markdown(&record(), "decision.svg");
        for words in [
            "- search runs the model",
            "- cto@example.com approves it",
            "ends with 2027-06-30",
            "| q4k on cpu ◆ | refused | 0.8500 |",
            "- **q4k on cpu** (refused): loses too much accuracy",
            "0.36 an hour of cpu",
            "`pairs.csv`, 1500 examples",
            "![Accuracy against cost of each candidate](decision.svg)",
        ] {
            assert!(page.contains(words), "{words}: {page}");
        }
    }

    #[test]
    fn every_row_of_a_table_has_as_many_cells_as_its_header() {
        for table in markdown(&record(), "decision.svg").split("\n\n").filter(|part| part.starts_with('|')) {
            let cells = |row: &str| row.replace("\\|", "").matches('|').count();
            let header = table.lines().next().map(cells);
            assert!(table.lines().all(|row| Some(cells(row)) == header), "{table}");
        }
    }

    #[test]
    fn figures_have_three_digits_that_count() {
        let table =
            [(0.012_34, "0.0123"), (4.5, "4.50"), (0.0, "0"), (1234.5, "1234"), (99.96, "100.0"), (-2.0, "-2.00")];
        for (value, expected) in table {
            assert_eq!(figure(value), expected);
        }
        assert_eq!([money(12.345), money(0.012_34)], ["12.35", "0.0123"]);
    }
}

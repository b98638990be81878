//! Labelled examples: the inputs of a table, and what people say about them. The task follows from the columns and from the
//! model.

use sconce::decide::Metric;
use sconce::models::{Array, ParseError};
use sconce::{Input, InputKind, Signature, Task};

use super::columns::{ColumnArg, ColumnRole, RoleColumns};
use super::error::DataError;
use crate::inputs::{DataRow, DataTable, DataValue};

/// Examples of one task.
#[derive(Debug)]
pub(crate) struct Examples {
    /// All inputs, in the order in which the model is asked.
    pub(crate) inputs: Vec<ExampleInput>,
    pub(crate) truth: Truth,
}

/// An input and its part in a search, by which models choose a prompt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ExampleInput {
    pub(crate) input: Input,
    pub(crate) part: SearchPart,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SearchPart {
    Query,
    Passage,
    Neither,
}

/// The judgements of people on the inputs.
#[derive(Debug, PartialEq)]
pub(crate) enum Truth {
    /// How alike pairs are. An embedder has two inputs for each, a reranker one.
    Pairs { human: Vec<f64>, inputs_each: usize },
    /// Queries with their passages.
    Rankings(Vec<RankedQuery>),
    /// The number of the right label of each input.
    Labels(Vec<usize>),
    /// Nothing: answers are compared with the reference's.
    Nothing,
}

/// A query with its passages.
#[derive(Debug, PartialEq)]
pub(crate) struct RankedQuery {
    /// Index of the query's input; `None` for a reranker, whose inputs hold the query.
    pub(crate) query: Option<usize>,
    /// Index of the first passage's input; the others follow.
    pub(crate) passages: usize,
    pub(crate) relevance: Vec<f64>,
}

impl Examples {
    /// Takes the examples of a table for a model.
    pub(crate) fn of(
        table: &DataTable,
        named: &[ColumnArg],
        signature: &Signature,
        file: &str,
    ) -> Result<Self, DataError> {
        let columns = RoleColumns::find(table, named)?;
        let reader = ExampleReader { file, columns, names: &table.columns, kind: &signature.input.kind };
        let has = |role| columns.of(role).is_some();
        let ranks = has(ColumnRole::Query) && has(ColumnRole::Passage) && has(ColumnRole::Label);
        let pairs = has(ColumnRole::Input) && has(ColumnRole::Second) && has(ColumnRole::Score);
        match &signature.task {
            Task::Embedding { .. } | Task::SparseEmbedding { .. } if ranks => reader.rankings(&table.rows, false),
            Task::Score if ranks => reader.rankings(&table.rows, true),
            Task::Embedding { .. } | Task::SparseEmbedding { .. } if pairs => reader.pairs(&table.rows, false),
            Task::Score if pairs => reader.pairs(&table.rows, true),
            Task::Classification { labels } if has(ColumnRole::Input) && has(ColumnRole::Label) => {
                reader.labelled(&table.rows, labels)
            }
            Task::Score => Err(reader.unsuited("query, passage and label, or input, second and score")),
            _ if has(ColumnRole::Input) => reader.unlabelled(&table.rows),
            Task::Embedding { .. } | Task::SparseEmbedding { .. } => {
                Err(reader
                    .unsuited("input; for a metric of its own also second and score, or query, passage and label"))
            }
            _ => Err(reader.unsuited("input, and label for a metric of its own")),
        }
    }

    /// Number of examples: queries, pairs or inputs.
    pub(crate) fn count(&self) -> usize {
        match &self.truth {
            Truth::Pairs { human, .. } => human.len(),
            Truth::Rankings(queries) => queries.len(),
            Truth::Labels(labels) => labels.len(),
            Truth::Nothing => self.inputs.len(),
        }
    }

    /// The metrics that a model of this task has on the examples.
    pub(crate) fn metrics(&self, task: &Task) -> Vec<Metric> {
        let embeds = !matches!(task, Task::Score | Task::Classification { .. } | Task::TokenClassification { .. });
        let mut metrics = match self.truth {
            Truth::Pairs { .. } => vec![Metric::Spearman],
            Truth::Rankings(_) => vec![Metric::Map, Metric::Mrr, Metric::Ndcg, Metric::Agreement],
            Truth::Labels(_) => vec![Metric::Accuracy, Metric::MacroF1, Metric::Agreement],
            Truth::Nothing if embeds => Vec::new(),
            Truth::Nothing => vec![Metric::Agreement],
        };
        if embeds {
            metrics.push(Metric::Cosine);
        }
        metrics
    }
}

/// Reads the values of rows by their roles.
struct ExampleReader<'a> {
    file: &'a str,
    columns: RoleColumns,
    names: &'a [String],
    kind: &'a InputKind,
}

impl ExampleReader<'_> {
    fn pairs(&self, rows: &[DataRow], together: bool) -> Result<Examples, DataError> {
        let (mut inputs, mut human) = (Vec::new(), Vec::new());
        for row in rows {
            let texts = [self.text(row, ColumnRole::Input)?, self.text(row, ColumnRole::Second)?];
            human.push(self.number(row, ColumnRole::Score)?);
            inputs.extend(ExampleInput::pair(texts, together));
        }
        let inputs_each = if together { 1 } else { 2 };
        self.varied(&human, ColumnRole::Score)?;
        Ok(Examples { inputs, truth: Truth::Pairs { human, inputs_each } })
    }

    /// Gathers the rows of each query. Queries whose passages are all relevant, or none, say nothing about a ranking and are
    /// left out, as is usual.
    fn rankings(&self, rows: &[DataRow], together: bool) -> Result<Examples, DataError> {
        let mut queries: Vec<(&str, Vec<(&str, f64)>)> = Vec::new();
        let mut places = std::collections::HashMap::new();
        for row in rows {
            let (query, passage) = (self.text(row, ColumnRole::Query)?, self.text(row, ColumnRole::Passage)?);
            let place = *places.entry(query).or_insert_with(|| {
                queries.push((query, Vec::new()));
                queries.len() - 1
            });
            queries[place].1.push((passage, self.relevance(row)?));
        }
        let (mut inputs, mut ranked) = (Vec::new(), Vec::new());
        for (query, passages) in queries {
            let relevant = passages.iter().filter(|(_, relevance)| *relevance > 0.0).count();
            if relevant == 0 || relevant == passages.len() {
                continue;
            }
            let of_query = (!together).then_some(inputs.len());
            if !together {
                inputs.push(ExampleInput { input: query.into(), part: SearchPart::Query });
            }
            let relevance = passages.iter().map(|(_, relevance)| *relevance).collect();
            ranked.push(RankedQuery { query: of_query, passages: inputs.len(), relevance });
            inputs.extend(passages.into_iter().map(|(passage, _)| {
                if together {
                    ExampleInput { input: (query, passage).into(), part: SearchPart::Neither }
                } else {
                    ExampleInput { input: passage.into(), part: SearchPart::Passage }
                }
            }));
        }
        if ranked.is_empty() {
            return Err(DataError::NothingToRank { file: self.file.to_owned() });
        }
        Ok(Examples { inputs, truth: Truth::Rankings(ranked) })
    }

    fn labelled(&self, rows: &[DataRow], labels: &[String]) -> Result<Examples, DataError> {
        let mut right = Vec::new();
        for row in rows {
            let value = self.value(row, ColumnRole::Label);
            let label = value.text().and_then(|text| number_of(text.trim(), labels));
            right.push(label.ok_or_else(|| self.wrong(row, ColumnRole::Label, allowed_labels(labels)))?);
        }
        Ok(Examples { truth: Truth::Labels(right), ..self.unlabelled(rows)? })
    }

    /// One input for each row: a pair if there is a second text and the model reads pairs.
    fn unlabelled(&self, rows: &[DataRow]) -> Result<Examples, DataError> {
        let reads_pairs = matches!(self.kind, InputKind::Pair { .. } | InputKind::TextOrPair { .. });
        let second = reads_pairs && self.columns.of(ColumnRole::Second).is_some();
        let input = |row| -> Result<ExampleInput, DataError> {
            let input = if second {
                (self.text(row, ColumnRole::Input)?, self.text(row, ColumnRole::Second)?).into()
            } else {
                self.input(row)?
            };
            Ok(ExampleInput { input, part: SearchPart::Neither })
        };
        Ok(Examples { inputs: rows.iter().map(input).collect::<Result<_, _>>()?, truth: Truth::Nothing })
    }

    /// The value of a role whose column was found.
    fn value<'row>(&self, row: &'row DataRow, role: ColumnRole) -> &'row DataValue {
        let place = self.columns.of(role).expect("the task was chosen by the columns there are");
        &row.values[place]
    }

    fn text<'row>(&self, row: &'row DataRow, role: ColumnRole) -> Result<&'row str, DataError> {
        let text = self.value(row, role).text().filter(|text| !text.trim().is_empty());
        text.ok_or_else(|| self.wrong(row, role, "a text".to_owned()))
    }

    fn number(&self, row: &DataRow, role: ColumnRole) -> Result<f64, DataError> {
        let number = self.value(row, role).text().and_then(|text| text.trim().parse::<f64>().ok());
        number.filter(|number| number.is_finite()).ok_or_else(|| self.wrong(row, role, "a number".to_owned()))
    }

    /// The relevance of a passage: a number, or true or false.
    fn relevance(&self, row: &DataRow) -> Result<f64, DataError> {
        match self.value(row, ColumnRole::Label).text().map(str::trim) {
            Some("true" | "True") => Ok(1.0),
            Some("false" | "False") => Ok(0.0),
            _ => self.number(row, ColumnRole::Label).map_err(|_| {
                self.wrong(row, ColumnRole::Label, "a number (0: not relevant), true or false".to_owned())
            }),
        }
    }

    fn input(&self, row: &DataRow) -> Result<Input, DataError> {
        match (self.value(row, ColumnRole::Input), self.kind) {
            (DataValue::Array(array), InputKind::Image { shape }) => Ok(Input::Array(in_shape(array.clone(), shape))),
            (DataValue::Bytes(bytes), kind) if !bytes.is_empty() => kind
                .parse(bytes.clone())
                .map_err(|cause: ParseError| self.wrong(row, ColumnRole::Input, format!("{}: {cause}", self.kind))),
            _ => Err(self.wrong(row, ColumnRole::Input, self.kind.to_string())),
        }
    }

    /// Refuses values that are all equal.
    fn varied(&self, values: &[f64], role: ColumnRole) -> Result<(), DataError> {
        if values.windows(2).any(|pair| pair[0].total_cmp(&pair[1]).is_ne()) {
            return Ok(());
        }
        Err(DataError::AllEqual { file: self.file.to_owned(), column: self.name(role) })
    }

    fn name(&self, role: ColumnRole) -> String {
        self.columns.of(role).and_then(|place| self.names.get(place)).cloned().unwrap_or_default()
    }

    fn wrong(&self, row: &DataRow, role: ColumnRole, allowed: String) -> DataError {
        let got = self.value(row, role).described();
        DataError::WrongValue { file: self.file.to_owned(), line: row.line, column: self.name(role), got, allowed }
    }

    fn unsuited(&self, wanted: &'static str) -> DataError {
        let found = ColumnRole::ALL.into_iter().filter(|role| self.columns.of(*role).is_some());
        let found = found.map(|role| format!("{role} ({})", self.name(role))).collect();
        DataError::Unsuited { file: self.file.to_owned(), wanted, found, known: self.names.to_vec() }
    }
}

impl ExampleInput {
    /// Two texts as one input, or as two.
    fn pair([first, second]: [&str; 2], together: bool) -> Vec<Self> {
        let of = |input| Self { input, part: SearchPart::Neither };
        if together { vec![of((first, second).into())] } else { vec![of(first.into()), of(second.into())] }
    }
}

/// The number of a label: by its name, else as a number.
fn number_of(label: &str, labels: &[String]) -> Option<usize> {
    let by_name = labels.iter().position(|name| name == label);
    let by_name = by_name.or_else(|| labels.iter().position(|name| name.eq_ignore_ascii_case(label)));
    by_name.or_else(|| label.parse().ok().filter(|number| *number < labels.len()))
}

fn allowed_labels(labels: &[String]) -> String {
    const SHOWN: usize = 12;
    let mut names = labels.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if labels.len() > SHOWN {
        names.push_str(", …");
    }
    format!("a label of the model ({names}) or its number from 0 to {}", labels.len() - 1)
}

/// The array in the model's shape, if only dimensions of 1 differ.
fn in_shape(array: Array, shape: &[usize; 3]) -> Array {
    let without_ones = |shape: &[usize]| shape.iter().copied().filter(|&size| size != 1).collect::<Vec<_>>();
    if without_ones(&array.shape) == without_ones(shape) { Array { shape: shape.to_vec(), ..array } } else { array }
}

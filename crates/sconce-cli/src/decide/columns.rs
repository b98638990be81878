//! The columns of a table by their part in a comparison: by their usual names, or as `--column` says.

use std::fmt;
use std::str::FromStr;

use super::error::DataError;
use crate::inputs::DataTable;

/// The part of a column in a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ColumnRole {
    /// A text, an image or other content that the model reads.
    Input,
    /// The second text of a pair.
    Second,
    /// How alike people find a pair.
    Score,
    /// The right label, or the relevance of a passage.
    Label,
    /// A question.
    Query,
    /// A passage that may answer it.
    Passage,
}

/// `--column ROLE=NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnArg {
    pub(crate) role: ColumnRole,
    pub(crate) name: String,
}

/// Places of the columns of a table, by role.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RoleColumns {
    places: [Option<usize>; ColumnRole::ALL.len()],
}

impl ColumnRole {
    pub(crate) const ALL: [Self; 6] = [Self::Input, Self::Second, Self::Score, Self::Label, Self::Query, Self::Passage];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Second => "second",
            Self::Score => "score",
            Self::Label => "label",
            Self::Query => "query",
            Self::Passage => "passage",
        }
    }

    /// Usual names, the most usual first.
    fn usual_names(self) -> &'static [&'static str] {
        match self {
            Self::Input => &[
                "text",
                "sentence",
                "sentence1",
                "text1",
                "text_a",
                "premise",
                "input",
                "content",
                "review",
                "image",
                "images",
                "pixels",
            ],
            Self::Second => &["sentence2", "text2", "text_b", "text_pair", "hypothesis"],
            Self::Score => &["score", "similarity", "similarity_score"],
            Self::Label => &["label", "labels", "class", "category", "target", "relevance", "relevant"],
            Self::Query => &["query", "question", "qtext"],
            Self::Passage => &["passage", "answer", "document", "atext"],
        }
    }
}

impl fmt::Display for ColumnRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ColumnArg {
    type Err = String;

    fn from_str(arg: &str) -> Result<Self, String> {
        let roles = || ColumnRole::ALL.map(ColumnRole::name).join(", ");
        let (role, name) = arg.split_once('=').ok_or_else(|| format!("give ROLE=NAME with a role of: {}", roles()))?;
        let found = ColumnRole::ALL.into_iter().find(|known| known.name() == role);
        let role = found.ok_or_else(|| format!("'{role}' is no role of a column; roles are: {}", roles()))?;
        Ok(Self { role, name: name.to_owned() })
    }
}

impl RoleColumns {
    /// Finds the columns of a table.
    pub(crate) fn find(table: &DataTable, named: &[ColumnArg]) -> Result<Self, DataError> {
        let mut found = Self::default();
        for role in ColumnRole::ALL {
            let mut given = named.iter().filter(|arg| arg.role == role);
            let place = |name: &str| table.columns.iter().position(|column| column.eq_ignore_ascii_case(name));
            found.places[role as usize] = match (given.next(), given.next()) {
                (Some(first), Some(second)) => {
                    return Err(DataError::RoleTwice { role, first: first.name.clone(), second: second.name.clone() });
                }
                (Some(ColumnArg { name, .. }), None) => Some(place(name).ok_or_else(|| DataError::NoColumn {
                    role,
                    name: name.clone(),
                    known: table.columns.clone(),
                })?),
                (None, _) => role.usual_names().iter().find_map(|name| place(name)),
            };
        }
        Ok(found)
    }

    pub(crate) fn of(&self, role: ColumnRole) -> Option<usize> {
        self.places[role as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[&str]) -> DataTable {
        DataTable { columns: columns.iter().map(|&name| name.to_owned()).collect(), rows: Vec::new() }
    }

    #[test]
    fn columns_are_found_by_their_usual_names_or_as_they_are_named() {
        let trec = RoleColumns::find(&table(&["qtext", "Label", "atext"]), &[]).unwrap();
        let places = ColumnRole::ALL.map(|role| trec.of(role));
        assert_eq!(places, [None, None, None, Some(1), Some(0), Some(2)]);
        let named = ["input=body", "label=stars"].map(|arg| arg.parse().unwrap());
        let found = RoleColumns::find(&table(&["text", "body", "stars"]), &named).unwrap();
        assert_eq!((found.of(ColumnRole::Input), found.of(ColumnRole::Label)), (Some(1), Some(2)));
    }

    #[test]
    fn a_wrong_column_is_refused_with_those_there_are() {
        let of = |args: &[&str]| {
            let args: Vec<ColumnArg> = args.iter().map(|arg| arg.parse().unwrap()).collect();
            RoleColumns::find(&table(&["a", "b"]), &args).unwrap_err().to_string()
        };
        assert_eq!(of(&["input=text"]), "--column input=text: there is no such column; there are: a, b");
        assert_eq!(of(&["input=a", "input=b"]), "--column input is given twice: a and b; give it once");
        let error = "texts=a".parse::<ColumnArg>().unwrap_err();
        assert_eq!(error, "'texts' is no role of a column; roles are: input, second, score, label, query, passage");
        assert!("a".parse::<ColumnArg>().unwrap_err().starts_with("give ROLE=NAME"));
    }
}

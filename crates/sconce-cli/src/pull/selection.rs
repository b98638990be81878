//! The files that a model needs, chosen by rules from all that its repository has.
//!
//! The rules follow what `sconce-models` reads. Small files come first and name others: `modules.json` names folders, an
//! index names the parts of the weights.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::PullError;

const CONFIG: &str = "config.json";
const MODULES: &str = "modules.json";
const WHOLE: &str = "config_sentence_transformers.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const POOLING: &str = "1_Pooling";
/// Names of Magika's labels.
const CONTENT_TYPES: &str = "content_types_kb.min.json";

/// A file of weights, or an index of several, the preferred one first.
const WEIGHTS: [(&str, bool); 4] = [
    ("model.safetensors", false),
    ("model.safetensors.index.json", true),
    ("pytorch_model.bin", false),
    ("pytorch_model.bin.index.json", true),
];
/// Vocabularies that are read where there is no `tokenizer.json`.
const VOCABULARY: [&str; 4] = ["vocab.txt", "vocab.json", "merges.txt", "added_tokens.json"];
/// Vocabularies that are not read.
const SENTENCE_PIECE: [&str; 4] = ["sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "spm.model"];
/// Files about a model, by their names without extension.
const NOTICES: [&str; 5] = ["README", "LICENSE", "LICENCE", "COPYING", "NOTICE"];

/// A place that has files of a repository: the hub, or the local cache.
pub(super) trait Shelf {
    /// Names of the files, relative to the top of the repository.
    fn names(&self) -> &BTreeSet<String>;

    /// True if the repository is known to have no such file. A cache may only never have been asked for it.
    fn is_absent(&self, name: &str) -> bool;

    /// The path of a file on this machine; the hub downloads it.
    fn file(&self, name: &str) -> Result<PathBuf, PullError>;
}

/// The names of a model's files, relative to its directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) settings: BTreeSet<String>,
    pub(super) weights: BTreeSet<String>,
}

/// A file that a model needs, and that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lack {
    Config {
        file: String,
    },
    Weights {
        folder: String,
    },
    Tokenizer {
        folder: String,
    },
    /// Named by a file that is there.
    Named {
        file: String,
        by: String,
    },
    /// The cache does not tell if the repository has it.
    Unknown {
        file: String,
        without: &'static str,
    },
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { file } => write!(f, "no {file}, which says of what kind the model is"),
            Self::Weights { folder } => write!(
                f,
                "no {folder}model.safetensors and no {folder}pytorch_model.bin, neither whole nor in parts with an index"
            ),
            Self::Tokenizer { folder } => {
                write!(f, "no {folder}tokenizer.json, vocab.txt, or vocab.json with merges.txt")
            }
            Self::Named { file, by } => write!(f, "no {file}, which {by} names"),
            Self::Unknown { file, without } => write!(f, "no {file}; if the repository has none, {without}"),
        }
    }
}

impl Lack {
    /// A way to get the model all the same.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::Weights { .. } => {
                "transformers writes model.safetensors: AutoModel.from_pretrained(\"ORG/NAME\").save_pretrained(\"DIR\")"
            }
            Self::Tokenizer { .. } => {
                "transformers writes tokenizer.json: AutoTokenizer.from_pretrained(\"ORG/NAME\").save_pretrained(\"DIR\")"
            }
            _ => "the repository is not whole: try another --revision, or tell its authors",
        }
    }
}

/// The reason why no files could be chosen.
#[derive(Debug)]
pub(super) enum SelectError {
    Lack(Lack),
    Pull(PullError),
}

impl From<Lack> for SelectError {
    fn from(lack: Lack) -> Self {
        Self::Lack(lack)
    }
}

impl From<PullError> for SelectError {
    fn from(error: PullError) -> Self {
        Self::Pull(error)
    }
}

/// Chooses the files of the model on `shelf`.
pub(super) fn select(shelf: &impl Shelf) -> Result<Selection, SelectError> {
    let mut selector = Selector { shelf, selection: Selection::default() };
    selector.top();
    let modules = selector.modules()?;
    let encoder = modules.first().map(ModuleEntry::encoder_folder).transpose()?.unwrap_or_default();
    let is_of_texts = selector.encoder(&encoder)?;
    if selector.has(MODULES) {
        selector.optional(WHOLE, "texts have no prompts")?;
    } else if is_of_texts && selector.pools(&encoder)? {
        selector.optional(MODULES, "pooling is the mean")?;
        selector.take(&format!("{POOLING}/{CONFIG}"));
    }
    for module in &modules {
        selector.module(module, &encoder)?;
    }
    Ok(selector.selection)
}

struct Selector<'a, S> {
    shelf: &'a S,
    selection: Selection,
}

impl<S: Shelf> Selector<'_, S> {
    fn has(&self, name: &str) -> bool {
        self.shelf.names().contains(name)
    }

    /// Takes a file if it is there.
    fn take(&mut self, name: &str) -> bool {
        let is_there = self.has(name);
        if is_there {
            self.selection.settings.insert(name.to_owned());
        }
        is_there
    }

    /// Takes a file that may be absent from the repository, but must not be missed.
    fn optional(&mut self, name: &str, without: &'static str) -> Result<(), Lack> {
        if self.take(name) || self.shelf.is_absent(name) {
            return Ok(());
        }
        Err(Lack::Unknown { file: name.to_owned(), without })
    }

    /// Takes the files that describe the whole model.
    fn top(&mut self) {
        let is_notice = |name: &&String| {
            let stem = name.split('.').next().unwrap_or_default();
            !name.contains('/') && NOTICES.iter().any(|notice| stem.eq_ignore_ascii_case(notice))
        };
        let notices = self.shelf.names().iter().filter(is_notice).cloned();
        self.selection.settings.extend(notices);
        for name in ["sconce.toml", CONTENT_TYPES, MODULES, WHOLE] {
            self.take(name);
        }
    }

    fn modules(&self) -> Result<Vec<ModuleEntry>, SelectError> {
        if self.has(MODULES) { Ok(self.json(MODULES)?) } else { Ok(Vec::new()) }
    }

    /// Takes the encoder's settings, tokenizer and weights. Returns true if it has a tokenizer.
    fn encoder(&mut self, folder: &str) -> Result<bool, SelectError> {
        let config = format!("{folder}{CONFIG}");
        if !self.take(&config) {
            return Err(Lack::Config { file: config }.into());
        }
        let is_setting = |name: &&String| {
            let own = name.strip_prefix(folder);
            own.is_some_and(|own| own.starts_with("sentence_") && own.ends_with("_config.json") && !own.contains('/'))
        };
        let settings = self.shelf.names().iter().filter(is_setting).cloned();
        self.selection.settings.extend(settings);
        let is_of_texts = self.tokenizer(folder)?;
        self.weights(folder)?;
        Ok(is_of_texts)
    }

    /// Takes the tokenizer, and returns true if there is one.
    fn tokenizer(&mut self, folder: &str) -> Result<bool, Lack> {
        let own = |name: &str| format!("{folder}{name}");
        let is_whole = self.take(&own(TOKENIZER));
        let has_pieces = self.has(&own("vocab.json")) && self.has(&own("merges.txt"));
        if !is_whole {
            for name in VOCABULARY {
                self.take(&own(name));
            }
        }
        self.take(&own("special_tokens_map.json"));
        if is_whole || has_pieces || self.has(&own("vocab.txt")) {
            self.optional(&own(TOKENIZER_CONFIG), "limit and casing are those of the other files")?;
            return Ok(true);
        }
        // A model of texts has one of these; others have no tokenizer at all.
        let is_of_texts = self.take(&own(TOKENIZER_CONFIG)) || SENTENCE_PIECE.iter().any(|name| self.has(&own(name)));
        if is_of_texts || !self.shelf.is_absent(&own(TOKENIZER)) {
            return Err(Lack::Tokenizer { folder: folder.to_owned() });
        }
        Ok(false)
    }

    /// Takes the weights of one folder: a file, or an index and all files that it names.
    fn weights(&mut self, folder: &str) -> Result<(), SelectError> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let mut candidates = WEIGHTS.iter().map(|(name, is_index)| (format!("{folder}{name}"), *is_index));
        let Some((name, is_index)) = candidates.find(|(name, _)| self.has(name)) else {
            return Err(Lack::Weights { folder: folder.to_owned() }.into());
        };
        if !is_index {
            self.selection.weights.insert(name);
            return Ok(());
        }
        let Index { weight_map } = self.json(&name)?;
        for part in weight_map.values() {
            let file = format!("{folder}{part}");
            if part.contains(['/', '\\']) || !self.has(&file) {
                return Err(Lack::Named { file, by: name }.into());
            }
            self.selection.weights.insert(file);
        }
        self.selection.settings.insert(name);
        Ok(())
    }

    /// Takes the files of a module other than the encoder.
    fn module(&mut self, module: &ModuleEntry, encoder: &str) -> Result<(), SelectError> {
        let folder = module.folder()?;
        if folder == encoder {
            return Ok(());
        }
        let config = format!("{folder}{CONFIG}");
        let named = Lack::Named { file: config.clone(), by: MODULES.to_owned() };
        match module.kind() {
            "Dense" => {
                if !self.take(&config) {
                    return Err(named.into());
                }
                self.weights(&folder)?;
            }
            "Pooling" => {
                if !self.take(&config) && !self.shelf.is_absent(&config) {
                    return Err(named.into());
                }
            }
            _ => {
                self.take(&config);
            }
        }
        Ok(())
    }

    /// True unless the model is a classifier. One whose configuration cannot be read is refused later, by its family.
    fn pools(&self, folder: &str) -> Result<bool, PullError> {
        let config: Value = match self.json(&format!("{folder}{CONFIG}")) {
            Err(PullError::Broken { .. }) => Value::Null,
            config => config?,
        };
        let architecture = config["architectures"][0].as_str();
        Ok(architecture.is_none_or(|architecture| !architecture.ends_with("Classification")))
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, PullError> {
        let path = self.shelf.file(name)?;
        let bytes = fs::read(&path).map_err(PullError::file(&path))?;
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        serde_json::from_slice(bytes)
            .map_err(|cause| PullError::Broken { file: name.to_owned(), message: cause.to_string() })
    }
}

/// An entry of `modules.json`.
#[derive(Deserialize)]
struct ModuleEntry {
    r#type: String,
    path: Option<String>,
}

impl ModuleEntry {
    /// The class, without the Python modules that it lies in.
    fn kind(&self) -> &str {
        self.r#type.rsplit('.').next().unwrap_or_default()
    }

    /// The folder of the first module, which must be an encoder.
    fn encoder_folder(&self) -> Result<String, PullError> {
        if self.kind() == "Transformer" {
            return self.folder();
        }
        let message = format!("its first module is of type '{}'; known is: Transformer", self.kind().escape_debug());
        Err(PullError::Broken { file: MODULES.to_owned(), message })
    }

    /// The folder of its files: empty, or ending with `/`.
    fn folder(&self) -> Result<String, PullError> {
        let path = self.path.as_deref().unwrap_or_default().trim_end_matches('/');
        let is_below = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', ':']);
        if path.is_empty() {
            return Ok(String::new());
        }
        if path.split('/').all(is_below) {
            return Ok(format!("{path}/"));
        }
        let message = format!("field 'path' is '{}'; it must be a folder of the repository", path.escape_debug());
        Err(PullError::Broken { file: MODULES.to_owned(), message })
    }
}

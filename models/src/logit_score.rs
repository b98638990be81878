//! Rerankers that are language models: those that sentence-transformers saves as a `Transformer` and a `LogitScore`, and those
//! that their publisher describes in words alone.

use serde::Deserialize;

use crate::sentence_transformers::{MODULES, Module};
use crate::text::YesNoTemplate;
use crate::{LoadError, ModelDirectory, VectorTask, excerpt};

/// The tokens whose logits are compared, as the configuration of the module `LogitScore` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct LogitScore {
    /// The token of a document that fits.
    pub(crate) true_token_id: u32,
    /// The token of one that does not; `None`: the score is the first token's logit.
    pub(crate) false_token_id: Option<u32>,
}

/// The way in which a directory says that its language model is a reranker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeclaredReranker {
    /// By a module, which names the tokens.
    Module(LogitScore),
    /// By `sconce.toml`, the front matter of `README.md`, or its own name.
    Named,
}

impl DeclaredReranker {
    /// Reads the files that can say so. `asked` is the task of `sconce.toml`.
    ///
    /// # Errors
    /// [`LoadError`] if a file is not valid, or the chat template beside a module is another than `template`.
    pub(crate) fn read(
        directory: &ModelDirectory,
        asked: Option<VectorTask>,
        template: &YesNoTemplate,
    ) -> Result<Option<Self>, LoadError> {
        let top = directory.top();
        if asked.is_some_and(|task| task != VectorTask::Score) {
            return Ok(None);
        }
        if top.contains(MODULES) {
            let modules: Vec<Module> = top.json(MODULES)?;
            if let [first, second] = &modules[..]
                && (first.kind(), second.kind()) == ("Transformer", "LogitScore")
            {
                let folder = second.folder().map_err(|message| top.invalid(MODULES, message))?;
                check_template(directory, template)?;
                return Ok(Some(Self::Module(top.within(&folder).json("config.json")?)));
            }
        }
        let is_named = asked.is_some() || !top.contains(MODULES) && (is_named_so(&top) || is_tagged_so(&top)?);
        Ok(is_named.then_some(Self::Named))
    }
}

/// True if the directory's name says that it is a reranker.
fn is_named_so(top: &ModelDirectory) -> bool {
    let name = top.path().file_name().unwrap_or_default().to_string_lossy();
    name.to_ascii_lowercase().contains("reranker")
}

/// True if the front matter of `README.md` has the hub's tag of rerankers.
fn is_tagged_so(top: &ModelDirectory) -> Result<bool, LoadError> {
    const README: &str = "README.md";
    if !top.contains(README) {
        return Ok(false);
    }
    let readme = top.read(README)?;
    let readme = String::from_utf8_lossy(&readme);
    let mut lines = readme.trim_start_matches('\u{feff}').lines().map(str::trim_end);
    let is_tag = |line: &str| {
        let value = line.strip_prefix("pipeline_tag:").map(|value| value.trim().trim_matches(['"', '\'']));
        value == Some("text-ranking")
    };
    Ok(lines.next() == Some("---") && lines.take_while(|line| *line != "---").any(is_tag))
}

/// Refuses a chat template that lacks a part of the one that is known. The template is a program, which is not run.
fn check_template(directory: &ModelDirectory, template: &YesNoTemplate) -> Result<(), LoadError> {
    #[derive(Deserialize)]
    struct Settings {
        chat_template: Option<String>,
    }
    const FILE: &str = "chat_template.jinja";
    const SETTINGS: &str = "tokenizer_config.json";
    let (file, given) = if directory.contains(FILE) {
        (FILE, Some(String::from_utf8_lossy(&directory.read(FILE)?).into_owned()))
    } else if directory.contains(SETTINGS) {
        (SETTINGS, directory.json::<Settings>(SETTINGS)?.chat_template)
    } else {
        (SETTINGS, None)
    };
    let Some(given) = given else {
        return Err(directory.invalid(file, "there is no chat template, which the reranker needs"));
    };
    // A program writes a line end and a quotation mark as they are, or with a backslash.
    let given = given.replace("\\n", "\n").replace("\\\"", "\"");
    let YesNoTemplate { before, parts, after, instruction } = template;
    let lines = [*before, *after, *instruction].into_iter().chain(*parts).flat_map(str::lines).map(str::trim);
    match lines.filter(|line| !line.is_empty()).find(|line| !given.contains(line)) {
        None => Ok(()),
        Some(line) => {
            let message = format!("the chat template lacks '{}' of the one that is known", excerpt(&line));
            Err(directory.invalid(file, message))
        }
    }
}

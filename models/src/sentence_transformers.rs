//! The files of sentence-transformers: the modules after the encoder, the limit of tokens, casing and prompts.

use std::collections::BTreeMap;

use sconce_kernels::bias_gelu::GeluForm;
use sconce_kernels::encoder::{HeadFunction, HeadStep};
use sconce_kernels::pooling::Pooling;
use serde::Deserialize;
use serde_json::Value;

use crate::{LoadError, ModelDirectory, TextRules, VectorTask, excerpt};

/// The settings in these files; `None` or empty for each that is missing.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct SentenceTransformer {
    /// The poolings whose results are joined, in this order; empty if the files name none.
    pub(crate) poolings: Vec<Pooling>,
    /// False if the tokens of a prompt are left out of the pooling.
    pub(crate) leaves_out_prompt: bool,
    /// Products after the pooling, in this order.
    pub(crate) dense: Vec<DenseModule>,
    /// True if the last module scales embeddings to length 1; `None` without `modules.json`.
    pub(crate) normalize: Option<bool>,
    /// Most tokens of a text.
    pub(crate) max_tokens: Option<usize>,
    /// True if texts are put into lower case before they are tokenised.
    pub(crate) lowercase: bool,
    /// The vectors that the modules give.
    pub(crate) task: VectorTask,
    /// Most elements of a sparse vector that are not 0.
    pub(crate) max_active_dims: Option<usize>,
    /// Settings of models that give a vector of each token which are not served: the first, by name.
    pub(crate) unserved: Option<&'static str>,
    /// Texts that a request can have put before its own, by name.
    pub(crate) prompts: BTreeMap<String, String>,
    /// The name of the prompt for requests that name none.
    pub(crate) default_prompt: Option<String>,
    /// Elements of an embedding that are kept, after the last module.
    pub(crate) truncate_dim: Option<usize>,
    /// The function that compares two embeddings: `cosine`, `dot`, `euclidean` or `manhattan`.
    pub(crate) similarity: Option<String>,
    /// The class of the whole model, such as `SparseEncoder`; `None` stands for `SentenceTransformer`.
    pub(crate) model_type: Option<String>,
}

/// The ways of pooling in the library's order with their names: in `pooling_mode`, and as the end of an old switch.
const POOLINGS: [(Pooling, &str, &str); 6] = [
    (Pooling::Cls, "cls", "cls_token"),
    (Pooling::Max, "max", "max_tokens"),
    (Pooling::Mean, "mean", "mean_tokens"),
    (Pooling::MeanSqrtLength, "mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    (Pooling::WeightedMean, "weightedmean", "weightedmean_tokens"),
    (Pooling::Last, "lasttoken", "lasttoken"),
];

fn pooling_named(name: &str) -> Result<Pooling, String> {
    let known = || POOLINGS.map(|(_, name, _)| name).join(", ");
    let found = POOLINGS.iter().find(|(_, known, _)| *known == name).map(|(pooling, ..)| *pooling);
    found.ok_or_else(|| format!("field 'pooling_mode' is '{}'; known are: {}", excerpt(name), known()))
}

/// A product with a function after it. Its weights are `linear.weight` (`[outputs, inputs]`) and `linear.bias` of
/// `ModelDirectory::top().within(folder).weights()`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DenseModule {
    /// The folder of its files, below the directory.
    pub(crate) folder: String,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// True if it has a bias.
    pub(crate) bias: bool,
    pub(crate) function: HeadFunction,
}

impl DenseModule {
    pub(crate) fn step(&self) -> HeadStep {
        HeadStep::Product { outputs: self.outputs, bias: self.bias, function: self.function }
    }
}

/// The function of a class in PyTorch, by its Python path.
fn function_of_path(path: &str) -> Result<HeadFunction, String> {
    let class = path.strip_prefix("torch.nn.modules.").or_else(|| path.strip_prefix("torch.nn."));
    match class.and_then(|class| class.rsplit('.').next()) {
        Some("Identity") => Ok(HeadFunction::Identity),
        Some("Tanh") => Ok(HeadFunction::Tanh),
        Some("ReLU") => Ok(HeadFunction::Relu),
        Some("GELU") => Ok(HeadFunction::Gelu(GeluForm::Erf)),
        Some("Sigmoid") => Ok(HeadFunction::Sigmoid),
        Some("SiLU") => Ok(HeadFunction::Silu),
        _ => {
            let known =
                "torch.nn.modules.linear.Identity, torch.nn.modules.activation.{Tanh, ReLU, GELU, Sigmoid, SiLU}";
            Err(format!("field 'activation_function' is '{}'; known are: {known}", excerpt(path)))
        }
    }
}

/// The file that lists the modules.
pub(crate) const MODULES: &str = "modules.json";
const POOLING: &str = "1_Pooling";
const CONFIG: &str = "config.json";
const WHOLE: &str = "config_sentence_transformers.json";
/// The names of the encoder's settings, first the usual one; older versions named them after the encoder.
const ENCODER: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

impl SentenceTransformer {
    /// Reads the files of sentence-transformers in the directory of an encoder.
    ///
    /// # Errors
    /// [`LoadError`] if a file is not valid, or names a module or a setting that is not known.
    pub(crate) fn read(directory: &ModelDirectory) -> Result<Self, LoadError> {
        let top = directory.top();
        let mut all = Self::default();
        all.read_encoder(directory)?;
        all.read_whole(&top)?;
        if top.contains(MODULES) {
            all.read_modules(&top)?;
        } else if top.contains("1_Pooling/config.json") {
            all.read_pooling(&top.within(POOLING))?;
        }
        Ok(all)
    }

    /// As [`read`](Self::read), without the modules.
    pub(crate) fn read_without_modules(directory: &ModelDirectory) -> Result<Self, LoadError> {
        let mut all = Self::default();
        all.read_encoder(directory)?;
        all.read_whole(&directory.top())?;
        Ok(all)
    }

    /// The prompt for requests that name none.
    pub(crate) fn default_prompt_text(&self) -> &str {
        self.default_prompt.as_ref().and_then(|name| self.prompts.get(name)).map_or("", String::as_str)
    }

    /// The rules for preparing texts.
    pub(crate) fn rules(&self) -> TextRules {
        TextRules {
            max_tokens: self.max_tokens,
            lowercase: self.lowercase,
            prompts: self.prompts.clone(),
            default_prompt: self.default_prompt.clone(),
            padding: None,
        }
    }

    /// Refuses settings that no head follows yet.
    ///
    /// # Errors
    /// A message that names the setting.
    pub(crate) fn check_served(&self) -> Result<(), String> {
        if self.leaves_out_prompt && !self.default_prompt_text().is_empty() {
            return Err("the pooling's field 'include_prompt' is false, which is not served with a prompt".to_owned());
        }
        self.check_type(&["SentenceTransformer"])
    }

    /// As [`check_served`](Self::check_served), for sparse vectors.
    pub(crate) fn check_sparse_served(&self) -> Result<(), String> {
        if self.truncate_dim.is_some() {
            return Err(format!("field 'truncate_dim' of {WHOLE} is not served for sparse vectors"));
        }
        self.check_type(&["SparseEncoder", "SentenceTransformer"])
    }

    /// As [`check_served`](Self::check_served), for vectors of tokens. If the operator `asks` for these, they are served
    /// without the steps that the library takes for queries and documents.
    pub(crate) fn check_tokens_served(&self, asks: bool) -> Result<(), String> {
        if self.truncate_dim.is_some() {
            return Err("field 'truncate_dim' is not served for vectors of tokens".to_owned());
        }
        if let Some(setting) = self.unserved.filter(|_| !asks) {
            return Err(format!(
                "{setting} is not served; set task = \"token_embeddings\" in [model] of sconce.toml for the vectors of all \
                 tokens without it"
            ));
        }
        self.check_type(&["ColBERT", "MultiVectorEncoder", "SentenceTransformer"])
    }

    fn check_type(&self, served: &[&str]) -> Result<(), String> {
        match self.model_type.as_deref() {
            None => Ok(()),
            Some(named) if served.contains(&named) => Ok(()),
            Some(other) => Err(format!("field 'model_type' of {WHOLE} is '{}', which is not served", excerpt(other))),
        }
    }

    fn read_encoder(&mut self, directory: &ModelDirectory) -> Result<(), LoadError> {
        #[derive(Deserialize)]
        struct Encoder {
            max_seq_length: Option<usize>,
            do_lower_case: Option<bool>,
            query_expansion: Option<Value>,
            query_length: Option<usize>,
            document_length: Option<usize>,
        }
        if let Some(file) = ENCODER.into_iter().find(|file| directory.contains(file)) {
            let Encoder { max_seq_length, do_lower_case, query_expansion, query_length, document_length } =
                directory.json(file)?;
            if query_expansion.is_some() {
                self.unserved = Some("the expansion of queries ('query_expansion')");
            } else if query_length.or(document_length).is_some() {
                self.unserved = Some("a limit of its own for queries or documents ('query_length', 'document_length')");
            }
            self.max_tokens = max_seq_length;
            self.lowercase = do_lower_case.unwrap_or(false);
        }
        Ok(())
    }

    fn read_whole(&mut self, top: &ModelDirectory) -> Result<(), LoadError> {
        #[derive(Deserialize)]
        struct Whole {
            prompts: Option<BTreeMap<String, Option<String>>>,
            default_prompt_name: Option<String>,
            truncate_dim: Option<usize>,
            similarity_fn_name: Option<String>,
            model_type: Option<String>,
            max_active_dims: Option<usize>,
            query_prefix: Option<String>,
            document_prefix: Option<String>,
            do_query_expansion: Option<bool>,
            skiplist_words: Option<Vec<String>>,
        }
        if !top.contains(WHOLE) {
            return Ok(());
        }
        let whole: Whole = top.json(WHOLE)?;
        let prompts = whole.prompts.unwrap_or_default().into_iter();
        self.prompts = prompts.map(|(name, prompt)| (name, prompt.unwrap_or_default())).collect();
        // Both are there in every model, empty unless it says otherwise.
        for name in ["query", "document"] {
            self.prompts.entry(name.to_owned()).or_default();
        }
        for (name, prefix) in [("query", whole.query_prefix), ("document", whole.document_prefix)] {
            let prompt = self.prompts.get(name).map_or("", String::as_str);
            self.prompts.insert(name.to_owned(), format!("{}{prompt}", prefix.unwrap_or_default()));
        }
        if let Some(name) = &whole.default_prompt_name
            && !self.prompts.contains_key(name)
        {
            let (name, known) = (excerpt(name), self.prompts.keys().cloned().collect::<Vec<_>>().join(", "));
            let message = format!("field 'default_prompt_name' is '{name}', which is not among 'prompts': {known}");
            return Err(top.invalid(WHOLE, message));
        }
        if whole.truncate_dim == Some(0) {
            return Err(top.invalid(WHOLE, "field 'truncate_dim' is 0; it must be at least 1"));
        }
        self.default_prompt = whole.default_prompt_name;
        self.truncate_dim = whole.truncate_dim;
        self.similarity = whole.similarity_fn_name;
        self.model_type = whole.model_type;
        self.max_active_dims = whole.max_active_dims;
        if self.is_pylate() {
            if whole.do_query_expansion != Some(false) {
                self.unserved = Some("the expansion of queries ('do_query_expansion')");
            } else if whole.skiplist_words.is_none_or(|words| !words.is_empty()) {
                self.unserved = Some("the list of words whose vectors are left out ('skiplist_words')");
            }
        }
        Ok(())
    }

    /// True for a model that `PyLate` saved, which scales vectors of tokens without a module that says so.
    fn is_pylate(&self) -> bool {
        self.model_type.as_deref() == Some("ColBERT")
    }

    fn read_modules(&mut self, top: &ModelDirectory) -> Result<(), LoadError> {
        let refuse = |message: String| Err(top.invalid(MODULES, message));
        self.normalize = Some(false);
        let mut has_pooling = false;
        let modules: Vec<Module> = top.json(MODULES)?;
        if modules.is_empty() {
            return refuse("it lists no modules; without the file the pooling is the mean".to_owned());
        }
        let is_multi_vector = matches!(self.model_type.as_deref(), Some("ColBERT" | "MultiVectorEncoder"));
        if is_multi_vector || modules.get(1).is_some_and(|module| module.kind() == "Dense") {
            self.task = VectorTask::TokenEmbeddings;
            self.normalize = Some(self.is_pylate());
        }
        for (index, module) in modules.into_iter().enumerate() {
            let kind = module.kind();
            let own = top.within(&module.folder().map_err(|message| top.invalid(MODULES, message))?);
            let of_tokens = self.task == VectorTask::TokenEmbeddings;
            let may_follow = has_pooling || of_tokens;
            let vector = if of_tokens { "token_embeddings" } else { "sentence_embedding" };
            let is_normalized = self.normalize == Some(true) && !self.is_pylate();
            match kind {
                "Transformer" | "MLMTransformer" if index == 0 => {}
                "Pooling" if index == 1 && !of_tokens => {
                    has_pooling = true;
                    self.read_pooling(&own)?;
                }
                "SpladePooling" if index == 1 && !of_tokens => {
                    self.task = VectorTask::SparseEmbedding;
                    read_splade_pooling(&own)?;
                }
                "Dense" if may_follow && !is_normalized => {
                    self.dense.push(DenseModule::read(&own, &module, vector)?);
                }
                "Normalize" if self.task != VectorTask::SparseEmbedding => {
                    names_vector(&own, vector)?;
                    self.normalize = Some(true);
                }
                "MultiVectorMask" if of_tokens => self.read_mask(&own)?,
                // It changes nothing outside of training.
                "Dropout" => {}
                "Transformer" | "MLMTransformer" | "Pooling" | "SpladePooling" | "Dense" | "Normalize"
                | "MultiVectorMask" => {
                    let order = "Transformer, Pooling, Dense, Normalize; MLMTransformer, SpladePooling; or, for vectors of \
                                 tokens, Transformer, Dense, MultiVectorMask, Normalize";
                    return refuse(format!("module {index} of type '{kind}' is out of order; known is: {order}"));
                }
                other => {
                    let known = "Transformer, Pooling, Dense, Dropout, Normalize, MLMTransformer, SpladePooling, \
                                 MultiVectorMask";
                    let other = excerpt(other);
                    return refuse(format!("a module of type '{other}' is not known; known are: {known}"));
                }
            }
        }
        Ok(())
    }

    fn read_mask(&mut self, own: &ModelDirectory) -> Result<(), LoadError> {
        #[derive(Deserialize)]
        struct Mask {
            skiplist_words: Option<Vec<String>>,
            keep_only_token_ids: Option<Vec<u32>>,
        }
        if own.is_top() || !own.contains(CONFIG) {
            return Ok(());
        }
        let Mask { skiplist_words, keep_only_token_ids } = own.json(CONFIG)?;
        if skiplist_words.is_some_and(|words| !words.is_empty()) {
            self.unserved = Some("the list of words whose vectors are left out ('skiplist_words')");
        }
        if keep_only_token_ids.is_some_and(|ids| !ids.is_empty()) {
            self.unserved = Some("the list of tokens whose vectors are kept ('keep_only_token_ids')");
        }
        Ok(())
    }

    fn read_pooling(&mut self, own: &ModelDirectory) -> Result<(), LoadError> {
        let fields: BTreeMap<String, Value> = if own.contains(CONFIG) { own.json(CONFIG)? } else { BTreeMap::new() };
        let is_on = |field: &str| fields.get(field).and_then(Value::as_bool) == Some(true);
        self.poolings = match fields.get("pooling_mode") {
            None | Some(Value::Null) => {
                let switches = POOLINGS.iter();
                let switches = switches.filter(|(.., switch)| is_on(&format!("pooling_mode_{switch}")));
                switches.map(|(mode, ..)| *mode).collect()
            }
            Some(modes) => {
                let named = |name: &str| pooling_named(name).map_err(|message| own.invalid(CONFIG, message));
                let modes = modes.as_array().map_or_else(|| std::slice::from_ref(modes), Vec::as_slice);
                modes.iter().map(|mode| named(mode.as_str().unwrap_or(&mode.to_string()))).collect::<Result<_, _>>()?
            }
        };
        let known = |field: &str| POOLINGS.iter().any(|(.., switch)| field == format!("pooling_mode_{switch}"));
        if let Some(field) =
            fields.keys().find(|field| field.starts_with("pooling_mode_") && is_on(field) && !known(field))
        {
            let message = format!("field '{}' is true, which is not known", excerpt(field));
            return Err(own.invalid(CONFIG, message));
        }
        if self.poolings.is_empty() {
            self.poolings.push(Pooling::Mean);
        }
        self.leaves_out_prompt = fields.get("include_prompt").and_then(Value::as_bool) == Some(false);
        Ok(())
    }
}

/// Checks that a pooling over the logits of words is the one that is known.
fn read_splade_pooling(own: &ModelDirectory) -> Result<(), LoadError> {
    #[derive(Deserialize)]
    struct Splade {
        pooling_strategy: Option<String>,
        activation_function: Option<String>,
    }
    if !own.contains(CONFIG) {
        return Ok(());
    }
    let Splade { pooling_strategy, activation_function } = own.json(CONFIG)?;
    for (field, value, known) in
        [("pooling_strategy", pooling_strategy, "max"), ("activation_function", activation_function, "relu")]
    {
        if let Some(value) = value.filter(|value| value != known) {
            let message = format!("field '{field}' is '{}'; only '{known}' is known", excerpt(&value));
            return Err(own.invalid(CONFIG, message));
        }
    }
    Ok(())
}

impl DenseModule {
    fn read(own: &ModelDirectory, module: &Module, vector: &str) -> Result<Self, LoadError> {
        #[derive(Deserialize)]
        struct Config {
            in_features: usize,
            out_features: usize,
            bias: Option<bool>,
            activation_function: Option<String>,
            use_residual: Option<bool>,
        }
        names_vector(own, vector)?;
        let config: Config = own.json(CONFIG)?;
        let invalid = |message: String| own.invalid(CONFIG, message);
        let (inputs, outputs) = (config.in_features, config.out_features);
        crate::config::sizes(&[("in_features", inputs), ("out_features", outputs)]).map_err(invalid)?;
        if config.use_residual == Some(true) {
            return Err(invalid("field 'use_residual' is true; only false is known".to_owned()));
        }
        let function = config.activation_function.as_deref().unwrap_or("torch.nn.modules.activation.Tanh");
        let function = function_of_path(function).map_err(invalid)?;
        let bias = config.bias.unwrap_or(true);
        Ok(Self { folder: module.path.clone(), inputs, outputs, bias, function })
    }
}

/// Refuses a module that reads or writes other vectors than `vector`.
fn names_vector(own: &ModelDirectory, vector: &str) -> Result<(), LoadError> {
    #[derive(Deserialize)]
    struct Names {
        module_input_name: Option<String>,
        module_output_name: Option<String>,
    }
    if !own.contains(CONFIG) || own.is_top() {
        return Ok(());
    }
    let Names { module_input_name, module_output_name } = own.json(CONFIG)?;
    for (field, name) in [("module_input_name", module_input_name), ("module_output_name", module_output_name)] {
        if let Some(name) = name.filter(|name| name != vector) {
            let message = format!("field '{field}' is '{}'; only '{vector}' is known", excerpt(&name));
            return Err(own.invalid(CONFIG, message));
        }
    }
    Ok(())
}

/// An entry of `modules.json`.
#[derive(Deserialize)]
pub(crate) struct Module {
    r#type: String,
    path: String,
}

impl Module {
    /// The class, without the Python modules that it lies in.
    pub(crate) fn kind(&self) -> &str {
        self.r#type.rsplit('.').next().unwrap_or_default()
    }

    /// The folder of its files, below the directory.
    pub(crate) fn folder(&self) -> Result<String, String> {
        let path = self.path.as_str();
        let is_below = |part: &str| !matches!(part, "..") && !part.contains(['\\', ':']);
        if !path.starts_with('/') && path.split('/').all(is_below) {
            return Ok(path.trim_end_matches('/').to_owned());
        }
        Err(format!("field 'path' is '{}'; it must be a folder below the directory", excerpt(path)))
    }
}

/// The folder of the encoder's files as `modules.json` says, such as `0_Transformer`; empty for the directory itself.
///
/// # Errors
/// [`LoadError`] if `modules.json` is not valid.
pub(crate) fn encoder_folder(top: &ModelDirectory) -> Result<String, LoadError> {
    if !top.contains(MODULES) {
        return Ok(String::new());
    }
    let modules: Vec<Module> = top.json(MODULES)?;
    let folder =
        modules.first().filter(|module| ["Transformer", "MLMTransformer"].contains(&module.kind())).map(Module::folder);
    folder.transpose().map(Option::unwrap_or_default).map_err(|message| top.invalid(MODULES, message))
}

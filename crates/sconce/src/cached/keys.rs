//! Keys of a model's answers and prepared inputs in the caches.

use std::borrow::Cow;

use sconce_cache::{CrossPrecision, Digest, Dtype, Key, KeyFields, KeyTensor, Parameter};
use sconce_models::{Datatype, Input, InputKey, InputKind, Precision, Signature, Truncation};

use super::FileDigests;

/// Makes the keys of a model's answers: holds everything that an answer depends on apart from the request.
pub(crate) struct AnswerKeys {
    name: String,
    files: FileDigests,
    precision: Precision,
    /// Higher precisions whose answers may be given instead, nearest first.
    instead: Vec<Precision>,
    /// Classes of the model's devices; devices of one class compute the same bits. The first is the class of all of
    /// them together: a model on several devices may give the bits of any, while a model on one device never gives
    /// those of another. If there are several classes, each of them follows, since answers computed on one device alone
    /// may be given, too.
    device_classes: Vec<String>,
    kind: InputKind,
}

/// Keys under which an answer may be found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) key: Key,
    /// Keys of acceptable substitutes, in the order to try them: the answer as one of the model's devices alone
    /// computed it, and in higher precisions if the policy allows them.
    pub(crate) instead: Vec<Key>,
}

impl AnswerKeys {
    /// Creates the keys. `precisions` are all that the model has; `policy` decides if higher ones may answer for the
    /// model's own.
    pub(crate) fn new(
        name: &str,
        files: FileDigests,
        signature: &Signature,
        device_classes: impl IntoIterator<Item = String>,
        precisions: &[Precision],
        policy: CrossPrecision,
    ) -> Self {
        let highest_first: Vec<&str> =
            Precision::HIGHEST_FIRST.into_iter().filter(|one| precisions.contains(one)).map(Precision::name).collect();
        let instead =
            policy.instead_of(signature.precision.name(), &highest_first).filter_map(|name| name.parse().ok());
        let mut classes: Vec<String> = device_classes.into_iter().collect();
        classes.sort();
        classes.dedup();
        let all = classes.join(", ");
        classes.retain(|class| *class != all);
        let of_version = |class| format!("{class} {}", env!("CARGO_PKG_VERSION"));
        let device_classes = std::iter::once(all).chain(classes).map(of_version).collect();
        Self {
            name: name.to_owned(),
            files,
            precision: signature.precision,
            instead: instead.collect(),
            device_classes,
            kind: signature.input.kind.clone(),
        }
    }

    pub(crate) fn of(&self, input: &Input, truncation: Truncation) -> Keys {
        let input = input.key(&self.kind);
        let key = |precision: Precision, device_class: &str| {
            let fields = KeyFields {
                model: &self.name,
                weights: self.files.weights,
                precision: precision.name(),
                device_class,
                processing: self.files.processing,
                parameters: &[("truncate", Parameter::Bool(truncation == Truncation::Truncate))],
                outputs: &[],
                inputs: &[key_tensor(&input, &input.bytes)],
            };
            fields.key()
        };
        let of_class = |class: &String, precision: Precision| key(precision, class);
        let others = self
            .instead
            .iter()
            .flat_map(|precision| self.device_classes.iter().map(move |class| of_class(class, *precision)));
        let own = self.device_classes[1..].iter().map(|class| of_class(class, self.precision));
        Keys { key: of_class(&self.device_classes[0], self.precision), instead: own.chain(others).collect() }
    }
}

/// Makes the keys of a model's prepared inputs: holds everything that they depend on apart from the input. They depend
/// neither on the precision nor on the weights.
pub(crate) struct FeatureKeys {
    processing: Digest,
    kind: InputKind,
}

impl FeatureKeys {
    pub(crate) fn new(files: FileDigests, signature: &Signature) -> Self {
        Self { processing: files.processing, kind: signature.input.kind.clone() }
    }

    /// The key of an input in two parts: a digest of how it is prepared, its shape included, and the bytes of the input.
    pub(crate) fn of<'a>(&self, input: &'a Input, truncation: Truncation) -> (Digest, Cow<'a, [u8]>) {
        let input = input.key(&self.kind);
        let fields = KeyFields {
            model: "",
            weights: self.processing,
            precision: "",
            device_class: "",
            processing: self.processing,
            parameters: &[("truncate", Parameter::Bool(truncation == Truncation::Truncate))],
            outputs: &[],
            inputs: &[key_tensor(&input, &[])],
        };
        (Digest(*fields.key().as_bytes()), input.bytes)
    }
}

fn key_tensor<'a>(input: &'a InputKey<'_>, bytes: &'a [u8]) -> KeyTensor<'a> {
    let dtype = match input.datatype {
        Datatype::Bytes => Dtype::Bytes,
        Datatype::Uint8 => Dtype::U8,
        Datatype::Int8 => Dtype::I8,
        Datatype::Int32 => Dtype::I32,
        Datatype::Fp16 => Dtype::F16,
        Datatype::Fp32 => Dtype::F32,
    };
    KeyTensor { name: input.name, dtype, shape: &input.shape, bytes }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sconce_models::{Array, ArrayData, DeviceName, InputSpec, ModelDirectory, ModelSettings, Pooling, Task};

    use super::*;

    const CPU: &str = "cpu avx2";
    const ALL: &[Precision] = &Precision::ALL;

    fn signature(precision: Precision, kind: InputKind) -> Signature {
        let input = InputSpec { name: "input", kind };
        let task = Task::Embedding { dimensions: 1 };
        let device = DeviceName::CPU;
        Signature { model_type: "any".to_owned(), input, task, precision, device, parameters: 0 }
    }

    /// Digests of a model whose family reads weights, a tokenizer, and a file of its own.
    fn digests(directory: &Path, settings: &ModelSettings) -> FileDigests {
        let directory = ModelDirectory::new(directory);
        // The file does not hold valid weights, but the attempt to read it counts.
        directory.weights().err().unwrap();
        for file in ["tokenizer.json", "vocabulary.bin"] {
            directory.read(file).ok();
        }
        directory.settings(&["pooling", "normalize", "max_tokens", "cuda_graphs"]).unwrap();
        FileDigests::of(&directory.files(), settings).unwrap()
    }

    fn keys(directory: &Path, name: &str, precision: Precision, kind: InputKind) -> AnswerKeys {
        let files = digests(directory, &ModelSettings::default());
        AnswerKeys::new(name, files, &signature(precision, kind), [CPU.to_owned()], ALL, CrossPrecision::Never)
    }

    fn array(shape: &[usize], data: ArrayData) -> Input {
        Input::Array(Array { shape: shape.to_vec(), data })
    }

    #[test]
    fn whatever_changes_an_answer_changes_its_key() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name| directory.path().join(name);
        let text = Input::from("a sconce");
        std::fs::write(at("model.safetensors"), "weights").unwrap();
        std::fs::write(at("tokenizer.json"), "{}").unwrap();
        let of = |name, precision| keys(directory.path(), name, precision, InputKind::Content);
        let key = |name, precision| of(name, precision).of(&text, Truncation::Truncate).key;
        let mut all = vec![key("a", Precision::F32), key("b", Precision::F32), key("a", Precision::Int8)];
        assert_eq!(key("a", Precision::F32), all[0], "the same model has the same keys");
        std::fs::write(at("tokenizer.json"), "{ }").unwrap();
        all.push(key("a", Precision::F32));
        std::fs::write(at("model.safetensors"), "weighty").unwrap();
        all.push(key("a", Precision::F32));
        std::fs::write(at("vocabulary.bin"), "read by a family of one's own").unwrap();
        all.push(key("a", Precision::F32));
        let model = of("a", Precision::F32);
        all.extend(
            [
                (text, Truncation::Refuse),
                (Input::from("a sconce "), Truncation::Truncate),
                (Input::Bytes(b"a sconce".to_vec()), Truncation::Truncate),
                (array(&[2, 4], ArrayData::U8(vec![0; 8])), Truncation::Truncate),
                (array(&[4, 2], ArrayData::U8(vec![0; 8])), Truncation::Truncate),
                (array(&[2, 1], ArrayData::F32(vec![0.0; 2])), Truncation::Truncate),
            ]
            .map(|(input, truncation)| model.of(&input, truncation).key),
        );
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn settings_count_by_what_they_do_to_an_answer() {
        let directory = tempfile::tempdir().unwrap();
        let processing = |settings: &ModelSettings| digests(directory.path(), settings).processing;
        let plain = processing(&ModelSettings::default());
        std::fs::write(directory.path().join("sconce.toml"), "[batching]\nmax_batch_size = 3").unwrap();
        assert_eq!(processing(&ModelSettings::default()), plain);
        let precision = ModelSettings { precision: Some(Precision::Int8), ..ModelSettings::default() };
        assert_eq!(processing(&precision), plain);
        for changed in [
            ModelSettings { pooling: Some(Pooling::Cls), ..ModelSettings::default() },
            ModelSettings { normalize: Some(false), ..ModelSettings::default() },
            ModelSettings { max_tokens: Some(7), ..ModelSettings::default() },
        ] {
            assert_ne!(processing(&changed), plain, "{changed:?}");
        }
    }

    #[test]
    fn a_text_is_the_same_as_string_and_as_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let model = keys(directory.path(), "a", Precision::F32, InputKind::Text { max_tokens: 8 });
        let of = |input: &Input| model.of(input, Truncation::Truncate);
        assert_eq!(of(&Input::from("a sconce")), of(&Input::Bytes(b"a sconce".to_vec())));
    }

    #[test]
    fn higher_precisions_are_found_where_the_policy_allows_and_lower_ones_never() {
        let directory = tempfile::tempdir().unwrap();
        let files = digests(directory.path(), &ModelSettings::default());
        let of = |precision, precisions: &[Precision], policy| {
            let signature = signature(precision, InputKind::Content);
            let keys = AnswerKeys::new("a", files, &signature, [CPU.to_owned()], precisions, policy);
            keys.of(&Input::from("a sconce"), Truncation::Truncate)
        };
        let own = |precision| of(precision, ALL, CrossPrecision::Never).key;
        let higher = |precision| of(precision, ALL, CrossPrecision::Higher).instead;
        assert_eq!(higher(Precision::F32), []);
        assert_eq!(higher(Precision::Int8).last(), Some(&own(Precision::F32)));
        assert!(!higher(Precision::Int8).contains(&own(Precision::Q4K)));
        assert!(higher(Precision::Q4K).contains(&own(Precision::Int8)));
        let two = of(Precision::Q4K, &[Precision::F32, Precision::Q4K], CrossPrecision::Higher);
        assert_eq!(two.instead, [own(Precision::F32)], "precisions that the model does not have are not looked for");
        assert_eq!(of(Precision::Q4K, ALL, CrossPrecision::Never).instead, []);
    }

    #[test]
    fn prepared_inputs_do_not_depend_on_precision_or_weights_but_on_all_else() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("model.safetensors"), "other weights").unwrap();
        let of = |input: &Input, truncation| {
            let files = digests(directory.path(), &ModelSettings::default());
            let keys = FeatureKeys::new(files, &signature(Precision::F32, InputKind::Content));
            let (how, bytes) = keys.of(input, truncation);
            (how, bytes.into_owned())
        };
        let text = Input::from("a sconce");
        let first = of(&text, Truncation::Truncate);
        std::fs::write(directory.path().join("model.safetensors"), "weights").unwrap();
        assert_eq!(of(&text, Truncation::Truncate), first);
        assert_ne!(of(&text, Truncation::Refuse), first);
        let (wide, high) = (array(&[1, 2], ArrayData::U8(vec![0; 2])), array(&[2, 1], ArrayData::U8(vec![0; 2])));
        assert_ne!(of(&wide, Truncation::Truncate), of(&high, Truncation::Truncate));
        std::fs::write(directory.path().join("tokenizer.json"), "{}").unwrap();
        assert_ne!(of(&text, Truncation::Truncate), first);
    }

    #[test]
    fn a_model_on_several_devices_finds_what_each_of_them_computed_and_its_own_answers_mix_with_nobodys() {
        let directory = tempfile::tempdir().unwrap();
        let files = digests(directory.path(), &ModelSettings::default());
        let of = |classes: &[&str]| {
            let signature = signature(Precision::F32, InputKind::Content);
            let keys = AnswerKeys::new(
                "a",
                files,
                &signature,
                classes.iter().map(ToString::to_string),
                ALL,
                CrossPrecision::Never,
            );
            keys.of(&Input::from("a sconce"), Truncation::Truncate)
        };
        let gpu = "cuda 9.0 H100";
        let (cpu_alone, gpu_alone, both) = (of(&[CPU]), of(&[gpu]), of(&[gpu, CPU]));
        assert_eq!((cpu_alone.instead.len(), gpu_alone.instead.len()), (0, 0));
        assert_eq!(both.instead, [cpu_alone.key, gpu_alone.key]);
        assert!(both.key != cpu_alone.key && both.key != gpu_alone.key);
        assert_eq!(both, of(&[CPU, gpu]), "their order does not matter");
    }
}

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const GOLDEN: &str = include_str!("../../tests/golden/keys.txt");

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// [`KeyFields`] that own their fields.
#[derive(Debug, Clone)]
struct Owned {
    model: String,
    weights: [u8; 32],
    precision: String,
    device_class: String,
    processing: [u8; 32],
    parameters: Vec<(String, OwnedParameter)>,
    outputs: Vec<String>,
    inputs: Vec<OwnedInput>,
}

#[derive(Debug, Clone)]
enum OwnedParameter {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

#[derive(Debug, Clone)]
struct OwnedInput {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Owned {
    fn with<R>(&self, job: impl FnOnce(KeyFields<'_>) -> R) -> R {
        let parameters: Vec<_> =
            self.parameters.iter().map(|(name, value)| (name.as_str(), value.borrowed())).collect();
        let outputs: Vec<_> = self.outputs.iter().map(String::as_str).collect();
        let inputs: Vec<_> = self
            .inputs
            .iter()
            .map(|input| KeyTensor { name: &input.name, dtype: input.dtype, shape: &input.shape, bytes: &input.bytes })
            .collect();
        job(KeyFields {
            model: &self.model,
            weights: Digest(self.weights),
            precision: &self.precision,
            device_class: &self.device_class,
            processing: Digest(self.processing),
            parameters: &parameters,
            outputs: &outputs,
            inputs: &inputs,
        })
    }

    fn key(&self) -> Key {
        self.with(|fields| fields.key())
    }

    fn encoding(&self) -> Vec<u8> {
        let mut encoding = Vec::new();
        self.with(|fields| fields.encode(&mut encoding));
        encoding
    }

    /// The texts of the fields, in the order of the encoding.
    fn neighbours(&mut self) -> Vec<&mut String> {
        let mut texts = vec![&mut self.model, &mut self.precision, &mut self.device_class];
        for (name, value) in &mut self.parameters {
            texts.push(name);
            if let OwnedParameter::Text(text) = value {
                texts.push(text);
            }
        }
        texts.extend(&mut self.outputs);
        texts.extend(self.inputs.iter_mut().map(|input| &mut input.name));
        texts
    }

    /// Copies of the fields that differ in one place each, with the name of the place.
    fn changed_in_one_place(&self) -> Vec<(&'static str, Self)> {
        let mut all = Vec::new();
        let mut change = |what, job: &dyn Fn(&mut Self)| {
            let mut changed = self.clone();
            job(&mut changed);
            all.push((what, changed));
        };
        change("model", &|it| it.model.push('x'));
        change("weights", &|it| it.weights[7] ^= 1);
        change("precision", &|it| it.precision.push('x'));
        change("device class", &|it| it.device_class.push('x'));
        change("processing", &|it| it.processing[31] ^= 0x80);
        change("one parameter more", &|it| it.parameters.push(("zz".into(), OwnedParameter::Bool(false))));
        change("one output more", &|it| it.outputs.push(String::new()));
        for index in 0..self.parameters.len() {
            change("a parameter's name", &|it| it.parameters[index].0.push('x'));
            change("a parameter's value", &|it| it.parameters[index].1.change());
            change("a parameter less", &|it| drop(it.parameters.remove(index)));
        }
        for index in 0..self.outputs.len() {
            change("an output's name", &|it| it.outputs[index].push('x'));
            change("an output less", &|it| drop(it.outputs.remove(index)));
        }
        for index in 0..self.inputs.len() {
            change("an input's name", &|it| it.inputs[index].name.push('x'));
            change("an input's dtype", &|it| {
                let dtype = &mut it.inputs[index].dtype;
                *dtype = if *dtype == Dtype::F32 { Dtype::I32 } else { Dtype::F32 };
            });
            change("a dimension more", &|it| it.inputs[index].shape.push(1));
            change("an input byte more", &|it| it.inputs[index].bytes.push(0));
            change("an input less", &|it| drop(it.inputs.remove(index)));
            for place in 0..self.inputs[index].shape.len() {
                change("a dimension", &|it| it.inputs[index].shape[place] += 1);
            }
            for place in 0..self.inputs[index].bytes.len() {
                change("an input byte", &|it| it.inputs[index].bytes[place] ^= 0x10);
            }
        }
        all
    }
}

impl OwnedParameter {
    fn borrowed(&self) -> Parameter<'_> {
        match self {
            Self::Bool(value) => Parameter::Bool(*value),
            Self::Int(value) => Parameter::Int(*value),
            Self::Float(value) => Parameter::Float(*value),
            Self::Text(text) => Parameter::Text(text),
        }
    }

    fn change(&mut self) {
        match self {
            Self::Bool(value) => *value = !*value,
            Self::Int(value) => *value ^= 1,
            Self::Float(value) => *value = f64::from_bits(value.to_bits() ^ 1),
            Self::Text(text) => text.push('x'),
        }
    }
}

fn parameter() -> impl Strategy<Value = OwnedParameter> {
    prop_oneof![
        any::<bool>().prop_map(OwnedParameter::Bool),
        any::<i64>().prop_map(OwnedParameter::Int),
        any::<f64>().prop_map(OwnedParameter::Float),
        "[a-z]{0,8}".prop_map(OwnedParameter::Text),
    ]
}

fn input() -> impl Strategy<Value = OwnedInput> {
    let dtype = (1u8..=14).prop_map(|code| Dtype::from_code(code).unwrap());
    let bytes = prop_oneof![8 => prop::collection::vec(any::<u8>(), 0..40), 1 => Just(vec![7; 5000])];
    ("[a-z]{0,8}", dtype, prop::collection::vec(0usize..1000, 0..4), bytes)
        .prop_map(|(name, dtype, shape, bytes)| OwnedInput { name, dtype, shape, bytes })
}

fn fields() -> impl Strategy<Value = Owned> {
    // A map, because names of parameters are unique in a request.
    let parameters = prop::collection::btree_map("[a-z]{0,8}", parameter(), 0..4);
    (
        ("[a-z]{0,8}", any::<[u8; 32]>(), "[a-z]{0,5}", "[a-z]{0,5}", any::<[u8; 32]>()),
        (parameters, prop::collection::vec("[a-z]{0,8}", 0..3), prop::collection::vec(input(), 0..3)),
    )
        .prop_map(|((model, weights, precision, device_class, processing), (parameters, outputs, inputs))| Owned {
            model,
            weights,
            precision,
            device_class,
            processing,
            parameters: parameters.into_iter().collect(),
            outputs,
            inputs,
        })
}

proptest! {
    #[test]
    fn changing_any_one_field_changes_the_key(fields in fields()) {
        let key = fields.key();
        for (what, changed) in fields.changed_in_one_place() {
            prop_assert_ne!(changed.key(), key, "{}", what);
        }
    }

    #[test]
    fn moving_a_byte_to_a_neighbouring_field_changes_the_key(fields in fields(), pick in any::<Index>()) {
        let mut moved = fields.clone();
        let mut texts = moved.neighbours();
        let from = pick.index(texts.len() - 1);
        let Some(last) = texts[from].pop() else { return Ok(()) };
        texts[from + 1].insert(0, last);
        prop_assert_ne!(moved.key(), fields.key());
    }

    #[test]
    fn parameters_make_the_same_key_in_every_order(fields in fields(), pick in any::<Index>()) {
        let mut turned = fields.clone();
        if !turned.parameters.is_empty() {
            let by = pick.index(turned.parameters.len());
            turned.parameters.rotate_left(by);
        }
        prop_assert_eq!(turned.key(), fields.key());
    }

    #[test]
    fn the_key_is_the_digest_of_the_encoding_however_long_it_is(fields in fields()) {
        prop_assert_eq!(fields.key(), Key(Digest::of(&fields.encoding()).0));
    }
}

/// Requests that together use every kind of field.
fn golden_cases() -> Vec<(&'static str, Owned)> {
    let empty = Owned {
        model: String::new(),
        weights: [0; 32],
        precision: String::new(),
        device_class: String::new(),
        processing: [0; 32],
        parameters: vec![],
        outputs: vec![],
        inputs: vec![],
    };
    let text = Owned {
        model: "minilm".into(),
        weights: [1; 32],
        precision: "int8".into(),
        device_class: "cpu".into(),
        processing: [2; 32],
        outputs: vec!["embedding".into()],
        inputs: vec![OwnedInput {
            name: "text".into(),
            dtype: Dtype::Bytes,
            shape: vec![1],
            bytes: b"\x08\0\0\0a candle".into(),
        }],
        ..empty.clone()
    };
    let parameters = vec![
        ("truncate".into(), OwnedParameter::Bool(true)),
        ("seed".into(), OwnedParameter::Int(-2)),
        ("temperature".into(), OwnedParameter::Float(0.5)),
        ("prompt".into(), OwnedParameter::Text("query: ".into())),
    ];
    let tensors = Owned {
        parameters,
        inputs: vec![
            OwnedInput { name: "ids".into(), dtype: Dtype::I64, shape: vec![1, 2], bytes: vec![3; 16] },
            OwnedInput { name: "image".into(), dtype: Dtype::F32, shape: vec![], bytes: vec![4; 4] },
        ],
        ..text.clone()
    };
    vec![("empty", empty), ("text", text), ("tensors", tensors)]
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        .collect()
}

/// Compares with the golden file. To renew it after `SCHEMA_VERSION` was raised, copy the output of this test.
#[test]
fn the_encoding_is_the_one_in_the_golden_file() {
    let lines: Vec<_> = golden_cases()
        .into_iter()
        .map(|(name, fields)| format!("{name} {} {}\n", hex(&fields.encoding()), fields.key()))
        .collect();
    assert_eq!(lines.concat(), GOLDEN);
}

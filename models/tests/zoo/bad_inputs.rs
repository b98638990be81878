//! Invalid inputs: the processor refuses each with an error that names the input and the fault.

use sconce_models::{Array, ArrayData, Features, Input, InputError, MAX_CONTENT_BYTES, MAX_TEXT_BYTES, Truncation};

use crate::{load, prepare};

fn refusal(model: &str, input: Input) -> String {
    load(model).processor.prepare(input, Truncation::Truncate).unwrap_err().to_string()
}

fn floats(shape: &[usize], values: Vec<f32>) -> Input {
    Array { shape: shape.to_vec(), data: ArrayData::F32(values) }.into()
}

fn bytes(shape: &[usize], values: Vec<u8>) -> Input {
    Array { shape: shape.to_vec(), data: ArrayData::U8(values) }.into()
}

#[test]
fn a_text_model_refuses_what_is_no_text() {
    for model in ["tiny-bert-sentiment", "encoder-mini"] {
        let cases: [(Input, &str); 4] = [
            (vec![b'a', b'b', 0xff, b'c'].into(), "not UTF-8: the first 2 bytes are"),
            (floats(&[2], vec![0.0; 2]), "input 'text' takes text, but got an array"),
            ("a ".repeat(MAX_TEXT_BYTES / 2 + 1).into(), "has 1048578 bytes, but at most 1048576"),
            (vec![0xff; MAX_TEXT_BYTES + 1].into(), "has 1048577 bytes, but at most 1048576"),
        ];
        for (input, message) in cases {
            let refusal = refusal(model, input);
            assert!(refusal.contains(message), "{model}: {refusal}");
        }
    }
}

#[test]
fn a_text_that_is_too_long_is_refused_with_its_length_where_truncation_is_off() {
    let model = load("tiny-bert-sentiment");
    let fits = model.processor.prepare("good ".repeat(62).into(), Truncation::Refuse).unwrap();
    assert_eq!((fits.features.weight(), fits.truncated), (64, false));
    let refusal = model.processor.prepare("good ".repeat(5000).into(), Truncation::Refuse).unwrap_err();
    assert_eq!(refusal, InputError::TooLong { name: "text", max: 64 });
}

#[test]
fn the_digits_model_refuses_other_kinds_shapes_and_values() {
    let mut pixels = vec![0.0; 64];
    pixels[9] = f32::NAN;
    let cases: [(Input, &str); 7] = [
        ("7".into(), "input 'image' takes a UINT8 or FP32 array of shape [1, 8, 8], but got text"),
        (bytes(&[8, 8], vec![0; 64]), "has shape [8, 8], but the model takes [1, 8, 8]"),
        (bytes(&[64], vec![0; 64]), "has shape [64]"),
        (bytes(&[1, 1, 8, 8], vec![0; 64]), "has shape [1, 1, 8, 8]"),
        (bytes(&[1, 8, 8], vec![0; 63]), "has 63 elements, but its shape [1, 8, 8] needs 64"),
        (floats(&[1, 8, 8], pixels), "has the value NaN at element 9"),
        (floats(&[1, 8, 8], vec![f32::INFINITY; 64]), "has the value inf at element 0"),
    ];
    for (input, message) in cases {
        let refusal = refusal("digits-cnn", input);
        assert!(refusal.contains(message), "{refusal}");
    }
}

#[test]
fn magika_refuses_what_is_no_content() {
    let cases: [(Input, &str); 8] = [
        (Vec::new().into(), "input 'content' is empty"),
        (b" \r\n\x0b".to_vec().into(), "input 'content' is empty"),
        (
            [&[b' '; 4096], b"x".as_slice(), &[b' '; 4096]].concat().into(),
            "white space alone in its first and last 4096",
        ),
        (bytes(&[0], Vec::new()), "input 'content' is empty"),
        (floats(&[2], vec![1.0, 2.0]), "has dtype FP32, but the model takes UINT8"),
        (bytes(&[2, 2], vec![1; 4]), "but got an array of shape [2, 2]"),
        (bytes(&[5], vec![1; 4]), "has 4 elements, but its shape [5] needs 5"),
        (vec![1; MAX_CONTENT_BYTES + 1].into(), "has 67108865 bytes, but at most 67108864"),
    ];
    for (input, message) in cases {
        let refusal = refusal("magika", input);
        assert!(refusal.contains(message), "{refusal}");
    }
}

#[test]
fn magika_reads_the_same_from_bytes_text_and_arrays() {
    let model = load("magika");
    let content = "#!/bin/sh\necho hello\n";
    let expected = prepare(&model, content.into());
    assert_eq!(prepare(&model, content.as_bytes().to_vec().into()), expected);
    assert_eq!(prepare(&model, bytes(&[content.len()], content.into())), expected);
}

#[test]
fn features_of_another_family_or_beyond_the_tables_are_an_error_and_no_panic() {
    let tokens = |input_ids: Vec<u32>, token_type_ids: Vec<u32>| Features::Tokens { input_ids, token_type_ids };
    let cases = [
        ("encoder-mini", Features::Symbols(vec![1]), "takes tokens, but got symbols"),
        ("encoder-mini", tokens(vec![2, 10_000], vec![0, 0]), "token id 10000; the vocabulary has 10000"),
        ("encoder-mini", tokens(vec![2, 3], vec![0, 2]), "segment 2; the model has 2"),
        ("encoder-mini", tokens(vec![2; 129], vec![0; 129]), "129 tokens; the model takes 1 to 128"),
        ("encoder-mini", tokens(vec![], vec![]), "0 tokens"),
        ("encoder-mini", tokens(vec![2, 3], vec![0]), "2 token ids, but 1 segments"),
        ("tiny-bert-sentiment", tokens(vec![2; 65], vec![0; 65]), "65 tokens; the model takes 1 to 64"),
        ("digits-cnn", Features::Values(vec![0.0; 63]), "63 values; the model takes 64"),
        ("digits-cnn", Features::Symbols(vec![1]), "takes values, but got symbols"),
        ("magika", Features::Symbols(vec![0; 2047]), "2047 symbols; the model takes 2048"),
        ("magika", Features::Symbols(vec![257; 2048]), "symbol 257; the model knows 257"),
        ("magika", Features::Values(vec![0.0]), "takes symbols, but got values"),
    ];
    for (name, features, message) in cases {
        let error = load(name).network.forward(&[features]).unwrap_err().to_string();
        assert!(error.contains(message), "{name}: {error}");
    }
}

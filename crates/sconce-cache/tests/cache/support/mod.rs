//! A test's own servers, and values to put into them.

use std::time::{Duration, Instant};

use sconce_cache::{Digest, Dtype, Key, TensorView, Value};

pub(crate) mod postgres;
pub(crate) mod redis;

pub(crate) fn key(name: &str) -> Key {
    Key::from_bytes(Digest::of(name.as_bytes()).0)
}

pub(crate) fn keys(prefix: &str, count: usize) -> Vec<Key> {
    (0..count).map(|number| key(&format!("{prefix} {number}"))).collect()
}

/// A value whose tensor holds this text.
pub(crate) fn value(text: &str) -> Value {
    let tensor = TensorView { name: "text", dtype: Dtype::U8, shape: &[text.len()], bytes: text.as_bytes() };
    Value::new("f32", &[tensor]).expect("shape and bytes agree")
}

pub(crate) fn large_value(bytes: usize) -> Value {
    let content: Vec<u8> = (0..=250).cycle().take(bytes).collect();
    let tensor = TensorView { name: "large", dtype: Dtype::U8, shape: &[bytes], bytes: &content };
    Value::new("f32", &[tensor]).expect("shape and bytes agree")
}

/// Waits until a condition holds; panics with `what` after 30 seconds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_secs(30), "after 30 s still not: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

//! Models that share a device's bounded memory.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::Path;

use sconce::{BatcherConfig, DeviceName, ModelSource, Runtime, RuntimeBuilder};

fn three_models() -> RuntimeBuilder {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo/encoder-mini");
    ["a", "b", "c"]
        .into_iter()
        .fold(Runtime::builder(), |builder, name| builder.model(ModelSource::new(&zoo).name(name)))
}

/// Bytes of one model's weights and of its heaviest batch.
fn needs() -> (u64, u64) {
    let demand = three_models().decide().expect("the test is set up right")["a"].considered[0]
        .demand
        .expect("the test is set up right")
        .1;
    let with_a_batch = demand.bytes(BatcherConfig::default().max_batch_weight);
    (demand.weight_bytes, with_a_batch - demand.weight_bytes)
}

fn loaded(runtime: &Runtime) -> usize {
    runtime.models().iter().filter(|model| model.devices()[0].loaded).count()
}

fn ask_all(runtime: &Runtime) {
    for model in runtime.models() {
        model.infer_blocking("a sconce holds candles").expect("the test is set up right");
    }
}

#[test]
fn on_the_cpu_as_many_batches_count_as_run_at_the_same_time() {
    let (weights, batch) = needs();
    let with_memory = |bytes| three_models().device_memory(DeviceName::CPU, NonZeroU64::new(bytes).unwrap());
    // Each model has a thread of its own, so three batches may run at once.
    let room_for_one_batch = with_memory(3 * weights + batch).build().unwrap();
    ask_all(&room_for_one_batch);
    assert_eq!(loaded(&room_for_one_batch), 1, "two of them would be two sets of weights and two batches");
    let room_for_all = with_memory(3 * weights + 3 * batch).build().unwrap();
    ask_all(&room_for_all);
    assert_eq!(loaded(&room_for_all), 3);
    // The models take turns on one thread, so one batch runs at a time.
    let taking_turns = with_memory(3 * weights + batch).cpu_devices(NonZeroUsize::MIN).build().unwrap();
    ask_all(&taking_turns);
    assert_eq!(loaded(&taking_turns), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_rarely_asked_comes_in_between_busy_ones() {
    let (weights, batch) = needs();
    let room_for_two = NonZeroU64::new(2 * (weights + batch)).unwrap();
    let runtime = three_models().device_memory(DeviceName::CPU, room_for_two).build().unwrap();
    let busy: Vec<_> = ["a", "b"]
        .into_iter()
        .flat_map(|name| std::iter::repeat_n(runtime.model(name).unwrap().clone(), 4))
        .map(|model| {
            tokio::spawn(async move {
                loop {
                    model.infer("a busy client").await.unwrap();
                }
            })
        })
        .collect();
    let rare = &runtime.model("c").unwrap();
    for _ in 0..3 {
        let answer = tokio::time::timeout(std::time::Duration::from_mins(1), rare.infer("a rare client")).await;
        assert!(answer.expect("busy models let it in").is_ok());
    }
    for client in &busy {
        assert!(!client.is_finished(), "a busy client got an error");
        client.abort();
    }
}

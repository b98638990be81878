//! Models that are loaded, replaced and unloaded while the runtime runs.

use std::fs;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sconce::{
    DeviceName, Model, ModelControl, ModelSource, ModelState, RepositoryError, Runtime, RuntimeBuilder, VersionPolicy,
};

const TEXT: &str = "What a wonderful day!";

/// A directory of models, which is removed in the end.
struct Models(tempfile::TempDir);

impl Models {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Puts a sentiment model at `place` whose first label is `label`.
    fn put(&self, place: &str, label: &str) -> PathBuf {
        let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo/tiny-bert-sentiment");
        let directory = self.path().join(place);
        fs::create_dir_all(&directory).expect("it can be made");
        for file in fs::read_dir(zoo).expect("it ships") {
            let path = file.expect("it is listed").path();
            if path.is_file() {
                fs::copy(&path, directory.join(path.file_name().expect("a file"))).expect("there is room");
            }
        }
        let config = directory.join("config.json");
        let text = fs::read_to_string(&config).expect("it ships").replace("\"positive\"", &format!("\"{label}\""));
        fs::write(config, text).expect("there is room");
        directory
    }

    fn builder(&self) -> RuntimeBuilder {
        Runtime::builder().models_in(self.path())
    }
}

async fn label(model: &Model) -> String {
    let answer = model.infer(TEXT).await.expect("it answers");
    answer.output.classification().expect("it classifies").label().to_owned()
}

fn states(runtime: &Runtime) -> Vec<(String, u64, ModelState)> {
    let index = runtime.repository_index_blocking().expect("it is listed");
    index.into_iter().map(|entry| (entry.name, entry.version, entry.state)).collect()
}

fn unavailable(reason: &str) -> ModelState {
    ModelState::Unavailable { reason: reason.to_owned() }
}

#[tokio::test]
async fn the_highest_version_answers_unless_another_policy_or_a_version_is_asked_for() {
    let models = Models::new();
    for (version, label) in [("2", "two"), ("10", "ten"), ("9", "nine"), ("01", "no version"), ("old", "no version")] {
        models.put(&format!("mood/{version}"), label);
    }
    let latest = models.builder().build().unwrap();
    assert_eq!(label(&latest.model("mood").unwrap()).await, "ten");
    assert_eq!(latest.model_versions("mood").unwrap().into_keys().collect::<Vec<_>>(), [10]);

    let two = VersionPolicy::Latest(NonZeroUsize::new(2).unwrap());
    let two = models.builder().versions(two).build().unwrap();
    assert_eq!(two.model_versions("mood").unwrap().into_keys().collect::<Vec<_>>(), [9, 10]);

    let all = models.builder().versions(VersionPolicy::All).build().unwrap();
    let versions = all.model_versions("mood").unwrap();
    assert_eq!(versions.keys().copied().collect::<Vec<_>>(), [2, 9, 10]);
    assert_eq!(label(&versions[&2]).await, "two");
    assert_eq!(label(&all.model("mood").unwrap()).await, "ten");
    assert_eq!(all.models().len(), 1);
    assert_eq!(all.all_versions().iter().map(Model::version).collect::<Vec<_>>(), [2, 9, 10]);
}

#[tokio::test]
async fn a_model_in_the_directory_itself_is_version_1_and_sources_may_say_another() {
    let models = Models::new();
    let (one, two) = (models.put("one", "one"), models.put("two", "two"));
    // Folders within a model are not its versions.
    models.put("one/7", "seven");
    let version = |number| NonZeroU64::new(number).unwrap();
    let runtime = Runtime::builder()
        .model(ModelSource::new(&one).name("mood"))
        .model(ModelSource::new(&two).name("mood").version(version(5)))
        .build()
        .unwrap();
    assert_eq!(runtime.model_versions("mood").unwrap().into_keys().collect::<Vec<_>>(), [1, 5]);
    assert_eq!(label(&runtime.model("mood").unwrap()).await, "two");

    let twice = Runtime::builder()
        .model(ModelSource::new(&one).name("mood").version(version(5)))
        .model(ModelSource::new(&two).name("mood").version(version(5)))
        .build();
    let Err(error) = twice else { panic!("two models are the same version") };
    assert!(error.to_string().starts_with("two models are named 'mood'"), "{error}");
}

#[tokio::test]
async fn a_model_that_is_unloaded_finishes_its_requests_and_comes_back_when_it_is_loaded() {
    let models = Models::new();
    models.put("mood", "before");
    let runtime = models.builder().build().unwrap();
    let held = runtime.model("mood").unwrap();
    let mut changes = runtime.model_changes();

    runtime.unload("mood").await.unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(runtime.model("mood").unwrap_err().to_string(), "no model is named 'mood'; known are: ");
    assert!(runtime.unload("mood").await.is_err());
    assert_eq!(states(&runtime), [("mood".to_owned(), 1, unavailable("unloaded"))]);
    assert_eq!(label(&held).await, "before", "who has it goes on using it");

    models.put("mood", "after");
    let loaded = runtime.load("mood").await.unwrap();
    assert!(changes.has_changed().unwrap());
    assert_eq!(label(&loaded[0]).await, "after");
    assert_eq!(label(&runtime.model("mood").unwrap()).await, "after");
    assert_eq!(label(&held).await, "before");
    assert_eq!(states(&runtime), [("mood".to_owned(), 1, ModelState::Ready)]);
}

#[tokio::test]
async fn a_model_that_does_not_load_changes_nothing_and_the_index_says_why() {
    let models = Models::new();
    models.put("mood/1", "one");
    let runtime = models.builder().build().unwrap();
    let broken = models.put("mood/2", "two");
    fs::write(broken.join("model.safetensors"), "torn").unwrap();

    let error = runtime.load("mood").await.unwrap_err();
    assert!(matches!(error, RepositoryError::Load(_)), "{error}");
    assert_eq!(label(&runtime.model("mood").unwrap()).await, "one");
    let [(_, 1, ModelState::Ready), (_, 2, ModelState::Unavailable { reason })] = &*states(&runtime) else {
        panic!("{:?}", states(&runtime));
    };
    assert_eq!(*reason, error.to_string());

    let unknown = runtime.load("minilm").await.unwrap_err();
    assert_eq!(unknown.to_string(), "no model is named 'minilm'; known are: mood");
}

#[tokio::test]
async fn a_load_that_failed_is_tried_again_and_does_not_count_as_what_is_served() {
    let models = Models::new();
    let directory = models.put("mood", "before");
    let runtime = models.builder().versions(VersionPolicy::All).build().unwrap();
    models.put("mood", "after");
    let weights = fs::read(directory.join("model.safetensors")).unwrap();
    fs::write(directory.join("model.safetensors"), &weights[..1000]).unwrap();
    for _ in 0..2 {
        assert!(runtime.load("mood").await.is_err(), "the weights are still torn");
        assert_eq!(label(&runtime.model("mood").unwrap()).await, "before");
    }
    fs::write(directory.join("model.safetensors"), weights).unwrap();
    runtime.load("mood").await.unwrap();
    assert_eq!(label(&runtime.model("mood").unwrap()).await, "after");

    models.put("many/1", "one");
    runtime.refresh().await.unwrap();
    models.put("many/1", "one anew");
    let broken = models.put("many/2", "two");
    fs::write(broken.join("config.json"), "{").unwrap();
    assert!(runtime.refresh().await.unwrap().failed.contains_key("many"));
    fs::remove_dir_all(broken).unwrap();
    assert_eq!(runtime.refresh().await.unwrap().loaded, ["many"]);
    assert_eq!(label(&runtime.model("many").unwrap()).await, "one anew");
}

#[tokio::test]
async fn a_model_that_is_still_being_written_is_left_for_the_next_look() {
    let models = Models::new();
    models.put("mood", "before");
    let runtime = models.builder().build().unwrap();
    models.put("mood", "half");
    assert!(runtime.refresh_settled().await.unwrap().loaded.is_empty());
    models.put("mood", "the whole of it");
    assert!(runtime.refresh_settled().await.unwrap().loaded.is_empty(), "it has changed since the look before");
    assert_eq!(runtime.refresh_settled().await.unwrap().loaded, ["mood"]);
    assert_eq!(label(&runtime.model("mood").unwrap()).await, "the whole of it");

    let (place, aside) = (models.path().join("mood"), tempfile::tempdir().unwrap());
    fs::rename(&place, aside.path().join("mood")).unwrap();
    assert!(runtime.refresh_settled().await.unwrap().unloaded.is_empty(), "it may be being replaced");
    fs::rename(aside.path().join("mood"), &place).unwrap();
    assert!(runtime.refresh_settled().await.unwrap().unloaded.is_empty());
    fs::remove_dir_all(place).unwrap();
    assert!(runtime.refresh_settled().await.unwrap().unloaded.is_empty());
    assert_eq!(runtime.refresh_settled().await.unwrap().unloaded, ["mood"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn loads_at_the_same_time_end_with_the_newest_version_and_too_many_are_refused() {
    let models = Models::new();
    models.put("mood/1", "v1");
    let runtime = models.builder().build().unwrap();
    let loads: Vec<_> = (0..200)
        .map(|_| {
            let runtime = runtime.clone();
            tokio::spawn(async move { runtime.load("mood").await.map(drop) })
        })
        .collect();
    // Seen whole or not at all.
    fs::rename(models.put("staged", "v2"), models.path().join("mood/2")).unwrap();
    // Refused while the others wait.
    while runtime.load("mood").await.is_err() {
        tokio::task::yield_now().await;
    }
    for load in loads {
        let outcome = load.await.unwrap();
        assert!(matches!(outcome, Ok(()) | Err(RepositoryError::TooManyWait { .. })), "{outcome:?}");
    }
    assert_eq!(runtime.model("mood").unwrap().version(), 2);
    assert_eq!(label(&runtime.model("mood").unwrap()).await, "v2");
}

#[tokio::test]
async fn a_refresh_loads_what_is_new_or_changed_and_unloads_what_is_gone() {
    let models = Models::new();
    models.put("kept", "kept");
    models.put("changed", "before");
    let gone = models.put("gone", "gone");
    let runtime = models.builder().build().unwrap();
    let kept = runtime.model("kept").unwrap();
    let nothing = runtime.refresh().await.unwrap();
    assert!(nothing.loaded.is_empty() && nothing.unloaded.is_empty() && nothing.failed.is_empty(), "{nothing:?}");

    models.put("changed", "after it changed");
    models.put("new/3", "new");
    let broken = models.put("broken", "broken");
    fs::write(broken.join("config.json"), "{").unwrap();
    fs::remove_dir_all(gone).unwrap();
    let refreshed = runtime.refresh().await.unwrap();
    assert_eq!((refreshed.loaded, refreshed.unloaded), (vec!["changed".into(), "new".into()], vec!["gone".into()]));
    assert_eq!(refreshed.failed.keys().collect::<Vec<_>>(), ["broken"]);
    assert_eq!(label(&runtime.model("changed").unwrap()).await, "after it changed");
    assert_eq!(runtime.model("new").unwrap().version(), 3);
    assert_eq!(runtime.model("kept").unwrap().stats(), kept.stats(), "it is the same");

    let nothing = runtime.refresh().await.unwrap();
    assert!(nothing.failed.is_empty(), "what failed is not tried again before it changes: {nothing:?}");
    models.put("broken", "mended");
    assert_eq!(runtime.refresh().await.unwrap().loaded, ["broken"]);
}

#[tokio::test]
async fn a_source_that_is_added_while_the_runtime_runs_takes_the_place_of_the_one_before() {
    let models = Models::new();
    let (one, two) = (models.put("one", "one"), models.put("two", "two"));
    let runtime = Runtime::builder().named_model("mood", &one).build().unwrap();
    runtime.load_from(ModelSource::new(&two).name("mood")).await.unwrap();
    assert_eq!(label(&runtime.model("mood").unwrap()).await, "two");
    runtime.load_from(ModelSource::new(&one).name("other")).await.unwrap();
    assert_eq!(runtime.models().len(), 2);

    let missing = models.path().join("missing");
    runtime.load_from(ModelSource::new(missing).name("mood")).await.unwrap_err();
    runtime.load("mood").await.unwrap();
    assert_eq!(label(&runtime.model("mood").unwrap()).await, "two", "what did not load was not added");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_or_is_answered_by_the_wrong_version_while_versions_change() {
    const CLIENTS: usize = 8;
    const SWAPS: usize = 6;
    let models = Models::new();
    models.put("mood/1", "v1");
    let runtime = models.builder().build().unwrap();
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (runtime, stop, answered) = (runtime.clone(), Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut newest = 0;
                while !stop.load(Ordering::Relaxed) {
                    let model = runtime.model("mood").expect("it is always there");
                    assert!(model.version() >= newest, "versions do not go back");
                    newest = model.version();
                    assert_eq!(label(&model).await, format!("v{newest}"));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for version in 2..=SWAPS + 1 {
        // Some requests are answered by each version.
        let before = answered.load(Ordering::Relaxed);
        while answered.load(Ordering::Relaxed) < before + 20 {
            tokio::task::yield_now().await;
        }
        models.put(&format!("mood/{version}"), &format!("v{version}"));
        runtime.load("mood").await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(runtime.model_versions("mood").unwrap().into_keys().collect::<Vec<_>>(), [SWAPS as u64 + 1]);
}

#[tokio::test]
async fn what_is_unloaded_gives_its_thread_and_its_memory_to_the_next() {
    let models = Models::new();
    models.put("a", "a");
    models.put("b", "b");
    let demand = models.builder().decide().unwrap()["a"].considered[0].demand.unwrap().1;
    let config = sconce::BatcherConfig { max_batch_weight: 256, ..sconce::BatcherConfig::default() };
    let room_for_three = NonZeroU64::new(3 * demand.bytes(config.max_batch_weight)).unwrap();
    let runtime = models.builder().batching(config).device_memory(DeviceName::CPU, room_for_three).build().unwrap();
    for round in 0..8 {
        models.put("a", &format!("a{round}"));
        runtime.load("a").await.unwrap();
        assert_eq!(label(&runtime.model("a").unwrap()).await, format!("a{round}"));
        assert_eq!(label(&runtime.model("b").unwrap()).await, "b");
    }
    let loads = |name: &str| runtime.model(name).unwrap().devices()[0].loads;
    assert_eq!([loads("a"), loads("b")], [1, 1], "none had to make room for one that is gone");
    // A thread for each reload would be the tenth in the end; no other test of this process has as many.
    let mut threads = fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path().join("comm"));
    assert!(!threads.any(|comm| fs::read_to_string(comm).is_ok_and(|name| name.trim() == "sconce-cpu-9")));
}

#[tokio::test]
async fn clients_may_control_models_only_where_the_builder_says_so() {
    let models = Models::new();
    models.put("mood", "mood");
    assert_eq!(models.builder().build().unwrap().model_control(), ModelControl::None);
    let explicit = models.builder().model_control(ModelControl::Explicit).build().unwrap();
    assert_eq!(explicit.model_control(), ModelControl::Explicit);
    explicit.shutdown().await;
    let error = explicit.load("mood").await.unwrap_err();
    assert!(matches!(error, RepositoryError::ShuttingDown), "{error}");
}

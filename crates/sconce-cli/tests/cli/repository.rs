//! Models that are loaded, replaced and unloaded while `sconce serve` runs.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sconce_grpc::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use sconce_grpc::proto::{
    ModelInferResponse, RepositoryIndexRequest, RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::command::{ended, path, zoo};
use crate::serve::{Server, classify};

const MODEL: &str = "tiny-bert-sentiment";

/// Puts a version of the sentiment model into `models`, whose label for good texts is `label`.
fn put(models: &Path, version: u64, label: &str) -> PathBuf {
    let directory = models.join(MODEL).join(version.to_string());
    // Seen whole or not at all, as deployments do it.
    let hidden = models.join(format!(".{version}"));
    fs::create_dir_all(&hidden).expect("there is room");
    for file in fs::read_dir(zoo().join(MODEL)).expect("it ships") {
        let file = file.expect("it is listed").path();
        if file.is_file() {
            fs::copy(&file, hidden.join(file.file_name().expect("a file"))).expect("there is room");
        }
    }
    let config = hidden.join("config.json");
    let text = fs::read_to_string(&config).expect("it ships").replace("\"positive\"", &format!("\"{label}\""));
    fs::write(config, text).expect("there is room");
    fs::create_dir_all(models.join(MODEL)).expect("there is room");
    fs::rename(hidden, &directory).expect("one file system");
    directory
}

fn says(answer: &ModelInferResponse, label: &str) -> bool {
    let contents = answer.outputs.iter().filter_map(|output| output.contents.as_ref());
    let mut texts = contents.flat_map(|contents| &contents.bytes_contents).chain(&answer.raw_output_contents);
    texts.any(|text| text.windows(label.len()).any(|part| part == label.as_bytes()))
}

async fn client(address: SocketAddr) -> GrpcInferenceServiceClient<Channel> {
    GrpcInferenceServiceClient::connect(format!("http://{address}")).await.expect("it listens")
}

async fn load(address: SocketAddr) -> Result<(), tonic::Status> {
    let request = RepositoryModelLoadRequest { model_name: MODEL.to_owned(), ..Default::default() };
    client(address).await.repository_model_load(request).await.map(drop)
}

async fn index(address: SocketAddr) -> Vec<(String, String)> {
    let index = client(address).await.repository_index(RepositoryIndexRequest::default()).await.expect("it lists");
    index.into_inner().models.into_iter().map(|model| (model.version, model.state)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_of_versions_under_load_fails_no_request_and_answers_none_by_the_wrong_version() {
    const CLIENTS: u64 = 4;
    /// Time between two requests of a client: all of them send 200 a second.
    const PACE: Duration = Duration::from_millis(20);
    const SWAPS: u64 = 4;
    let models = TempDir::new().unwrap();
    put(models.path(), 1, "label-of-1");
    let mut server = Server::start(&["--models", path(models.path()), "--model-control-mode", "explicit"]);
    let address = server.address;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let (mut pace, mut newest, mut answered) = (tokio::time::interval(PACE), 1, 0);
                while !stop.load(Ordering::Relaxed) {
                    pace.tick().await;
                    let answer = classify(address, "What a wonderful day!").await.expect("no request fails");
                    let version: u64 = answer.model_version.parse().expect("a number");
                    assert!(version >= newest, "version {version} answered after {newest}");
                    assert!(says(&answer, &format!("label-of-{version}")), "{answer:?}");
                    (newest, answered) = (version, answered + 1);
                }
                (newest, answered)
            })
        })
        .collect();
    for version in 2..2 + SWAPS {
        tokio::time::sleep(Duration::from_millis(500)).await;
        put(models.path(), version, &format!("label-of-{version}"));
        load(address).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    let mut all = 0;
    for client in clients {
        let (newest, answered) = client.await.unwrap();
        assert_eq!(newest, 1 + SWAPS);
        all += answered;
    }
    println!("{all} requests were answered");
    server.stop();
}

#[tokio::test]
async fn clients_load_and_unload_models_only_where_they_may() {
    let models = TempDir::new().unwrap();
    put(models.path(), 3, "label-of-3");
    let mut fixed = Server::start(&["--models", path(models.path())]);
    let refused = load(fixed.address).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    assert!(refused.message().starts_with("explicit model load / unload is not allowed"), "{refused}");
    fixed.stop();

    let mut server = Server::start(&["--models", path(models.path()), "--model-control-mode", "explicit"]);
    let address = server.address;
    let unload = RepositoryModelUnloadRequest { model_name: MODEL.to_owned(), ..Default::default() };
    client(address).await.repository_model_unload(unload.clone()).await.unwrap();
    assert_eq!(index(address).await, [("3".to_owned(), "UNAVAILABLE".to_owned())]);
    assert!(classify(address, "a wonderful day").await.is_err());
    assert_eq!(client(address).await.repository_model_unload(unload).await.unwrap_err().code(), tonic::Code::NotFound);
    load(address).await.unwrap();
    assert!(says(&classify(address, "a wonderful day").await.unwrap(), "label-of-3"));

    let broken = put(models.path(), 4, "label-of-4");
    fs::write(broken.join("model.safetensors"), "torn").unwrap();
    let error = load(address).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    assert!(error.message().contains("model.safetensors"), "{error}");
    let states = [("3".to_owned(), "READY".to_owned()), ("4".to_owned(), "UNAVAILABLE".to_owned())];
    assert_eq!(index(address).await, states);
    assert!(says(&classify(address, "a wonderful day").await.unwrap(), "label-of-3"), "what was served is served on");
    server.stop();
}

#[tokio::test]
async fn a_server_that_looks_at_its_models_serves_a_new_version_by_itself() {
    let models = TempDir::new().unwrap();
    put(models.path(), 1, "label-of-1");
    let poll = ["--model-control-mode", "poll", "--repository-poll-secs", "1"];
    let mut server = Server::start(&[&["--models", path(models.path())], &poll[..]].concat());
    put(models.path(), 2, "label-of-2");
    server.wait_until_it_says("tiny-bert-sentiment: loaded anew");
    assert!(says(&classify(server.address, "a wonderful day").await.unwrap(), "label-of-2"));
    server.stop();
}

#[tokio::test]
async fn a_model_whose_directory_is_gone_is_unloaded_and_the_others_go_on() {
    let (models, gone) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    put(models.path(), 1, "label-of-1");
    let gone_directory = put(gone.path(), 1, "gone");
    let (kept, other) =
        (format!("{MODEL}={}/{MODEL}", path(models.path())), format!("other={}", path(&gone_directory)));
    let poll = ["--model-control-mode", "poll", "--repository-poll-secs", "1"];
    let mut server = Server::start(&[&["--model", &kept, "--model", &other], &poll[..]].concat());
    fs::remove_dir_all(gone_directory).unwrap();
    server.wait_until_it_says("other: unloaded, its directory is gone");
    put(models.path(), 2, "label-of-2");
    server.wait_until_it_says("tiny-bert-sentiment: loaded anew");
    assert!(says(&classify(server.address, "a wonderful day").await.unwrap(), "label-of-2"));
    server.stop();
}

#[tokio::test]
async fn all_versions_are_served_side_by_side_if_they_are_asked_for() {
    let models = TempDir::new().unwrap();
    put(models.path(), 1, "label-of-1");
    put(models.path(), 2, "label-of-2");
    let mut server = Server::start(&["--models", path(models.path()), "--model-versions", "all"]);
    let ready = |version: &str| (version.to_owned(), "READY".to_owned());
    assert_eq!(index(server.address).await, [ready("1"), ready("2")]);
    server.stop();
    ended(&["serve", "--model-versions", "0"], b"").failed_with(2, &["give latest, all, or a number from 1"]);
}

#[tokio::test]
async fn a_model_is_served_under_the_name_that_is_given_with_its_directory() {
    let models = TempDir::new().unwrap();
    let directory = put(models.path(), 1, "label-of-1");
    let named = format!("{MODEL}={}", path(&directory));
    let mut server = Server::start(&["--model", &named]);
    assert!(says(&classify(server.address, "a wonderful day").await.unwrap(), "label-of-1"));
    server.stop();
    let missing = ["serve", "--model", "mood=/nonexistent"];
    ended(&missing, b"").failed_with(2, &["--model mood=/nonexistent: there is no such directory"]);
    let versions = format!("mood={}", path(&models.path().join(MODEL)));
    let one_line = ended(&["classify", "--model", path(&models.path().join(MODEL))], b"a wonderful day\n");
    assert!(one_line.succeeded().stdout.contains("label-of-1"), "commands take a directory of versions, too");
    Server::start(&["--model", &versions]).stop();
}

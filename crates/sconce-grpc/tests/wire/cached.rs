//! A runtime with a cache, over the wire.

use crate::support::*;
use sconce::cache::MemoryConfig;
use sconce::{AnswerCache, Runtime};
use sconce_grpc::proto::infer_parameter::ParameterChoice;
use sconce_grpc::proto::{ModelInferResponse, ModelStatisticsRequest};

async fn server() -> Server {
    let cache = AnswerCache::builder().memory(MemoryConfig::default()).build().unwrap();
    Server::of(Runtime::builder().model(zoo().join(SENTIMENT)).model(zoo().join(DIGITS)).cache(cache).build().unwrap())
        .await
}

fn source(response: &ModelInferResponse) -> Option<&str> {
    match response.parameters.get("source")?.parameter_choice.as_ref()? {
        ParameterChoice::StringParam(source) => Some(source),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_says_that_it_came_from_a_cache_and_a_request_may_refuse_that() {
    let server = server().await;
    let mut client = server.client().await;
    let mut infer = async |request| client.model_infer(request).await.unwrap().into_inner();
    let first = infer(texts(SENTIMENT, &["What a wonderful day!"])).await;
    let second = infer(texts(SENTIMENT, &["What a wonderful day!"])).await;
    assert_eq!((source(&first), source(&second)), (None, Some("memory")));
    assert_eq!(first.raw_output_contents, second.raw_output_contents);
    let mixed = infer(texts(SENTIMENT, &["What a wonderful day!", "What a day!"])).await;
    assert_eq!(source(&mixed), Some("several"));
    let refused = with(texts(SENTIMENT, &["What a wonderful day!"]), "cache", ParameterChoice::BoolParam(false));
    assert_eq!(source(&infer(refused).await), None);

    let figures = client.model_statistics(ModelStatisticsRequest { name: SENTIMENT.into(), version: String::new() });
    let figures = figures.await.unwrap().into_inner().model_stats.remove(0);
    let stats = figures.inference_stats.unwrap();
    assert_eq!((stats.success.unwrap().count, stats.cache_hit.unwrap().count), (4, 1));
    assert_eq!(figures.inference_count, 3, "items that a device ran for");
}

#[tokio::test]
async fn other_outputs_and_another_shape_of_the_same_bytes_are_not_answered_from_the_cache_by_mistake() {
    let server = server().await;
    let mut client = server.client().await;
    let mut infer = async |request| client.model_infer(request).await;
    let text = || texts(SENTIMENT, &["What a wonderful day!"]);
    let scores = infer(asking(text(), &[("scores", None)])).await.unwrap().into_inner();
    let label = infer(asking(text(), &[("label", None)])).await.unwrap().into_inner();
    assert_eq!((scores.outputs.len(), label.outputs.len()), (1, 1));
    assert_eq!(floats(&scores, "scores").0, [1, 2]);
    assert_eq!(strings(&label, "label").1, ["positive"]);
    let best = infer(asking(text(), &[("scores", Some(1))])).await.unwrap().into_inner();
    assert_eq!(strings(&best, "scores").0, [1, 1]);

    let pixels = vec![3; 64];
    let image = |shape: &[i64]| raw(DIGITS, tensor("image", "UINT8", shape), pixels.clone());
    infer(image(&[1, 1, 8, 8])).await.unwrap();
    let refused = infer(image(&[1, 1, 4, 16])).await.unwrap_err();
    assert!(refused.message().contains("[1, 1, 4, 16]"), "{refused}");
    let again = infer(image(&[1, 1, 8, 8])).await.unwrap().into_inner();
    assert_eq!(source(&again), Some("memory"));
}

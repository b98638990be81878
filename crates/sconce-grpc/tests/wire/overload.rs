//! More requests than can be answered: each is admitted whole or not at all, and refusals take little of the processor.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sconce::BatcherConfig;
use tonic::{Code, Status};

use crate::support::*;

/// The time after which a refused client should come back.
fn pushback(refused: &Status) -> Duration {
    let pushback = refused.metadata().get("grpc-retry-pushback-ms").expect("a refusal says when to come back");
    Duration::from_millis(pushback.to_str().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_request_that_is_refused_no_item_runs_and_each_is_answered_after_few_tries() {
    const CLIENTS: u64 = 4;
    const REQUESTS: u64 = 15;
    let batching = BatcherConfig { max_queue_size: 64, ..BatcherConfig::default() };
    let server = Server::start(&[SENTIMENT], batching).await;
    // Once the cost of a batch is learned, refusals say when to come back.
    for _ in 0..10 {
        server.client().await.model_infer(texts(SENTIMENT, &["a"; 32])).await.unwrap();
    }
    let before = server.runtime.model(SENTIMENT).unwrap().stats();
    let refused = Arc::new(AtomicU64::new(0));
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let (mut client, refused) = (server.client().await, Arc::clone(&refused));
        clients.push(tokio::spawn(async move {
            let mut answered = 0;
            while answered < REQUESTS {
                match client.model_infer(texts(SENTIMENT, &["What a wonderful day!"; 48])).await {
                    Ok(_) => answered += 1,
                    Err(status) => {
                        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                        refused.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(pushback(&status)).await;
                    }
                }
            }
        }));
    }
    for client in clients {
        soon(client).await.unwrap();
    }
    let (answered, refused) = (CLIENTS * REQUESTS, refused.load(Ordering::Relaxed));
    let after = server.runtime.model(SENTIMENT).unwrap().stats();
    assert_eq!(after.batched - before.batched, answered * 48, "of a refused request no item runs");
    println!("{answered} answered, {refused} refused");
    assert!(refused < 10 * answered, "{answered} answered, {refused} refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_retry_at_once_get_refusals_at_the_rate_that_a_tenth_of_the_processors_can_do() {
    const CLIENTS: u32 = 64;
    let batching = BatcherConfig { max_queue_size: 1, ..patient(2) };
    let server = Server::start(&[SENTIMENT], batching).await;
    let mut waiting = server.client().await;
    let waiting = tokio::spawn(async move { waiting.model_infer(texts(SENTIMENT, &["one"])).await });
    server.until_queued(SENTIMENT, 1).await;
    let (began, end) = (Instant::now(), Instant::now() + Duration::from_secs(1));
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = server.client().await;
        clients.push(tokio::spawn(async move {
            let mut refusals = 0;
            while Instant::now() < end {
                let refused = client.model_infer(texts(SENTIMENT, &["two"])).await.unwrap_err();
                assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
                refusals += 1;
            }
            refusals
        }));
    }
    let mut refusals = 0;
    for client in clients {
        refusals += client.await.unwrap();
    }
    let processors = u32::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
    // A tenth of the processors at 50 µs or more each, the burst, and one refusal for each client.
    let affordable =
        began.elapsed().as_secs_f64() * f64::from(2000 * processors) + f64::from(64 * processors + CLIENTS);
    // Each refusal is held back by at most 100 ms.
    let least = f64::from(CLIENTS * 10);
    assert!(
        (least / 2.0..affordable.max(2.0 * least)).contains(&f64::from(refusals)),
        "{refusals}, {affordable} affordable"
    );
    waiting.abort();
}

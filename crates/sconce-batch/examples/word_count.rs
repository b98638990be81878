//! Batching without a model: a slow word counter whose cost is per call, not per text.
//!
//! ```sh
//! cargo run --release -p sconce-batch --example word_count
//! ```

use std::time::{Duration, Instant};

use sconce_batch::{BatcherConfig, Queue, from_fn};

const CALLERS: u32 = 64;
const COST: Duration = Duration::from_millis(5);

fn count_words(batch: &[String]) -> Vec<usize> {
    std::thread::sleep(COST); // a round trip to a database, say, which takes as long for one text as for many
    batch.iter().map(|text| text.split_whitespace().count()).collect()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let queue = Queue::spawn("words", BatcherConfig::default(), [from_fn(|batch| Ok(count_words(batch)))])?;
    let started = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    let queue = std::sync::Arc::new(queue);
    for words in 1..=CALLERS {
        let queue = std::sync::Arc::clone(&queue);
        callers.spawn(async move { (words, queue.call("word ".repeat(words as usize), None).await) });
    }
    let mut largest_batch = 0;
    while let Some(answered) = callers.join_next().await {
        let (words, answer) = answered?;
        let answer = answer?;
        assert_eq!(answer.output, words as usize);
        largest_batch = largest_batch.max(answer.batch_size);
    }
    println!("{CALLERS} texts in {:?}; one by one: {:?}", started.elapsed(), COST * CALLERS);
    println!("largest batch: {largest_batch}");
    Ok(())
}

//! Callers in a closed loop.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::Zipf;
use sconce::{AnswerSource, Model};

/// Texts, and the sequence of texts that each caller asks for: the same in each run.
pub(crate) struct Load {
    texts: Arc<[String]>,
    /// Indices into `texts`, in the order in which each caller asks.
    callers: Vec<Arc<[usize]>>,
}

/// The first answer to each text, which all later ones must equal.
#[derive(Default, Clone)]
pub(crate) struct Answers(Arc<Mutex<HashMap<usize, Vec<f32>>>>);

/// Results of a run.
pub(crate) struct Ran {
    /// Shortest first.
    latencies: Vec<Duration>,
    hits: usize,
    elapsed: Duration,
}

impl Load {
    pub(crate) fn new(texts: usize, requests: usize, callers: usize) -> Result<Self, Box<dyn Error>> {
        let mut rng = StdRng::seed_from_u64(42);
        let zipf = Zipf::new(texts as f64, 1.0)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number from 1 on")]
        let mut of_one = || (0..requests / callers).map(|_| rng.sample(zipf) as usize - 1).collect();
        Ok(Self {
            callers: (0..callers).map(|_| of_one()).collect(),
            texts: (0..texts).map(sconce_benches::review).collect(),
        })
    }

    pub(crate) async fn run(&self, model: &Model, answers: &mut Answers) -> Result<Ran, Box<dyn Error>> {
        let started = Instant::now();
        let callers: Vec<_> = self
            .callers
            .iter()
            .map(|wanted| {
                tokio::spawn(call(model.clone(), Arc::clone(&self.texts), Arc::clone(wanted), answers.clone()))
            })
            .collect();
        let (mut latencies, mut hits) = (Vec::new(), 0);
        for caller in callers {
            let (of_one, hits_of_one) = caller.await?;
            latencies.extend(of_one);
            hits += hits_of_one;
        }
        let elapsed = started.elapsed();
        latencies.sort_unstable();
        Ok(Ran { latencies, hits, elapsed })
    }
}

async fn call(model: Model, texts: Arc<[String]>, wanted: Arc<[usize]>, answers: Answers) -> (Vec<Duration>, usize) {
    let (mut latencies, mut hits) = (Vec::with_capacity(wanted.len()), 0);
    for &index in &*wanted {
        let started = Instant::now();
        let answer = model.infer(texts[index].as_str()).await.expect("the model answers");
        latencies.push(started.elapsed());
        hits += usize::from(answer.source != AnswerSource::Computed);
        answers.check(index, answer.output.embedding().expect("it embeds"));
    }
    (latencies, hits)
}

impl Answers {
    fn check(&self, index: usize, embedding: &[f32]) {
        let mut answers = self.0.lock().expect("no caller panics");
        let expected = answers.entry(index).or_insert_with(|| embedding.to_vec());
        assert_eq!(expected, embedding, "text {index}");
    }
}

impl Ran {
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Share of the requests that were answered without a device.
    pub(crate) fn hit_rate(&self) -> f64 {
        self.hits as f64 / self.latencies.len() as f64
    }

    pub(crate) fn latency(&self, quantile: f64) -> Duration {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let index = ((self.latencies.len() - 1) as f64 * quantile) as usize;
        self.latencies[index]
    }
}

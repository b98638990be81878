//! Callers: they send requests, check the answers, and go on as the load demands.

use std::error::Error as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use rand_distr::Exp1;
use sconce_benches::Error;
use sconce_benches::wire::refusal::Refusal;
use sconce_grpc::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use crate::questions::Question;
use crate::storms::{Load, Retry};
use crate::tally::{Outcome, Tally};

pub(crate) type Client = GrpcInferenceServiceClient<Channel>;

/// The connections to a server, which stay open between turns, and the requests sent over them.
#[derive(Debug)]
pub(crate) struct Callers {
    clients: Vec<Client>,
    questions: Vec<Arc<Question>>,
}

/// A caller that asks one question over one connection.
#[derive(Debug, Clone)]
struct Caller {
    client: Client,
    question: Arc<Question>,
    deadline: Option<Duration>,
    /// Outcomes before and after it are not counted.
    counted: Range<Instant>,
}

impl Callers {
    pub(crate) async fn connect(address: &str, connections: usize, model: &str) -> Result<Self, Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        let mut clients = Vec::with_capacity(connections);
        for _ in 0..connections {
            clients.push(Client::new(endpoint.connect().await?));
        }
        let client = clients.first_mut().ok_or("there has to be a connection at least")?;
        let questions = Question::ask_all(client, model).await?.into_iter().map(Arc::new).collect();
        Ok(Self { clients, questions })
    }

    /// Keeps up `load` from now until the end of `counted`.
    pub(crate) async fn run(
        &self,
        load: Load,
        deadline: Option<Duration>,
        counted: &Range<Instant>,
    ) -> Result<Tally, Error> {
        let caller = |number: usize| Caller {
            client: self.clients[number % self.clients.len()].clone(),
            question: Arc::clone(&self.questions[number % self.questions.len()]),
            deadline,
            counted: counted.clone(),
        };
        let mut tasks = JoinSet::new();
        match load {
            Load::Closed { callers, retry } => {
                (0..callers).map(caller).for_each(|caller| {
                    tasks.spawn(caller.ask_on(retry));
                });
            }
            Load::Open { per_second } => {
                let mut next = Instant::now();
                for number in 0.. {
                    let gap: f64 = rand::rng().sample(Exp1);
                    next += Duration::from_secs_f64(gap / per_second.max(1.0));
                    if next >= counted.end {
                        break;
                    }
                    sleep_until(next).await;
                    tasks.spawn(caller(number).ask_once());
                }
            }
        }
        let mut tally = Tally::default();
        while let Some(done) = tasks.join_next().await {
            tally = tally.and(done??);
        }
        Ok(tally)
    }
}

impl Caller {
    async fn ask_once(mut self) -> Result<Tally, Error> {
        let mut tally = Tally::default();
        let outcome = self.ask().await?;
        self.count(&mut tally, outcome);
        Ok(tally)
    }

    /// Asks in a closed loop until the turn ends.
    async fn ask_on(mut self, retry: Retry) -> Result<Tally, Error> {
        let (mut tally, mut failures) = (Tally::default(), 0);
        while Instant::now() < self.counted.end {
            let outcome = self.ask().await?;
            self.count(&mut tally, outcome);
            let pause = match outcome {
                Outcome::Answered(_) => {
                    failures = 0;
                    continue;
                }
                Outcome::Refused(refusal) => retry.pause(Some(refusal), failures + 1),
                Outcome::Unanswered | Outcome::Broken => retry.pause(None, failures + 1),
            };
            failures += 1;
            if !pause.is_zero() {
                sleep_until((Instant::now() + pause).min(self.counted.end)).await;
            }
        }
        Ok(tally)
    }

    async fn ask(&mut self) -> Result<Outcome, Error> {
        let sent = Instant::now();
        let mut request = Request::new(self.question.request.clone());
        if let Some(deadline) = self.deadline {
            request.set_timeout(deadline);
        }
        match self.client.model_infer(request).await {
            Ok(response) if self.question.is_answered_by(response.get_ref()) => Ok(Outcome::Answered(sent.elapsed())),
            Ok(response) => {
                Err(format!("a wrong answer to {:?}: {:?}", self.question.request, response.get_ref()).into())
            }
            // tonic's client gives up by itself when the time is over.
            Err(status) if status.code() == Code::Cancelled && status.message() == "Timeout expired" => {
                Ok(Outcome::Unanswered)
            }
            // Only a status that did not come from the server has a source.
            Err(status) if status.source().is_some() => Ok(Outcome::Broken),
            Err(status) => match Refusal::of(&status) {
                Some(refusal) => Ok(Outcome::Refused(refusal)),
                None => Err(status.into()),
            },
        }
    }

    fn count(&self, tally: &mut Tally, outcome: Outcome) {
        if self.counted.contains(&Instant::now()) {
            tally.count(outcome, self.deadline);
        }
    }
}

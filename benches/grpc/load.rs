//! Requests in a closed loop: each caller sends its next request when the last is answered, and checks the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sconce_benches::Error;
use sconce_benches::wire::message::{self, CLASSES};
use sconce_grpc::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::rest::{RestCaller, Tensors};

/// Callers with their connections, which stay open between turns.
#[derive(Debug)]
pub(crate) struct Load {
    callers: Vec<Arc<Mutex<Caller>>>,
}

/// A caller of either protocol, with its class of requests.
#[derive(Debug)]
enum Caller {
    Grpc(GrpcInferenceServiceClient<Channel>, usize),
    Rest(RestCaller),
}

/// Requests and wall time of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ran {
    pub(crate) requests: u64,
    pub(crate) wall: Duration,
}

impl Load {
    /// Connects `concurrency` callers, spread over `connections`.
    pub(crate) async fn connect(
        address: &str,
        connections: usize,
        concurrency: usize,
        deadline: Option<Duration>,
    ) -> Result<Self, Error> {
        let mut endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        if let Some(deadline) = deadline {
            endpoint = endpoint.timeout(deadline);
        }
        let mut channels = Vec::with_capacity(connections);
        for _ in 0..connections {
            channels.push(endpoint.connect().await?);
        }
        let client = |at: usize| GrpcInferenceServiceClient::new(channels[at % connections].clone());
        let callers = (0..concurrency).map(|at| Caller::Grpc(client(at), at % CLASSES));
        Ok(Self { callers: callers.map(|caller| Arc::new(Mutex::new(caller))).collect() })
    }

    /// Connects `concurrency` callers over HTTP, each by a connection of its own.
    pub(crate) async fn connect_rest(address: &str, concurrency: usize, tensors: Tensors) -> Result<Self, Error> {
        let mut callers = Vec::with_capacity(concurrency);
        for at in 0..concurrency {
            let caller = RestCaller::connect(address, tensors, at % CLASSES).await?;
            callers.push(Arc::new(Mutex::new(Caller::Rest(caller))));
        }
        Ok(Self { callers })
    }

    pub(crate) async fn run(&self, duration: Duration) -> Result<Ran, Error> {
        let started = Instant::now();
        let mut callers = JoinSet::new();
        for caller in &self.callers {
            let caller = Arc::clone(caller);
            callers.spawn(async move { caller.lock().await.call_until(started + duration).await });
        }
        let mut requests = 0;
        while let Some(answered) = callers.join_next().await {
            requests += answered??;
        }
        Ok(Ran { requests, wall: started.elapsed() })
    }
}

impl Caller {
    /// Sends one request after the other until `end`; returns how many were answered.
    async fn call_until(&mut self, end: Instant) -> Result<u64, Error> {
        match self {
            Self::Grpc(client, class) => call(client, *class, end).await,
            Self::Rest(caller) => {
                let mut answered = 0;
                while Instant::now() < end {
                    caller.call().await?;
                    answered += 1;
                }
                Ok(answered)
            }
        }
    }
}

async fn call(client: &mut GrpcInferenceServiceClient<Channel>, class: usize, end: Instant) -> Result<u64, Error> {
    let request = message::request(class);
    let mut answered = 0;
    while Instant::now() < end {
        let response = client.model_infer(request.clone()).await?.into_inner();
        if !message::is_right(&response, class) {
            return Err(format!("a wrong answer to class {class}: {response:?}").into());
        }
        answered += 1;
    }
    Ok(answered)
}

//! Requests in a closed loop: each caller sends its next request when the last is answered, and checks the answer.

use std::time::{Duration, Instant};

use sconce_benches::Error;
use sconce_benches::wire::message::{self, CLASSES};
use sconce_grpc::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

/// Callers with their connections, which stay open between turns.
#[derive(Debug)]
pub(crate) struct Load {
    callers: Vec<GrpcInferenceServiceClient<Channel>>,
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
        let caller = |at: usize| GrpcInferenceServiceClient::new(channels[at % connections].clone());
        Ok(Self { callers: (0..concurrency).map(caller).collect() })
    }

    pub(crate) async fn run(&self, duration: Duration) -> Result<Ran, Error> {
        let started = Instant::now();
        let mut callers = JoinSet::new();
        for (number, client) in self.callers.iter().enumerate() {
            callers.spawn(call(client.clone(), number % CLASSES, started + duration));
        }
        let mut requests = 0;
        while let Some(answered) = callers.join_next().await {
            requests += answered??;
        }
        Ok(Ran { requests, wall: started.elapsed() })
    }
}

/// Sends one request after the other until `end`; returns how many were answered.
async fn call(mut client: GrpcInferenceServiceClient<Channel>, class: usize, end: Instant) -> Result<u64, Error> {
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

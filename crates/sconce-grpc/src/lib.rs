//! Open Inference Protocol v2 over gRPC, as Triton speaks it, for a Sconce [`Runtime`](sconce::Runtime).
//!
//! ```
//! use sconce_grpc::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
//! use sconce_grpc::proto::model_infer_request::InferInputTensor;
//! use sconce_grpc::proto::{InferTensorContents, ModelInferRequest};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let zoo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
//! let runtime = sconce::Runtime::builder().model(zoo.join("tiny-bert-sentiment")).build()?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?;
//! let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//! let server = tokio::spawn(sconce_grpc::serve(runtime, listener, async { stopped.await.unwrap_or(()) }));
//!
//! let mut client = GrpcInferenceServiceClient::connect(format!("http://{address}")).await?;
//! let texts = ["What a wonderful day!", "The worst film I ever saw."];
//! let bytes_contents = texts.map(|text| text.as_bytes().to_vec()).to_vec();
//! let text = InferInputTensor {
//!     name: "text".into(),
//!     datatype: "BYTES".into(),
//!     shape: vec![2, 1],
//!     contents: Some(InferTensorContents { bytes_contents, ..Default::default() }),
//!     ..Default::default()
//! };
//! let model_name = "tiny-bert-sentiment".into();
//! let request = ModelInferRequest { model_name, inputs: vec![text], ..Default::default() };
//! let answer = client.model_infer(request).await?.into_inner();
//! let labels = answer.outputs.iter().find(|output| output.name == "label").and_then(|label| label.contents.as_ref());
//! assert_eq!(labels.map(|labels| labels.bytes_contents.concat()), Some(b"positivenegative".to_vec()));
//!
//! drop(client);
//! drop(stop); // drains
//! server.await??;
//! # Ok(())
//! # }
//! ```
//!
//! # Tensors
//! | a model of | takes |
//! |---|---|
//! | text | `text` `BYTES` `[N]` or `[N, 1]` |
//! | the content of files | `content` `BYTES` `[N]` or `[N, 1]`, or `UINT8` `[N, length]` |
//! | images | `image` `UINT8` or `FP32` `[N, channels, height, width]` |
//!
//! | and for | gives |
//! |---|---|
//! | embedding | `embedding` `FP32` `[N, dimensions]` |
//! | classification | `scores` `FP32` `[N, labels]`, `label` `BYTES` `[N, 1]` |
//!
//! Numbers of other types are taken where each is exact in one of these. A model of one input also takes it by the names
//! that clients make up, such as `input-0`. `N` is at most [`MAX_ITEMS`]; of models whose answers are large, also at most the
//! model's `max_queue_size`. Elements come raw or typed, and the answer's elements go the same way.
//!
//! # Parameters
//! | a request's parameter | says |
//! |---|---|
//! | `timeout` | microseconds from arrival for which the answer is wanted; the header `grpc-timeout` bounds it as well |
//! | `priority` | 1 (high), 2 (normal) or 3 (low): how soon its items run among others |
//! | `truncate` | false: a text of too many tokens is refused, rather than cut |
//! | `cache` | false: the runtime's cache is not asked for the answer |
//! | `partial` | true: items that fail are left out of the outputs, and named in the answer's parameters `failed_items` (`1,3`) and `failures` (a line each); without it they fail the request |
//! | `precision` | the precision in which the network must be computed; one that the model is not loaded in is refused |
//! | `prompt` | name of the model's prompt that is put before each text |
//! | `dimensions`, `normalize`, `output_dtype` | length, scale and element type of vectors |
//!
//! Any other parameter is refused, except those that clients send by themselves: `binary_data_output`, `content_type`,
//! `headers` and `triton_*` are ignored.
//!
//! | an answer's parameter | says |
//! |---|---|
//! | `precision` | the precision in which the network was computed: `f32`, `int8`, … |
//! | `device` | the device on which it was computed: `cpu`, `cuda:0`, … |
//! | `truncated` | true: the end of an item was left out |
//! | `source` | set if the answer was not computed for this request: `memory`, `redis`, `sqlite`, `shared`, … |
//!
//! A request that is refused because too many wait, or that is late for the same reason, gets the trailer
//! `grpc-retry-pushback-ms`: the milliseconds, never 0, after which the client should come back.
//!
//! # Streams
//! `ModelStreamInfer` answers the requests of a stream as `ModelInfer` does: up to 256 run beside each other, a further one
//! is read when the first of them is answered, and answers come in the order of the requests. A request that fails has its error in
//! `error_message` and its id in `infer_response`, with the parameter `retry_after_ms` after a refusal, and the stream goes on; with
//! the metadata `triton_grpc_error: true` the stream ends with the status of the error. Each request has its memory while it is
//! unanswered. A stream may pause between two requests for as long as a connection may idle; its peer may not pause within one for
//! longer than within a call. A server that leaves reads no further requests, sends the answers of those it has read, and ends the
//! stream with `UNAVAILABLE`.
//!
//! # Shared memory
//! Where [`ServerBounds::with_shared_memory`] allows it, clients of the same machine register regions of POSIX shared memory, and
//! inputs and outputs go through them by Triton's parameters `shared_memory_region`, `shared_memory_offset` and
//! `shared_memory_byte_size`. Regions are copied from and to by reading and writing, not mapped, so a client that cuts its object short gets
//! an error. Shared memory of CUDA is not served.
//!
//! # Calls that change the server
//! Settings of traces and logs can only be read: a call to change one is refused with `UNIMPLEMENTED` and words, as is a call
//! that there is not. [`ModelControl`](sconce::ModelControl) decides if clients may load and unload models.
//!
//! # The path of one item
//! [`sconce_server`] serves the connection → the interceptor `deadline` notes the time of arrival → `metered` admits the
//! request by its token and counts its bytes as they arrive → `inference`, or `stream` for a request of a stream, decodes it, after
//! `measure` has counted the memory that takes →
//! `service` reads `parameters` → `outputs` checks the wanted outputs → `decode` (`elements`) cuts the tensor into
//! items → [`Model::refusal`](sconce::Model::refusal), before anything is tokenised →
//! [`Model::try_infer_many`](sconce::Model::try_infer_many), which admits all items or none → `outputs` writes the
//! tensors that the answers make. An error on the way becomes a status in `status`.
//!
//! # Bounds on clients
//! [`ServerLimits`] bounds the connections, the bytes of requests over all connections, and the time for which peers may be
//! silent; [`sconce_server`] says which give way at a bound. An error repeats at most an excerpt of the request.
//!
//! # Access
//! [`ServerBounds::with_access`] asks calls for `authorization: Bearer TOKEN` among their metadata, else they end with
//! `UNAUTHENTICATED`, and bounds the rate of each client (`RESOURCE_EXHAUSTED`). Health (`Check`, `Watch`), `ServerLive` and
//! `ServerReady` need no token: probes cannot send one. [`ServerListener::with_tls`] adds TLS.
//!
//! # Refusals
//! A refusal costs about as much as a small answer. If there are many, [`Governor`](sconce_server::Governor) holds them back, so that together they
//! take at most a tenth of the processors. A refusal is held back at most for the time after which it tells the client
//! to come back (or 100 ms if that is longer), and at most for most of the time that the request has left;
//! the time that it tells counts from when it is sent. A client that obeys `grpc-retry-pushback-ms` sees no difference,
//! and one that retries at once costs no more than one that obeys.
//!
//! # Where to add things
//! A call: `proto/`, then `service`. Anything that another wire format would have, too, belongs to [`sconce_server`].

mod deadline;
mod decode;
mod drain;
mod elements;
mod health;
mod inference;
mod measure;
mod metadata;
mod metered;
mod outputs;
mod parameters;
pub mod proto;
mod repository;
mod server;
mod service;
mod settings;
mod shared_memory;
mod statistics;
mod status;
mod stream;
mod unserved;

pub use drain::Drain;
pub use sconce_server::{
    BearerToken, ClientAccess, ClientAccessConfig, ClientRates, MAX_ITEMS, MAX_MESSAGE_BYTES, ServerBounds,
    ServerLimits, ServerListener, SharedMemory, Tls, TlsError, TlsFiles, TokenFileError,
};
pub use server::{ServeError, router, router_within, serve, serve_beside, serve_within};

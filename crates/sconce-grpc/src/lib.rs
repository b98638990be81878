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
//! `N` is at most the model's `max_queue_size`. Elements come raw or typed, and the answer's go the same way. A
//! request's `timeout` parameter (microseconds) and the `grpc-timeout` header both bound it; `priority` (1 high, 2 normal, 3 low)
//! says how soon its items run among others; `truncate` (a bool) refuses texts of too many tokens when false, and so does `cache` (a bool) an answer from the runtime's cache. A request that
//! is refused because too much waits is told by the trailer `grpc-retry-pushback-ms` when to come back. The answer's `precision` parameter (a string) says what the network was
//! computed in, `device` (`cpu`, `cuda:0`) on what, `truncated` (true) that the end of an item was left out, and `source` (a string: `memory`, `redis`, `sqlite`,
//! `shared`, …) that it was not computed for this request.
//!
//! # The path of one item
//! The interceptor `deadline` notes when the request came → `service` reads `parameters` → `outputs` checks what is
//! asked for → `decode` (`elements`) cuts the tensor into items → [`Model::try_infer`](sconce::Model::try_infer) each,
//! all at once → `outputs` joins the answers into tensors. An error on the way becomes a status in `status`.
//!
//! # Where to add things
//! A call: `proto/`, then `service`. A kind of input: `decode` and `metadata`. A task: `outputs` and `metadata`.
//! Another wire protocol is another crate.

mod deadline;
mod decode;
mod drain;
mod elements;
mod error;
mod metadata;
mod outputs;
mod parameters;
pub mod proto;
mod server;
mod service;
mod statistics;
mod status;

pub use drain::Drain;
pub use server::{MAX_MESSAGE_BYTES, ServeError, router, serve};

//! A caller of the Open Inference Protocol over HTTP/1.1, with JSON or binary tensors, on a connection of its own.

use std::io;

use sconce_benches::Error;
use sconce_benches::wire::message::{self, CLASSES, MODEL};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// The way in which tensors go both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tensors {
    Json,
    Binary,
}

/// A connection with one class of requests. It only writes the bytes of a request and compares those of an answer, so that
/// the client takes little of the processor that it shares with the server.
#[derive(Debug)]
pub(crate) struct RestCaller {
    stream: BufReader<TcpStream>,
    request: Vec<u8>,
    /// The first answer, which was checked in full.
    right: Vec<u8>,
    body: Vec<u8>,
}

impl RestCaller {
    /// Connects, sends a first request and checks its answer.
    pub(crate) async fn connect(address: &str, tensors: Tensors, class: usize) -> Result<Self, Error> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = request(tensors, class)?;
        let mut caller = Self { stream: BufReader::new(stream), request, right: Vec::new(), body: Vec::new() };
        caller.exchange().await?;
        if !is_right(&caller.body, tensors, class) {
            return Err(caller.wrong());
        }
        caller.right.clone_from(&caller.body);
        Ok(caller)
    }

    /// Sends the request and checks that the answer is the first one, byte for byte.
    pub(crate) async fn call(&mut self) -> Result<(), Error> {
        self.exchange().await?;
        if self.body == self.right { Ok(()) } else { Err(self.wrong()) }
    }

    /// Sends the request and reads the body of the answer.
    async fn exchange(&mut self) -> Result<(), Error> {
        self.stream.get_mut().write_all(&self.request).await?;
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        if !line.starts_with("HTTP/1.1 200 ") {
            return Err(format!("the server answers {line:?}").into());
        }
        let mut length = None;
        loop {
            line.clear();
            self.stream.read_line(&mut line).await?;
            match line.trim_end().split_once(": ") {
                None if line.trim_end().is_empty() => break,
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = Some(value.parse()?),
                _ => {}
            }
        }
        self.body.resize(length.ok_or("an answer has no content-length")?, 0);
        self.stream.read_exact(&mut self.body).await?;
        Ok(())
    }

    fn wrong(&self) -> Error {
        io::Error::other(format!("a wrong answer: {}", self.body.escape_ascii())).into()
    }
}

/// The request of [`message::request`] over HTTP.
fn request(tensors: Tensors, class: usize) -> Result<Vec<u8>, Error> {
    let message = message::request(class);
    let (input, pixels) = (&message.inputs[0], &message.raw_input_contents[0]);
    let mut image = json!({"name": input.name, "datatype": input.datatype, "shape": input.shape});
    let mut whole = json!({"id": message.id});
    let (mut headers, mut raw) = (String::from("content-type: application/json\r\n"), &[][..]);
    match tensors {
        Tensors::Json => image["data"] = json!(pixels.to_vec()),
        Tensors::Binary => {
            image["parameters"] = json!({"binary_data_size": pixels.len()});
            whole["parameters"] = json!({"binary_data_output": true});
            raw = pixels;
        }
    }
    whole["inputs"] = json!([image]);
    let body = serde_json::to_vec(&whole)?;
    if tensors == Tensors::Binary {
        headers =
            format!("content-type: application/octet-stream\r\ninference-header-content-length: {}\r\n", body.len());
    }
    let length = body.len() + raw.len();
    let head = format!(
        "POST /v2/models/{MODEL}/infer HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {length}\r\n\r\n"
    );
    Ok([head.as_bytes(), &body, raw].concat())
}

/// True if `body` answers the request of `class`: its scores and its label, as JSON or behind the JSON.
fn is_right(body: &[u8], tensors: Tensors, class: usize) -> bool {
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
    let Some(Ok(answer)) = values.next() else { return false };
    let raw = &body[values.byte_offset()..];
    let label = class.to_string();
    let expected = message::scores(class);
    let close = |scores: Vec<f32>| {
        scores.len() == CLASSES && scores.iter().zip(&expected).all(|(score, it)| (score - it).abs() < 1e-6)
    };
    let right = match tensors {
        Tensors::Json => {
            let scores = answer["outputs"][0]["data"].as_array().map(Vec::as_slice).unwrap_or_default();
            close(scores.iter().filter_map(|score| Some(score.as_f64()? as f32)).collect())
                && answer["outputs"][1]["data"] == json!([label])
        }
        Tensors::Binary => {
            let Some((scores, text)) = raw.split_at_checked(CLASSES * size_of::<f32>()) else { return false };
            let (scores, _) = scores.as_chunks();
            close(scores.iter().map(|score| f32::from_le_bytes(*score)).collect())
                && text.get(4..) == Some(label.as_bytes())
        }
    };
    right && answer["id"] == format!("request-{class}")
}

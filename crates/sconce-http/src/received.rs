//! Reads the whole body of a request within bounds, before any route sees it.

use std::io::Read as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use sconce_server::{Charge, MeteredBody, RequestError};

/// The body of a request on the wire.
pub(crate) struct Received(pub(crate) Incoming);

/// The reason why a body does not come whole.
#[derive(Debug)]
pub(crate) enum ReceiveError {
    /// The server does not read it.
    Refused(RequestError),
    /// The client broke it off.
    Broken(hyper::Error),
}

impl From<RequestError> for ReceiveError {
    fn from(error: RequestError) -> Self {
        Self::Refused(error)
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = ReceiveError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReceiveError>>> {
        Pin::new(&mut self.0).poll_frame(context).map_err(ReceiveError::Broken)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Reads the body to its end. One that is announced to have more than `max` bytes is refused unread.
pub(crate) async fn whole(mut body: MeteredBody<Received>, max: usize) -> Result<Bytes, ReceiveError> {
    check_size(body.size_hint().lower(), max)?;
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(piece) = frame?.into_data() else { continue };
        check_size((first.len() + all.len() + piece.len()) as u64, max)?;
        // A body of one piece is not copied.
        if first.is_empty() && all.is_empty() {
            first = piece;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&piece);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

fn check_size(bytes: u64, max: usize) -> Result<(), RequestError> {
    if bytes <= max as u64 {
        return Ok(());
    }
    Err(RequestError::TooLarge { bytes, max })
}

/// Decompresses a body as its headers say, and takes out the header. The bytes count among those of the request.
pub(crate) fn decompressed(
    headers: &mut HeaderMap,
    body: Bytes,
    charge: &Charge,
    max: usize,
) -> Result<Bytes, RequestError> {
    let Some(encoding) = headers.remove(header::CONTENT_ENCODING) else { return Ok(body) };
    match &*encoding.as_bytes().to_ascii_lowercase() {
        b"identity" => Ok(body),
        b"gzip" => read_all(flate2::read::MultiGzDecoder::new(&*body), charge, max),
        b"deflate" => {
            let mut decoder = flate2::read::ZlibDecoder::new(&*body);
            let all = read_all(&mut decoder, charge, max)?;
            let behind = body.len() as u64 - decoder.total_in();
            if behind > 0 {
                let message = format!("{behind} bytes are behind its end");
                return Err(RequestError::Malformed { expected: "compressed body", message });
            }
            Ok(all)
        }
        other => Err(RequestError::Malformed {
            expected: "body that the server decompresses",
            message: format!("its content-encoding is {}; send gzip, deflate or none", String::from_utf8_lossy(other)),
        }),
    }
}

fn read_all(mut decoder: impl std::io::Read, charge: &Charge, max: usize) -> Result<Bytes, RequestError> {
    const PIECE: usize = 64 * 1024;
    let mut all = Vec::new();
    loop {
        charge.grow(PIECE)?;
        let before = all.len();
        let malformed =
            |error: std::io::Error| RequestError::Malformed { expected: "compressed body", message: error.to_string() };
        (&mut decoder).take(PIECE as u64).read_to_end(&mut all).map_err(malformed)?;
        check_size(all.len() as u64, max)?;
        if all.len() == before {
            return Ok(all.into());
        }
    }
}

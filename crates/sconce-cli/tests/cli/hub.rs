//! A Hugging Face hub on this machine, because tests also run where the real one cannot be reached. It answers the
//! requests of hf-hub: the list of files, the headers of a file, a redirect for large files, and ranges. It can also
//! misbehave.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

/// A fault of the hub in sending weights, each time that more than their first byte is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HubFault {
    None,
    /// This many bytes come, then the connection ends.
    Cut(usize),
    /// This many bytes come, then no more, though the connection stays open.
    Silent(usize),
    /// The whole file comes, whatever range was requested.
    NoRanges,
    /// Only a client with a token gets the file.
    Forbidden,
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Serves the files of one directory as the repository `org/NAME`, until the test process ends.
pub(crate) fn serve(directory: PathBuf) -> String {
    serve_badly(directory, HubFault::None)
}

/// Does what [`serve`] does, with a fault.
pub(crate) fn serve_badly(directory: PathBuf, fault: HubFault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
    let base = endpoint.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A client may hang up once it has what it wanted.
            let _ = stream.and_then(|stream| answer(stream, &directory, &base, fault));
        }
    });
    endpoint
}

fn answer(stream: TcpStream, directory: &Path, base: &str, fault: HubFault) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut start = 0;
    let mut end = usize::MAX;
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let line = line.to_ascii_lowercase();
        if let Some((from, to)) = line.strip_prefix("range: bytes=").and_then(|range| range.split_once('-')) {
            start = from.parse().unwrap_or(0);
            end = to.parse().unwrap_or(usize::MAX);
        }
    }
    let mut parts = path.splitn(6, '/').skip(1);
    let parts: [&str; 5] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    match parts {
        ["api", "models", "org", ..] if path.ends_with(&format!("/org/{}/revision/main", name(directory))) => {
            let files = relative_files(directory);
            let siblings: Vec<_> = files.iter().map(|file| json!({"rfilename": file})).collect();
            respond(stream, "200 OK", "", json!({"siblings": siblings, "sha": COMMIT}).to_string().as_bytes())
        }
        ["org", _, "resolve", "main", file] if fault == HubFault::Forbidden && is_large(file) => {
            respond(stream, "403 Forbidden", "", b"{}")
        }
        ["org", _, "resolve", "main", file] if is_large(file) && directory.join(file).exists() => {
            let etag = sha256(&directory.join(file));
            let headers =
                format!("x-repo-commit: {COMMIT}\r\nx-linked-etag: \"{etag}\"\r\nlocation: {base}/cdn/{file}\r\n");
            respond(stream, "302 Found", &headers, b"")
        }
        ["cdn", ..] => {
            let file = path.trim_start_matches("/cdn/");
            send(stream, &directory.join(file), start, end, if end > 0 { fault } else { HubFault::None })
        }
        ["org", _, "resolve", "main", file] => send(stream, &directory.join(file), start, end, HubFault::None),
        _ => respond(stream, "404 Not Found", "", b"{}"),
    }
}

/// True for files that the hub keeps elsewhere, by their digest.
fn is_large(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|extension| extension == "safetensors" || extension == "bin")
}

fn send(mut stream: TcpStream, file: &Path, start: usize, end: usize, fault: HubFault) -> io::Result<()> {
    let Ok(content) = fs::read(file) else { return respond(stream, "404 Not Found", "", b"") };
    let start = if fault == HubFault::NoRanges { 0 } else { start };
    if start >= content.len() {
        return respond(stream, "416 Range Not Satisfiable", "", b"");
    }
    let end = end.saturating_add(1).min(content.len());
    let range = format!("content-range: bytes {start}-{}/{}", end - 1, content.len());
    let headers = format!("etag: \"etag-of-{}\"\r\nx-repo-commit: {COMMIT}\r\n{range}\r\n", name(file));
    let (HubFault::Cut(bytes) | HubFault::Silent(bytes)) = fault else {
        return respond(stream, "206 Partial Content", &headers, &content[start..end]);
    };
    let length = end - start;
    write!(stream, "HTTP/1.1 206 Partial Content\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n")?;
    stream.write_all(&content[start..end.min(start + bytes)])?;
    if let HubFault::Silent(_) = fault {
        // Waits until the client hangs up.
        drop(stream.read(&mut [0]));
    }
    Ok(())
}

fn respond(mut stream: TcpStream, status: &str, headers: &str, body: &[u8]) -> io::Result<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n")?;
    stream.write_all(body)
}

/// Lays `files` of `model` out below `home` as the hub's clients do: blobs by digest, links by name.
pub(crate) fn cache(home: &Path, model: &Path, files: &[&str]) {
    let repository = home.join("hub").join(format!("models--org--{}", name(model)));
    let snapshot = snapshot(home, &name(model));
    for directory in [&repository.join("refs"), &repository.join("blobs"), &snapshot] {
        fs::create_dir_all(directory).expect("the cache can be made");
    }
    fs::write(repository.join("refs/main"), COMMIT).expect("the cache can be written");
    for file in files {
        let digest = sha256(&model.join(file));
        fs::copy(model.join(file), repository.join("blobs").join(&digest)).expect("the file can be copied");
        let up = "../".repeat(2 + file.matches('/').count());
        let link = snapshot.join(file);
        fs::create_dir_all(link.parent().expect("it lies in the snapshot")).expect("the cache can be made");
        symlink(format!("{up}blobs/{digest}"), link).expect("the link is new");
    }
}

/// SHA-256 of a file, computed by another program than the one under test.
pub(crate) fn sha256(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output().expect("sha256sum is there");
    let text = String::from_utf8(output.stdout).expect("it prints text");
    text.split_whitespace().next().expect("it prints a digest").to_owned()
}

fn name(path: &Path) -> String {
    path.file_name().expect("it has a name").to_string_lossy().into_owned()
}

/// Names of all files below a directory, relative to it, in alphabetical order.
pub(crate) fn relative_files(directory: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("the directory can be read") {
        let path = entry.expect("the entry can be read").path();
        if path.is_dir() {
            files.extend(relative_files(&path).into_iter().map(|file| format!("{}/{file}", name(&path))));
        } else {
            files.push(name(&path));
        }
    }
    files.sort();
    files
}

/// The directory in which a cache keeps the files of the served commit.
pub(crate) fn snapshot(home: &Path, repository: &str) -> PathBuf {
    home.join("hub").join(format!("models--org--{repository}")).join("snapshots").join(COMMIT)
}

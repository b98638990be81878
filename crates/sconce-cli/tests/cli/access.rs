//! Tokens, TLS and rates of `sconce serve`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};

use tempfile::TempDir;

use crate::command::{ended, path, sconce};
use crate::serve::Server;

const MODEL: [&str; 2] = ["--model", "digits-cnn"];

/// A server of HTTP and gRPC on free ports, and the address of HTTP.
fn start(args: &[&str]) -> (Server, SocketAddr) {
    let mut command = sconce(&["serve", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    let server = Server::run({
        command.args(MODEL).args(args);
        command
    });
    let line = server.banner.lines().find(|line| line.starts_with("HTTP")).expect("its address").to_owned();
    let (_, address) = line.rsplit_once(" on ").expect("its address");
    (server, address.parse().expect("an address"))
}

/// The status of `GET /v2` with a token.
fn status(address: SocketAddr, token: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = format!("GET /v2 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("it answers");
    line.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn a_server_that_others_reach_does_not_start_without_tokens_unless_it_is_told_to() {
    for args in [["--grpc", "0.0.0.0:0", "--http", "none"], ["--http", "[::]:0", "--grpc", "none"]] {
        let refused = ended(&[&["serve"], &args[..], &MODEL].concat(), b"");
        refused.failed_with(2, &[args[0], "is reached by other machines", "--token-file FILE", "--allow-anonymous"]);
    }
    let mut command = sconce(&["serve", "--grpc", "0.0.0.0:0", "--http", "none", "--allow-anonymous"]);
    command.args(MODEL);
    Server::run(command).stop();
    let mut command = sconce(&["serve", "--grpc", "0.0.0.0:0", "--http", "none"]);
    command.args(MODEL).env("SCONCE_TOKEN", "a-token-of-some-length");
    let server = Server::run(command);
    assert!(server.banner.contains("Clients need a token"), "{}", server.banner);
    assert!(!server.banner.contains("a-token-of-some-length"), "{}", server.banner);
}

#[test]
fn tokens_are_read_anew_when_their_file_changes_and_at_a_signal() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("tokens");
    std::fs::write(&file, "app:the-first-token-of-app\n").unwrap();
    let (mut server, address) = start(&["--token-file", path(&file)]);
    let statuses = || [status(address, "the-first-token-of-app"), status(address, "the-second-token-of-app")];
    assert_eq!(statuses(), ["200", "401"]);
    std::fs::write(&file, "app:the-second-token-of-app\n").unwrap();
    server.wait_until_it_says("read anew: the tokens");
    assert_eq!(statuses(), ["401", "200"]);
    std::fs::write(&file, "nonsense\n").unwrap();
    let line = server.wait_until_it_says("warning: not read anew: the tokens");
    assert!(line.contains("line 1 of ") && !line.contains("nonsense"), "{line}");
    server.signal("HUP");
    server.wait_until_it_says("warning: not read anew: the tokens");
    assert_eq!(statuses(), ["401", "200"]);
    server.stop();
}

#[test]
fn files_and_values_that_cannot_be_used_are_told_with_their_flag() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "secret\n").unwrap();
    let file = path(&file);
    let refused = |args: &[&str]| ended(&[&["serve"], args, &MODEL].concat(), b"");
    refused(&["--token-file", file]).failed_with(2, &["--token-file", "line 1", "NAME:TOKEN"]);
    refused(&["--token-file", "/no/such"]).failed_with(2, &["--token-file", "/no/such", "give a file"]);
    refused(&["--tls-cert", file]).failed_with(2, &["--tls-key"]);
    refused(&["--tls-cert", file, "--tls-key", file]).failed_with(2, &["--tls-cert", "has no certificate"]);
    refused(&["--max-requests-per-second", "0"]).failed_with(2, &["--max-requests-per-second"]);
    let mut command = sconce(&["serve"]);
    let output = command.args(MODEL).env("SCONCE_TOKEN", "short-secret").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && stderr.contains("SCONCE_TOKEN") && stderr.contains("openssl rand"));
    assert!(!stderr.contains("short-secret"), "{stderr}");
}

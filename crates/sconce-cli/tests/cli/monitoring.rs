//! The metrics and the dashboard of `sconce serve`.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::command::{ended, path, sconce};
use crate::serve::{Server, classify, status_over};

/// The body of the answer to `GET path` over the Unix socket.
fn body_over(socket: &str, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: sconce\r\nconnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer.split_once("\r\n\r\n").expect("headers, then a body").1.to_owned()
}

/// `promtool` is in Debian's package `prometheus`; `tests/run` installs it, and says so with `SCONCE_PROMTOOL=1`.
#[tokio::test]
async fn promtool_finds_nothing_to_complain_about_in_the_metrics_of_a_server() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("http.sock");
    let http = format!("unix:{}", path(&socket));
    let mut command = sconce(&["serve", "--grpc", "127.0.0.1:0", "--http", &http, "--cache-memory", "16"]);
    command.args(["--model", "tiny-bert-sentiment"]);
    let mut server = Server::run(command);
    classify(server.address, "a wonderful day").await.unwrap();
    let text = body_over(path(&socket), "/metrics");
    let counted =
        "sconce_request_duration_seconds_count{model=\"tiny-bert-sentiment\",version=\"1\",stage=\"serialise\"} 1\n";
    assert!(text.contains(counted), "{text}");
    server.stop();
    let mut promtool = Command::new("promtool");
    let promtool = promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut promtool = match promtool {
        Err(error) if std::env::var_os("SCONCE_PROMTOOL").is_none() => {
            eprintln!("not checked, as there is no promtool: {error}");
            return;
        }
        promtool => promtool.expect("promtool"),
    };
    promtool.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{complaint}\n{text}");
}

#[test]
fn metrics_are_on_the_address_of_http_or_on_one_of_their_own_or_nowhere() {
    let directory = TempDir::new().unwrap();
    let (http, own) = (directory.path().join("http.sock"), directory.path().join("metrics.sock"));
    let (http, own) = (path(&http), path(&own));
    let at = |socket: &str| format!("unix:{socket}");
    let start = |metrics: &[&str]| {
        let mut command = sconce(&["serve", "--grpc", "127.0.0.1:0", "--http", &at(http), "--model", "digits-cnn"]);
        command.args(metrics);
        Server::run(command)
    };
    let found = |socket: &str, page: &str| status_over(socket, page).contains(" 200 ");

    let mut server = start(&[]);
    assert!(server.banner.contains(&format!("dashboard (/) on {}", at(http))), "{}", server.banner);
    assert!(found(http, "/metrics") && found(http, "/dashboard") && found(http, "/v1/models"));
    server.stop();

    let mut server = start(&["--metrics", &at(own)]);
    assert!(server.banner.contains(&format!("dashboard (/) on {}", at(own))), "{}", server.banner);
    assert!(found(own, "/metrics") && found(own, "/metrics.json") && found(own, "/") && found(own, "/readyz"));
    assert!(!found(http, "/metrics") && !found(own, "/v1/models") && found(http, "/v1/models"));
    server.stop();
    assert!(!std::path::Path::new(own).exists(), "the socket's file is removed");

    let mut server = start(&["--metrics", "none"]);
    assert!(!server.banner.contains("dashboard") && !found(http, "/metrics") && found(http, "/v1/models"));
    server.stop();
    ended(&["serve", "--metrics", "nowhere"], b"").failed_with(2, &["--metrics nowhere", "HOST:PORT"]);
}

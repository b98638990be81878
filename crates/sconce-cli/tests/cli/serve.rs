use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::process::{Child, ChildStderr, Command, Stdio};

use sconce_grpc::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use sconce_grpc::proto::infer_parameter::ParameterChoice;
use sconce_grpc::proto::model_infer_request::InferInputTensor;
use sconce_grpc::proto::{InferTensorContents, ModelInferRequest, ModelInferResponse};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::command::{ended, path, sconce, zoo};

/// A server that is ready for requests; killed if the test ends before it does.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) banner: String,
    stderr: BufReader<ChildStderr>,
}

impl Server {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::run(sconce(&[&["serve", "--grpc", "127.0.0.1:0", "--http", "none"], args].concat()))
    }

    /// Starts `command`, which serves on a free port, and waits until it is ready.
    pub(crate) fn run(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let stderr = BufReader::new(child.stderr.take().expect("standard error is piped"));
        let mut banner = String::new();
        let address = loop {
            let mut line = String::new();
            let read = stdout.read_line(&mut line).expect("it prints text");
            assert_ne!(read, 0, "it ended before it was ready: {banner}");
            banner.push_str(&line);
            if let (true, Some((_, address))) = (line.starts_with("gRPC"), line.trim().split_once(" on ")) {
                break address.parse().expect("it prints its address");
            }
        };
        // Reads the rest of the output, so that the pipe stays open.
        drop(std::thread::spawn(move || stdout.read_to_end(&mut Vec::new())));
        Self { child, address, banner, stderr }
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell is there").success());
    }

    /// Reads standard error up to the line with these words, and returns that line.
    pub(crate) fn wait_until_it_says(&mut self, words: &str) -> String {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert_ne!(self.stderr.read_line(&mut line).expect("it prints text"), 0, "it never said {words}");
        }
        line
    }

    /// Reads standard error until the server has ended.
    pub(crate) fn read_the_rest_of_the_log(&mut self, log: &mut String) {
        self.stderr.read_to_string(log).expect("it prints text");
    }

    /// Processor time of all threads of the server so far.
    #[cfg(target_os = "linux")]
    pub(crate) fn processor_time(&self) -> std::time::Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        // User and system time are the 14th and 15th field, in hundredths of a second. The name, the 2nd, may have spaces.
        let fields = stat.rsplit_once(')').expect("a name in brackets").1.split_whitespace();
        let ticks = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum::<u64>();
        std::time::Duration::from_millis(10 * ticks)
    }

    /// Tells it to drain, and waits until it has ended.
    pub(crate) fn stop(&mut self) {
        self.signal("TERM");
        assert_eq!(self.status(), Some(0));
    }

    fn status(&mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails if the server has ended.
        let _ = self.child.kill();
    }
}

pub(crate) async fn classify(
    address: SocketAddr,
    text: &str,
) -> Result<ModelInferResponse, Box<dyn std::error::Error>> {
    let mut client = GrpcInferenceServiceClient::connect(format!("http://{address}")).await?;
    let bytes_contents = vec![text.as_bytes().to_vec()];
    let input = InferInputTensor {
        name: "text".to_owned(),
        datatype: "BYTES".to_owned(),
        shape: vec![1, 1],
        contents: Some(InferTensorContents { bytes_contents, ..InferTensorContents::default() }),
        ..InferInputTensor::default()
    };
    let model_name = "tiny-bert-sentiment".to_owned();
    let request = ModelInferRequest { model_name, inputs: vec![input], ..ModelInferRequest::default() };
    Ok(client.model_infer(request).await?.into_inner())
}

/// The tier that the answer came from; `None` if it was computed.
fn source(answer: &ModelInferResponse) -> Option<&str> {
    match answer.parameters.get("source")?.parameter_choice.as_ref() {
        Some(ParameterChoice::StringParam(source)) => Some(source),
        other => panic!("{other:?}"),
    }
}

/// The sources of the answers to `texts`, each of which a tier holds. A tier that exceeds its time budget is passed
/// over, for instance while it connects or the machine is busy, so that some answers may be computed.
pub(crate) async fn sources(address: SocketAddr, texts: impl IntoIterator<Item = String>) -> BTreeSet<Option<String>> {
    let mut sources = BTreeSet::new();
    for text in texts {
        let answer = classify(address, &text).await.expect("it answers");
        sources.insert(source(&answer).map(str::to_owned));
    }
    sources
}

/// Asks for `texts`, each of which a tier holds, until an answer comes from a tier, and returns that tier's name. On a
/// busy machine the tier may be passed over for as long as its circuit breaker is open.
pub(crate) async fn first_source(address: SocketAddr, texts: impl IntoIterator<Item = String>) -> Option<String> {
    for text in texts {
        let answer = classify(address, &text).await.expect("it answers");
        if let Some(source) = source(&answer) {
            return Some(source.to_owned());
        }
    }
    None
}

#[tokio::test]
async fn it_serves_the_zoo_and_a_signal_ends_it_well() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&[]);
        for model in ["digits-cnn", "encoder-mini", "magika", "tiny-bert-sentiment"] {
            assert!(server.banner.contains(model), "{}", server.banner);
        }
        let answer = classify(server.address, "a wonderful day").await.unwrap();
        assert_eq!(answer.model_name, "tiny-bert-sentiment");
        server.signal(signal);
        assert_eq!(server.status(), Some(0), "after SIG{signal}");
    }
}

/// Sends a request that waits for more items in its batch, which never come.
///
/// Sends two requests to a queue with room for one: once one of them is refused, the other is in flight.
async fn in_flight(address: SocketAddr) -> JoinHandle<Result<ModelInferResponse, String>> {
    let request = || tokio::spawn(async move { classify(address, "a wonderful day").await.map_err(|e| e.to_string()) });
    let (mut one, mut other) = (request(), request());
    let (refused, waiting) = tokio::select! {
        refused = &mut one => (refused, other),
        refused = &mut other => (refused, one),
    };
    let refusal = refused.expect("the request does not panic").expect_err("the queue has room for one");
    assert!(refusal.contains("queue is full"), "{refusal}");
    waiting
}

const ONE_WAITS: [&str; 5] = ["--model", "tiny-bert-sentiment", "--max-queue-size", "1", "--max-queue-delay-us"];

#[tokio::test]
async fn a_request_in_flight_is_answered_before_it_ends() {
    let mut server = Server::start(&[&ONE_WAITS[..], &["3000000"]].concat());
    let waiting = in_flight(server.address).await;
    server.signal("TERM");
    server.wait_until_it_says("draining");
    assert_eq!(waiting.await.unwrap().unwrap().model_name, "tiny-bert-sentiment");
    assert_eq!(server.status(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut server = Server::start(&[&ONE_WAITS[..], &["60000000"]].concat());
    let waiting = in_flight(server.address).await;
    server.signal("TERM");
    server.wait_until_it_says("draining");
    server.signal("TERM");
    assert_eq!(server.status(), Some(143));
    assert!(waiting.await.unwrap().is_err());
    server.wait_until_it_says("stopped");
}

/// The first line of the answer to `GET path` over the Unix socket.
pub(crate) fn status_over(socket: &str, path: &str) -> String {
    let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: sconce\r\nconnection: close\r\n\r\n");
    std::io::Write::write_all(&mut stream, request.as_bytes()).expect("it reads");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("it answers");
    line
}

#[tokio::test]
async fn http_is_served_on_a_socket_and_says_not_ready_while_a_delay_lasts() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("http.sock");
    let socket = path(&socket);
    let address = format!("unix:{socket}");
    let mut command = sconce(&["serve", "--grpc", "127.0.0.1:0", "--http", &address, "--drain-delay", "1"]);
    command.args(["--model", "tiny-bert-sentiment"]);
    let mut server = Server::run(command);
    assert!(server.banner.contains(&address), "{}", server.banner);
    assert!(status_over(socket, "/v2/health/ready").contains(" 200 "));
    server.signal("TERM");
    server.wait_until_it_says("leaving");
    while !status_over(socket, "/v2/health/ready").contains(" 503 ") {}
    assert!(status_over(socket, "/v2/health/live").contains(" 200 "));
    let answer = classify(server.address, "a wonderful day").await.unwrap();
    assert_eq!(answer.model_name, "tiny-bert-sentiment", "requests are served meanwhile");
    server.wait_until_it_says("draining");
    assert_eq!(server.status(), Some(0));
    assert!(!std::path::Path::new(socket).exists(), "the socket's file is removed");
    ended(&["serve", "--grpc", "none", "--http", "none"], b"").failed_with(2, &["--grpc and --http are both none"]);
}

#[test]
fn a_file_that_is_no_socket_is_never_replaced_and_one_of_another_server_never_removed() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("notes.txt");
    std::fs::write(&file, "mine").unwrap();
    let link = directory.path().join("link");
    symlink(&file, &link).unwrap();
    for taken in [&file, &link] {
        let address = format!("unix:{}", path(taken));
        let refused = ended(&["serve", "--grpc", "none", "--http", &address], b"");
        refused.failed_with(2, &["--http", &address, "no socket", "another path"]);
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    assert!(link.is_symlink());
    ended(&["serve", "--grpc", "none", "--http", "unix:"], b"").failed_with(2, &["--http unix:", "the path of a file"]);
    let missing = format!("unix:{}/no/such", path(directory.path()));
    ended(&["serve", "--grpc", "none", "--http", &missing], b"")
        .failed_with(2, &[&missing, "in a directory that does"]);

    let socket = directory.path().join("http.sock");
    let address = format!("unix:{}", path(&socket));
    let start = || {
        let mut command = sconce(&["serve", "--grpc", "127.0.0.1:0", "--http", &address]);
        command.args(["--model", "digits-cnn"]);
        Server::run(command)
    };
    let first = start();
    ended(&["serve", "--grpc", "none", "--http", &address], b"").failed_with(2, &["another server listens there"]);
    std::fs::remove_file(&socket).unwrap();
    let second = start();
    first.signal("TERM");
    assert_eq!({ first }.status(), Some(0));
    assert!(status_over(path(&socket), "/livez").contains(" 200 "), "the second is still reached");
    drop(second);
}

#[test]
fn a_port_that_is_taken_is_told_with_a_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    ended(&["serve", "--grpc", &address], b"").failed_with(2, &["--grpc", &address, "another port"]);
    ended(&["serve", "--grpc", "nowhere"], b"").failed_with(2, &["--grpc nowhere", "HOST:PORT"]);
}

#[test]
fn what_cannot_be_served_is_told_before_it_listens() {
    let empty = tempfile::tempdir().unwrap();
    ended(&["serve", "--models", path(empty.path())], b"").failed_with(2, &["no model found", "--models DIR"]);
    ended(&["serve", "--max-batch-size", "0"], b"").failed_with(2, &["max_batch_size is 0", "at least 1"]);
    ended(&["serve", "--model", "no-such"], b"").failed_with(2, &["no-such", "known are"]);

    let broken = empty.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    std::fs::copy(zoo().join("digits-cnn/config.json"), broken.join("config.json")).unwrap();
    std::fs::write(broken.join("model.safetensors"), b"cut short").unwrap();
    ended(&["serve", "--models", path(empty.path())], b"").failed_with(2, &["broken", "model.safetensors"]);
}

/// A models directory with one model that loads, and one for each reason not to load.
fn mixed() -> TempDir {
    let models = tempfile::tempdir().expect("there is room for a directory");
    symlink(zoo().join("tiny-bert-sentiment"), models.path().join("tiny-bert-sentiment")).expect("the link is new");
    let broken = |name: &str, config: &str, weights: &[u8], toml: &str| {
        let directory = models.path().join(name);
        std::fs::create_dir(&directory).expect("the directory is new");
        for (file, content) in
            [("config.json", config.as_bytes()), ("model.safetensors", weights), ("sconce.toml", toml.as_bytes())]
        {
            std::fs::write(directory.join(file), content).expect("there is room for a file");
        }
    };
    let digits = std::fs::read_to_string(zoo().join("digits-cnn/config.json")).expect("the model ships");
    let weights = std::fs::read(zoo().join("digits-cnn/model.safetensors")).expect("the model ships");
    broken("unknown", r#"{"model_type": "no-such-type"}"#, &weights, "");
    broken("cut-short", &digits, &weights[..100], "");
    broken("bad-toml", &digits, &weights, "[model]\nprecision = \"int4\"");
    broken("bad-queue", &digits, &weights, "[batching]\nmax_batch_weight = 9000000");
    models
}

const BROKEN: [(&str, &str); 4] = [
    ("bad-queue", "max_queue_weight"),
    ("bad-toml", "'int4' is not known"),
    ("cut-short", "model.safetensors"),
    ("unknown", "'no-such-type', which is not known"),
];

#[tokio::test]
async fn a_model_that_does_not_load_is_told_and_the_others_are_served() {
    let models = mixed();
    let mut server = Server::start(&["--models", path(models.path())]);
    assert!(
        server.banner.contains("\nNOT SERVED (standard error says why): bad-queue, bad-toml, cut-short, unknown\n")
    );
    for (name, reason) in BROKEN {
        let line = server.wait_until_it_says("warning: not served: ");
        assert!(line.contains(&format!("model '{name}'")) && line.contains(reason), "{line}");
    }
    server.wait_until_it_says("--strict");
    let answer = classify(server.address, "a wonderful day").await.unwrap();
    assert_eq!(answer.model_name, "tiny-bert-sentiment");
}

#[test]
fn every_model_must_load_that_is_named_or_with_strict() {
    let models = mixed();
    let serve = |flags: &[&str]| {
        ended(
            &[&["serve", "--grpc", "127.0.0.1:0", "--http", "none", "--models", path(models.path())], flags].concat(),
            b"",
        )
    };
    serve(&["--strict"]).failed_with(2, &["error: model 'bad-queue': ", "max_queue_weight"]);
    for (name, reason) in BROKEN {
        serve(&["--model", "tiny-bert-sentiment", "--model", name]).failed_with(2, &["error: model '", name, reason]);
    }
    serve(&["--model", "unknown", "--model", "unknown"]).failed_with(2, &["--model unknown is given twice"]);
    std::fs::remove_file(models.path().join("tiny-bert-sentiment")).unwrap();
    let ended = serve(&[]).failed_with(2, &["error: none of 4 models loads:"]);
    for (name, reason) in BROKEN {
        assert!(ended.stderr.contains(name) && ended.stderr.contains(reason), "{}", ended.stderr);
    }
}

/// Anonymous memory of the process in KiB: what it does not share with others through mapped files.
#[cfg(target_os = "linux")]
pub(crate) fn anonymous_memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux says so");
    line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
}

#[test]
#[cfg(target_os = "linux")]
fn minilm_in_int8_holds_at_most_0_4_of_the_memory_of_f32() {
    let Some(minilm) = std::env::var_os("SCONCE_MINILM").map(std::path::PathBuf::from) else {
        eprintln!("SKIPPED: the memory of MiniLM needs SCONCE_MINILM");
        return;
    };
    let models = path(minilm.parent().expect("it lies in a directory"));
    let memory = |precision| {
        let server =
            Server::start(&["--models", models, "--model", "minilm", "--allow-undecided", "--precision", precision]);
        anonymous_memory(&server)
    };
    let (f32, int8) = (memory("f32"), memory("int8"));
    println!("MiniLM served at rest: f32 {f32} KiB, int8 {int8} KiB");
    assert!(int8 * 10 <= f32 * 4, "int8 holds {int8} KiB, f32 {f32} KiB");
}

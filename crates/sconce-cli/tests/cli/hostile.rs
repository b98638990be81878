//! A server that may open few files, and clients that open many connections.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::command::{ended, run, sconce};
use crate::serve::{Server, anonymous_memory, classify};

/// A command that runs `lines` of bash and then `sconce serve` with one model.
fn serve_after(lines: &str, args: &[&str]) -> Command {
    let serve = sconce(
        &[&["serve", "--grpc", "127.0.0.1:0", "--http", "none", "--model", "tiny-bert-sentiment"], args].concat(),
    );
    let mut command = Command::new("bash");
    command.arg("-c").arg(format!("{lines}\nexec \"$@\"")).arg("bash").arg(serve.get_program()).args(serve.get_args());
    for (name, value) in serve.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// Files that this process may open, where it may.
const FILES: u64 = 16_384;

/// Opens connections that send nothing, after raising this process's limit of open files.
fn silent(address: SocketAddr, connections: usize) -> Vec<TcpStream> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Some(limit.maximum.unwrap_or(FILES).min(FILES));
    setrlimit(Resource::Nofile, Rlimit { current: limit.current.max(wanted), maximum: limit.maximum })
        .expect("no more than the hard limit");
    (0..connections).map(|_| TcpStream::connect(address).expect("the server listens")).collect()
}

/// The shortest time, of ten tries, in which a new client is connected and answered.
async fn time_to_answer(address: SocketAddr) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..10 {
        let began = Instant::now();
        classify(address, "a wonderful day").await.expect("it answers");
        shortest = shortest.min(began.elapsed());
    }
    shortest
}

#[tokio::test]
async fn as_many_idle_connections_as_there_are_files_leave_good_clients_answered_and_the_processor_idle() {
    let server = Server::run(serve_after("ulimit -n 1024", &[]));
    let _silent = silent(server.address, 1500);
    let took = time_to_answer(server.address).await;
    assert!(took < Duration::from_millis(100), "{took:?}");
    let (before, began) = (server.processor_time(), Instant::now());
    while began.elapsed() < Duration::from_millis(500) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let busy = server.processor_time().saturating_sub(before);
    assert!(busy < Duration::from_millis(250), "{busy:?} of {:?}", began.elapsed());
}

#[tokio::test]
async fn where_files_run_out_all_the_same_it_says_so_and_answers() {
    // Takes files that are meant for connections.
    let taken = "ulimit -n 100; for file in {20..60}; do eval \"exec $file</dev/null\"; done";
    let mut server = Server::run(serve_after(taken, &[]));
    let _silent = silent(server.address, 200);
    server.wait_until_it_says("cannot accept connections");
    let took = time_to_answer(server.address).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn ten_thousand_idle_connections_take_little_memory_and_leave_good_clients_answered() {
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(FILES);
    let connections = usize::try_from(files.saturating_sub(512)).expect("a number of files").min(10_000);
    let server = Server::run(serve_after("ulimit -n $(ulimit -H -n)", &[]));
    classify(server.address, "a wonderful day").await.expect("it answers");
    let before = anonymous_memory(&server);
    let idle = silent(server.address, connections);
    let took = time_to_answer(server.address).await;
    assert!(took < Duration::from_millis(200), "{took:?}");
    let each = 1024 * anonymous_memory(&server).saturating_sub(before) / connections as u64;
    assert!(each < 16 * 1024, "{each} bytes for each of {connections}");
    drop(idle);
    assert!(time_to_answer(server.address).await < Duration::from_millis(200), "all have gone at once");
}

#[test]
fn limits_that_cannot_be_had_are_told_before_it_listens() {
    let too_many = run(serve_after("ulimit -n 1024", &["--max-connections", "1000"]), b"");
    too_many.failed_with(2, &["max_connections is 1000", "at most 992", "1024 files (ulimit -n)"]);
    let too_little = ended(&["serve", "--max-request-bytes-in-flight", "5"], b"");
    too_little.failed_with(2, &["max_request_bytes_in_flight is 5", "at least 1048576"]);
    let no_time = ended(&["serve", "--max-idle-time-ms", "0"], b"");
    no_time.failed_with(2, &["max_idle_time is 0ns", "from 1ms"]);
}

//! The metrics and the dashboard of `sconce serve`.

use tempfile::TempDir;

use crate::command::{ended, path, sconce};
use crate::serve::{Server, status_over};

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

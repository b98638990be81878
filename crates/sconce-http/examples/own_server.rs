//! Serves model directories by the routes of this crate in a server of your own:
//! `cargo run --example own_server -- models/zoo/encoder-mini`, then
//! `curl 127.0.0.1:8000/v1/embeddings -d '{"input": "a sconce holds candles"}'`.

use std::env;
use std::error::Error;

use sconce::Runtime;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let runtime =
        env::args().skip(1).fold(Runtime::builder(), |builder, directory| builder.model(directory)).build()?;
    let listener = TcpListener::bind("127.0.0.1:8000").await?;
    println!("http://{}", listener.local_addr()?);
    let stop = async {
        tokio::signal::ctrl_c().await.ok();
    };
    axum::serve(listener, sconce_http::router(runtime.clone())).with_graceful_shutdown(stop).await?;
    runtime.shutdown().await;
    Ok(())
}

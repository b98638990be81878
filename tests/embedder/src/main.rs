//! Classifies one line of text with a model directory: `embedder MODEL TEXT`.

use std::error::Error;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(directory), Some(text)) = (arguments.next(), arguments.next()) else {
        return Err("usage: embedder MODEL TEXT".into());
    };
    let runtime = sconce::Runtime::builder().model(directory).build()?;
    let model = runtime.models().pop().ok_or("no model")?;
    let answer = model.infer(text).await?;
    println!("{:?}", answer.output.classification().map(sconce::Classification::label));
    runtime.shutdown().await;
    Ok(())
}

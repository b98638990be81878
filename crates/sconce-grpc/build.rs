//! Compiles `proto/` without protoc.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_file("grpc_service.proto")?;

    // The descriptors for server reflection.
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("inference.bin"), compiler.encode_file_descriptor_set())?;

    tonic_prost_build::configure()
        // `Bytes`: tensors are slices of the received message, not copies.
        .bytes(".inference.ModelInferRequest.raw_input_contents")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

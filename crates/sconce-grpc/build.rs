//! Compiles `proto/` without protoc.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(["grpc_service.proto", "health.proto"])?;

    // The descriptors for server reflection.
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("inference.bin"), compiler.encode_file_descriptor_set())?;

    // The calls of each service, for the answer to a call that there is not.
    let descriptors = compiler.file_descriptor_set();
    let mut calls = String::new();
    for file in &descriptors.file {
        for service in &file.service {
            let names: Vec<_> =
                service.method.iter().map(protox::prost_reflect::prost_types::MethodDescriptorProto::name).collect();
            writeln!(calls, "({:?}, {:?}),", format!("{}.{}", file.package(), service.name()), names.join(", "))?;
        }
    }
    std::fs::write(out.join("calls.rs"), format!("&[{calls}]"))?;

    tonic_prost_build::configure()
        // `Bytes`: tensors are slices of the received message, not copies.
        .bytes(".inference.ModelInferRequest.raw_input_contents")
        .extern_path(".grpc.health.v1.HealthCheckRequest", "::tonic_health::pb::HealthCheckRequest")
        .extern_path(".grpc.health.v1.HealthCheckResponse", "::tonic_health::pb::HealthCheckResponse")
        .compile_fds(descriptors)?;
    Ok(())
}

//! The protocols' messages, services and clients, compiled from `proto/`.

#![expect(
    clippy::allow_attributes,
    clippy::pedantic,
    unused_qualifications,
    reason = "generated code; its documentation is in the .proto files"
)]

tonic::include_proto!("inference");

/// The messages, service and client of gRPC's health checking protocol, with `List`.
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// The compiled files of `proto/`, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("inference");

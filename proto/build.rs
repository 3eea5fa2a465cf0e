//! Compiles the `.proto` files beside this file with a pure Rust compiler: no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;

const FILES: [&str; 6] = [
    "flowshift/flow/v1/flow.proto",
    "flowshift/exchange/v1/exchange.proto",
    "flowshift/evidence/v1/evidence.proto",
    "flowshift/state/v1/state.proto",
    "flowshift/snapshot/v1/snapshot.proto",
    "opentelemetry/proto/collector/metrics/v1/metrics_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?);
    println!("cargo:rerun-if-changed=flowshift");
    println!("cargo:rerun-if-changed=opentelemetry");
    let descriptors = protox::compile(FILES.iter().map(|file| root.join(file)), [&root])?;
    prost_build::Config::new().include_file("wire.rs").compile_fds(descriptors)?;
    Ok(())
}

//! Compiles the protos of `proto/` without a system protoc: protox reads them, tonic's generator writes the code.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 5] = ["common", "events", "contacts", "messages", "campaigns"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let files: Vec<PathBuf> = FILES
        .iter()
        .map(|name| root.join(format!("tamtam/v1/{name}.proto")))
        .collect();
    let descriptors = protox::compile(&files, [&root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // What reflection answers with, comments included.
    fs::write(out.join("tamtam.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}

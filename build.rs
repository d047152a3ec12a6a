// SPDX-License-Identifier: MIT OR Apache-2.0
//! What makes the program start fast: `data/drivers.json` becomes a constant, since to parse it takes longer than to choose a
//! driver, and the unwinder comes from the compiler's archive (feature `static-unwinder`).

#[path = "src/catalog/types.rs"]
mod types;

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;

use databake::Bake;
use types::Catalog;

const SOURCE: &str = "data/drivers.json";

fn main() -> Result<(), Box<dyn Error>> {
    for file in [SOURCE, "src/catalog/types.rs"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let is_gnu = env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|name| name == "gnu");
    if is_gnu && env::var_os("CARGO_FEATURE_STATIC_UNWINDER").is_some() {
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
    // What is read borrows from the text.
    let text: &'static str = fs::read_to_string(SOURCE)?.leak();
    let catalog: Catalog = serde_json::from_str(text).map_err(|error| format!("{SOURCE}: {error}"))?;
    let directory = env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    fs::write(Path::new(&directory).join("catalog.rs"), catalog.bake(&Default::default()).to_string())?;
    Ok(())
}

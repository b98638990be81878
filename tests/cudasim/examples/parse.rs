//! Compiles every entry point of PTX files: `cargo run -p sconce-cudasim --example parse -- FILE...`

use std::collections::HashMap;
use std::time::Instant;

use sconce_cudasim::ptx::types::Space;
use sconce_cudasim::ptx::{Module, compile};

fn main() {
    let mut failed = false;
    for path in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&path).expect("the file can be read");
        let start = Instant::now();
        let module = match Module::parse(&text) {
            Ok(module) => module,
            Err(error) => {
                println!("{path}: {error}");
                failed = true;
                continue;
            }
        };
        let globals: HashMap<String, u64> = module
            .variables
            .iter()
            .filter(|variable| variable.space != Space::Shared)
            .map(|variable| (variable.declaration.name.clone(), 0))
            .collect();
        let (mut entries, mut instructions) = (0, 0);
        for entry in module.entries() {
            match compile(&module, entry, &globals) {
                Ok(program) => {
                    entries += 1;
                    instructions += program.instructions.len();
                }
                Err(error) => {
                    println!("{path}: {error}");
                    failed = true;
                }
            }
        }
        println!("{path}: {entries} entry points, {instructions} instructions, {:?}", start.elapsed());
    }
    std::process::exit(i32::from(failed));
}

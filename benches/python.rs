//! The Python environment that some benches need, made once.

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/requirements.txt");

/// A Python interpreter with the packages of `requirements.txt`.
#[derive(Debug, Clone)]
pub struct Python {
    program: PathBuf,
}

impl Python {
    /// The virtual environment below `target`, made anew unless it has the packages of `requirements.txt`.
    ///
    /// # Errors
    /// Without Python 3 or its packages.
    pub fn find_or_make(target: &Path) -> Result<Self> {
        let venv = target.join("venv");
        let (program, made_from) = (venv.join("bin/python"), venv.join("made-from"));
        let wanted = fs::read_to_string(REQUIREMENTS)?;
        if fs::read_to_string(&made_from).ok().as_ref() != Some(&wanted) {
            eprintln!("making a Python environment in {} (once, about 400 MB)", venv.display());
            finish(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
            finish(Command::new(&program).args(["-m", "pip", "install", "--quiet", "--requirement", REQUIREMENTS]))?;
            fs::write(made_from, wanted)?;
        }
        Ok(Self { program })
    }

    /// The command of a script of this package, given by its path in the package.
    #[must_use]
    pub fn command(&self, script: &str) -> Command {
        let mut command = Command::new(&self.program);
        // No __pycache__ in the source tree.
        command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script));
        command
    }

    /// Runs a script to its end.
    ///
    /// # Errors
    /// If it fails.
    pub fn run(&self, script: &str, arguments: &[impl AsRef<OsStr>]) -> Result<()> {
        finish(self.command(script).args(arguments))
    }
}

fn finish(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|error| format!("{program}: {error}"))?;
    if !status.success() {
        let line: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
        return Err(format!("{program} {}: {status}", line.join(" ")).into());
    }
    Ok(())
}

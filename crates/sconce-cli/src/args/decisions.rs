//! Flags on precisions below f32, which serve by decision.

use std::fs;

use sconce::RuntimeBuilder;
use sconce::decide::AllowedSigners;

/// Most bytes of a file of signers.
const MAX_BYTES: u64 = 1 << 20;

/// Whose decisions count, and whether one is needed.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Decisions")]
pub(crate) struct DecisionArgs {
    /// The people whose signatures on decision records count, as OpenSSH's `allowed_signers` file lists them
    ///
    /// A precision below f32 is served only if `decision.json` in the model's directory allows it, and the approver that it
    /// names has signed it: see `sconce decide`. A line is `NAME ssh-ed25519 KEY`, such as `cto@example.com` and a public key.
    #[arg(long, value_name = "FILE", env = "SCONCE_ALLOWED_SIGNERS", value_parser = allowed_signers)]
    allowed_signers: Option<AllowedSigners>,

    /// Serve a precision below f32 without a decision, as an experiment; answers and metrics say `undecided`
    #[arg(long, env = "SCONCE_ALLOW_UNDECIDED")]
    allow_undecided: bool,
}

impl DecisionArgs {
    pub(crate) fn apply(&self, builder: RuntimeBuilder) -> RuntimeBuilder {
        let builder = builder.allow_undecided(self.allow_undecided);
        match &self.allowed_signers {
            Some(signers) => builder.allowed_signers(signers.clone()),
            None => builder,
        }
    }
}

fn allowed_signers(path: &str) -> Result<AllowedSigners, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(format!("it is no file of at most {MAX_BYTES} bytes"));
    }
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    text.parse().map_err(|error: sconce::decide::SignersError| error.to_string())
}

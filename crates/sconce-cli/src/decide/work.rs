//! The work so far, kept beside the record until that is written: a run that was stopped goes on from it.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sconce::decide::ServingCandidate;
use serde::{Deserialize, Serialize};

use super::answers::ExampleScores;
use super::contender::AnswerGroup;
use super::load::Turn;
use crate::error::Error;
use crate::signals::uninterrupted;

/// The file's name in the directory of the record.
const WORK_FILE: &str = "decision.work.json";

/// Everything measured so far.
#[derive(Debug)]
pub(crate) struct WorkSoFar {
    path: PathBuf,
    done: Done,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Done {
    /// Digest of everything that figures depend on: files, data, candidates, machine, program, settings.
    key: String,
    scores: Vec<(AnswerGroup, ExampleScores)>,
    turns: Vec<(ServingCandidate, Vec<Turn>)>,
}

impl WorkSoFar {
    /// Takes up the work that was done under the same key, else begins. Returns true with it if there is some.
    ///
    /// # Errors
    /// The directory cannot be written, which is better known before anything is measured.
    pub(crate) fn open(directory: &Path, key: String) -> Result<(Self, bool), Error> {
        let path = directory.join(WORK_FILE);
        let found = fs::read(&path).ok().and_then(|json| serde_json::from_slice::<Done>(&json).ok());
        let found = found.filter(|done| done.key == key);
        let goes_on = found.is_some();
        let work = Self { path, done: found.unwrap_or_else(|| Done { key, ..Done::default() }) };
        work.save()?;
        Ok((work, goes_on))
    }

    pub(crate) fn scores(&self, group: &AnswerGroup) -> Option<&ExampleScores> {
        self.done.scores.iter().find(|(one, _)| one == group).map(|(_, scores)| scores)
    }

    pub(crate) fn add_scores(&mut self, group: AnswerGroup, scores: ExampleScores) -> Result<(), Error> {
        self.done.scores.push((group, scores));
        self.save()
    }

    pub(crate) fn turns(&self, candidate: &ServingCandidate) -> &[Turn] {
        self.done.turns.iter().find(|(one, _)| one == candidate).map_or(&[], |(_, turns)| turns)
    }

    pub(crate) fn add_turn(&mut self, candidate: &ServingCandidate, turn: Turn) -> Result<(), Error> {
        match self.done.turns.iter_mut().find(|(one, _)| one == candidate) {
            Some((_, turns)) => turns.push(turn),
            None => self.done.turns.push((candidate.clone(), vec![turn])),
        }
        self.save()
    }

    /// Removes the file, once the record is written.
    pub(crate) fn finished(self) {
        // There is none if nothing was measured.
        fs::remove_file(&self.path).ok();
    }

    fn save(&self) -> Result<(), Error> {
        let json = serde_json::to_vec(&self.done).expect("figures have a JSON form");
        write_whole(&self.path, &json)
    }
}

/// Writes a file so that there is the old one or the whole new one at any time.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<(), Error> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".decision").tempfile_in(directory)?;
        file.write_all(content)?;
        readable(file.as_file())?;
        file.persist(path)?;
        Ok(())
    };
    uninterrupted(write).map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// Gives a temporary file, which its owner alone may read, the permissions of other files.
#[cfg(unix)]
fn readable(file: &fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable(_: &fs::File) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_goes_on_under_the_same_key_alone() {
        let directory = tempfile::tempdir().unwrap();
        let candidate = ServingCandidate {
            variant: None,
            precision: "f32".to_owned(),
            device: "cpu".to_owned(),
            max_batch_size: 8,
            max_batch_weight: 64,
        };
        let turn = Turn { alone_ms: vec![0.1 + 0.2, 1.0 / 3.0], answered: 7, seconds: 0.5, ..Turn::default() };
        let (mut work, goes_on) = WorkSoFar::open(directory.path(), "one".to_owned()).unwrap();
        assert!(!goes_on && work.turns(&candidate).is_empty());
        work.add_turn(&candidate, turn.clone()).unwrap();
        work.add_turn(&candidate, turn.clone()).unwrap();
        let (same, goes_on) = WorkSoFar::open(directory.path(), "one".to_owned()).unwrap();
        assert!(goes_on);
        assert_eq!(same.turns(&candidate), [turn.clone(), turn], "to the last bit");
        let (_, goes_on) = WorkSoFar::open(directory.path(), "two".to_owned()).unwrap();
        assert!(!goes_on, "of other files");
        fs::write(directory.path().join(WORK_FILE), b"{\"key\":\"on").unwrap();
        let (work, goes_on) = WorkSoFar::open(directory.path(), "one".to_owned()).unwrap();
        assert!(!goes_on, "a broken file begins again");
        work.finished();
        assert!(!directory.path().join(WORK_FILE).exists());
    }
}

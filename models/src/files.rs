//! The files that a model was made of, as digests of the bytes that were read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A BLAKE3 digest.
type FileDigest = [u8; 32];

/// Most directories within each other.
const MAX_DEPTH: usize = 16;
/// Most files of a model directory, those in its subdirectories included.
const MAX_FILES: usize = 10_000;

/// The files of a directory that a model was made of: digests of the files that were read, and the names of files that
/// were looked for but missing. Models of the same files give the same answers.
///
/// Recorded by [`ModelDirectory`](crate::ModelDirectory) while a family loads a model, from the bytes that it handed
/// out, so no file that a family reads can be missing here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFiles {
    directory: PathBuf,
    seen: BTreeMap<String, Seen>,
    /// True if a family was given the directory's path and may have read any file in it.
    all: bool,
}

/// Digests of a model's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelDigests {
    /// Digest of the weight files.
    pub weights: [u8; 32],
    /// Digest of all other files.
    pub processing: [u8; 32],
}

/// The record of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Absent,
    /// The file exists, and was not read.
    Present,
    Content(FileDigest),
    Weights(FileDigest),
}

impl ModelFiles {
    /// Digests the names and contents of the files that were read, and the names of the missing ones. If a family may
    /// have read any file, this reads all files of the directory and its subdirectories.
    ///
    /// # Errors
    /// An error of reading; or the directory has more than 10,000 files, or subdirectories more than 16 deep.
    pub fn digests(&self) -> io::Result<ModelDigests> {
        let (mut weights, mut processing) = (blake3::Hasher::new(), blake3::Hasher::new());
        for (name, seen) in &self.seen {
            let (hasher, kind, content) = match seen {
                Seen::Absent => (&mut processing, b'-', None),
                Seen::Present => (&mut processing, b'+', None),
                Seen::Content(digest) => (&mut processing, b'=', Some(digest)),
                Seen::Weights(digest) => (&mut weights, b'=', Some(digest)),
            };
            add(hasher, kind, name.as_bytes(), content);
        }
        if self.all {
            for (path, digest) in digests_below(&self.directory)? {
                let is_weights = path.extension().is_some_and(|extension| extension == "safetensors");
                let hasher = if is_weights { &mut weights } else { &mut processing };
                add(hasher, b'/', path.as_os_str().as_encoded_bytes(), Some(&digest));
            }
        }
        let [weights, processing] = [weights, processing].map(|hasher| *hasher.finalize().as_bytes());
        Ok(ModelDigests { weights, processing })
    }

    /// The first file that changed since `earlier` was recorded from the same directory, of the files in both records.
    #[must_use]
    pub fn changed_since(&self, earlier: &Self) -> Option<PathBuf> {
        let changed =
            |(name, seen): &(&String, &Seen)| earlier.seen.get(*name).is_some_and(|before| before.differs(**seen));
        self.seen.iter().find(changed).map(|(name, _)| self.directory.join(name))
    }
}

impl Seen {
    /// True if the two records show that the file has changed.
    fn differs(self, other: Self) -> bool {
        match (self.content(), other.content()) {
            (Some(one), Some(other)) => one != other,
            _ => (self == Self::Absent) != (other == Self::Absent),
        }
    }

    fn content(self) -> Option<FileDigest> {
        match self {
            Self::Absent | Self::Present => None,
            Self::Content(digest) | Self::Weights(digest) => Some(digest),
        }
    }
}

/// Hashes a name, its kind and its content. The name's length comes first, so that no two lists of files hash the same
/// bytes.
fn add(hasher: &mut blake3::Hasher, kind: u8, name: &[u8], content: Option<&FileDigest>) {
    hasher.update(&[kind]).update(&(name.len() as u64).to_le_bytes()).update(name);
    if let Some(content) = content {
        hasher.update(content);
    }
}

/// All files below a directory with their digests, in order of their paths. Links are followed, except links to a
/// directory that contains them.
fn digests_below(directory: &Path) -> io::Result<Vec<(PathBuf, FileDigest)>> {
    let mut files = Vec::new();
    list(directory, Path::new(""), &mut vec![directory.canonicalize()?], &mut files)?;
    files.sort();
    let digest = |path: PathBuf| {
        let digest = *blake3::Hasher::new().update_reader(File::open(directory.join(&path))?)?.finalize().as_bytes();
        Ok((path, digest))
    };
    files.into_iter().map(digest).collect()
}

fn list(root: &Path, below: &Path, within: &mut Vec<PathBuf>, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if within.len() > MAX_DEPTH {
        let message = format!("{} lies more than {MAX_DEPTH} directories deep", root.join(below).display());
        return Err(io::Error::other(message));
    }
    for entry in std::fs::read_dir(root.join(below))? {
        let path = below.join(entry?.file_name());
        // Broken links, pipes and devices are skipped.
        let Ok(metadata) = std::fs::metadata(root.join(&path)) else { continue };
        if metadata.is_dir() {
            let directory = root.join(&path).canonicalize()?;
            if !within.contains(&directory) {
                within.push(directory);
                list(root, &path, within, files)?;
                within.pop();
            }
        } else if metadata.is_file() && !is_about_decision(&path) {
            files.push(path);
            if files.len() > MAX_FILES {
                let message = format!("{} holds more than {MAX_FILES} files", root.display());
                return Err(io::Error::other(message));
            }
        }
    }
    Ok(())
}

/// True for a decision record and what belongs to it, which are made of a model's digests.
fn is_about_decision(path: &Path) -> bool {
    path.to_str().is_some_and(|name| name.starts_with("decision.") && !name.contains('/'))
}

/// Records the files that a family reads or looks for while it loads a model.
#[derive(Debug)]
pub(crate) struct FileRecorder {
    files: Mutex<ModelFiles>,
    parameters: AtomicUsize,
}

impl FileRecorder {
    pub(crate) fn of(directory: PathBuf) -> Self {
        let files = Mutex::new(ModelFiles { directory, seen: BTreeMap::new(), all: false });
        Self { files, parameters: AtomicUsize::new(0) }
    }

    pub(crate) fn parameters_are(&self, count: usize) {
        self.parameters.store(count, Ordering::Relaxed);
    }

    pub(crate) fn parameters(&self) -> usize {
        self.parameters.load(Ordering::Relaxed)
    }

    pub(crate) fn was_read(&self, name: &str, bytes: &[u8]) {
        self.saw(name, Seen::Content(*blake3::hash(bytes).as_bytes()));
    }

    pub(crate) fn weights_were_read(&self, name: &str, bytes: &[u8]) {
        self.saw(name, Seen::Weights(*blake3::hash(bytes).as_bytes()));
    }

    pub(crate) fn was_not_there(&self, name: &str) {
        self.saw(name, Seen::Absent);
    }

    /// Records that a file exists, unless it has been read already.
    pub(crate) fn was_there(&self, name: &str) {
        self.lock().seen.entry(name.to_owned()).or_insert(Seen::Present);
    }

    pub(crate) fn path_was_given(&self) {
        self.lock().all = true;
    }

    pub(crate) fn files(&self) -> ModelFiles {
        self.lock().clone()
    }

    fn saw(&self, name: &str, seen: Seen) {
        self.lock().seen.insert(name.to_owned(), seen);
    }

    fn lock(&self) -> MutexGuard<'_, ModelFiles> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_of(directory: &Path) -> io::Result<ModelDigests> {
        let record = FileRecorder::of(directory.to_owned());
        record.path_was_given();
        record.files().digests()
    }

    #[test]
    fn each_thing_that_a_family_was_told_has_digests_of_its_own() {
        type Telling = fn(&FileRecorder);
        let told: [Telling; 9] = [
            |_| {},
            |record| record.was_not_there("a"),
            |record| record.was_there("a"),
            |record| record.was_read("a", b""),
            |record| record.was_read("a", b"content"),
            |record| record.was_read("b", b"content"),
            |record| record.weights_were_read("a", b"content"),
            |record| record.weights_were_read("a", b"contents"),
            |record| {
                record.was_read("a", b"");
                record.was_read("b", b"content");
            },
        ];
        let digests = told.map(|tell| {
            let record = FileRecorder::of(PathBuf::new());
            tell(&record);
            record.files().digests().unwrap()
        });
        for (at, one) in digests.iter().enumerate() {
            assert!(!digests[..at].contains(one), "number {at} is like an earlier one");
        }
        assert_eq!(digests[6].processing, digests[7].processing, "weights do not count as anything else");
    }

    #[test]
    fn a_file_has_changed_if_its_content_has_or_it_came_or_went() {
        type Telling = fn(&FileRecorder);
        let files = |tell: Telling| {
            let record = FileRecorder::of(PathBuf::from("model"));
            tell(&record);
            record.files()
        };
        let (absent, there) = (files(|it| it.was_not_there("a")), files(|it| it.was_there("a")));
        let (one, other) = (files(|it| it.was_read("a", b"1")), files(|it| it.was_read("a", b"2")));
        for (before, after) in [(&absent, &there), (&one, &absent), (&one, &other)] {
            assert_eq!(after.changed_since(before), Some(PathBuf::from("model/a")));
            assert_eq!(after.changed_since(after), None);
        }
        assert_eq!(one.changed_since(&there), None, "nobody knows");
        assert_eq!(one.changed_since(&files(|_| {})), None, "the other did not look");
    }

    #[test]
    fn where_any_file_may_have_been_read_all_of_them_count_however_deep() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        let mut seen = vec![all_of(directory.path()).unwrap()];
        let mut changes = |what: &str| {
            let digests = all_of(directory.path()).unwrap();
            assert!(!seen.contains(&digests), "{what}");
            seen.push(digests);
        };
        std::fs::write(deep.join("vocabulary.bin"), "one").unwrap();
        changes("a new file");
        std::fs::write(deep.join("vocabulary.bin"), "other").unwrap();
        changes("other content");
        std::fs::rename(deep.join("vocabulary.bin"), directory.path().join("a/vocabulary.bin")).unwrap();
        changes("another place");
        std::fs::write(deep.join("model.safetensors"), "weights").unwrap();
        changes("weights");
        assert_eq!(seen[3].processing, seen[4].processing, "weights do not count as anything else");
        std::fs::write(directory.path().join("decision.json"), "made of these digests").unwrap();
        assert_eq!(all_of(directory.path()).unwrap(), seen[4]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_once_and_what_is_no_file_is_passed_over() {
        use std::os::unix::fs::symlink;
        let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |name| directory.path().join(name);
        symlink(directory.path(), at("itself")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        symlink(elsewhere.path(), at("linked")).unwrap();
        let before = all_of(directory.path()).unwrap();
        std::fs::write(elsewhere.path().join("vocabulary.bin"), "linked").unwrap();
        assert_ne!(all_of(directory.path()).unwrap(), before);
    }

    #[test]
    fn too_many_files_and_too_deep_ones_are_refused_with_the_bound() {
        let directory = tempfile::tempdir().unwrap();
        let deep = (0..=MAX_DEPTH).fold(directory.path().to_owned(), |path, _| path.join("a"));
        std::fs::create_dir_all(&deep).unwrap();
        assert!(all_of(directory.path()).unwrap_err().to_string().ends_with("more than 16 directories deep"));
        std::fs::remove_dir_all(directory.path().join("a")).unwrap();
        for number in 0..=MAX_FILES {
            std::fs::write(directory.path().join(number.to_string()), "").unwrap();
        }
        assert!(all_of(directory.path()).unwrap_err().to_string().ends_with("holds more than 10000 files"));
    }
}

//! Files that stand in for others: the pointer that Git LFS leaves, the page that a failed download leaves.

/// Says what a file is if it is not the one that its name promises, and what to do.
pub(crate) fn found(bytes: &[u8]) -> Option<&'static str> {
    let beginning = bytes.get(..64).unwrap_or(bytes).trim_ascii_start().to_ascii_lowercase();
    if beginning.starts_with(b"version https://git-lfs") {
        return Some("it is a pointer of Git LFS, not the file itself; run `git lfs pull` in the directory");
    }
    if beginning.starts_with(b"<!doctype html") || beginning.starts_with(b"<html") {
        return Some("it is an HTML page, as a failed download leaves it; download the file again");
    }
    None
}

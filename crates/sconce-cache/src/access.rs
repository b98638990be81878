//! What opening a database may do to it.

/// What opening a database may do to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// Makes the file or the table unless it is there.
    #[default]
    Create,
    /// Fails unless it is there; for commands that delete or copy, and would find an empty one where its name is wrong.
    Existing,
    /// Fails unless it is there, and so does each write; for commands that look.
    ReadOnly,
}

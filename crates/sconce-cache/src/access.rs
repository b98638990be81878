//! Access to a database: to create, to use, or to read it.

/// Access to a database, chosen when it is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// Creates the file or the table unless it exists.
    #[default]
    Create,
    /// Fails unless the file or table exists. For commands that delete or copy, which would otherwise work on an empty
    /// one if its name is wrong.
    Existing,
    /// Fails unless the file or table exists; every write fails too. For commands that only read.
    ReadOnly,
}

//! A snapshot of a working tree as a bare repository, for jobs to clone.
//!
//! Uncommitted and untracked files are in it, ignored ones are not. Nothing of the user's
//! repository changes: index, refs, stash and work tree are only read, and new objects go to
//! the snapshot, which borrows all others. It lives as long as the directory it was made in.

mod capture;
mod repository;

pub(crate) use capture::{Snapshot, create};

#[cfg(test)]
mod tests;

//! GitLab's ecosystem in both directions, unmodified, in Go: its plugins, old and new, do
//! every call under our host and our manager, and our plugins do under its library.
//!
//! The first build of the peers needs a Go module proxy; later ones use the module cache.

mod go;

//! Tests with peers in Go, and how those are built, started and found again.

mod calls;
mod dummy;
mod host;
mod hosted;
mod managed;
mod matrix;
mod ours;
mod program;
mod under_gitlab;

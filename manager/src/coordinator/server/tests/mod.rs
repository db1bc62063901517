//! The real server on a loopback port, spoken to in bytes and by the real `git`.

mod clone;
mod hostile;
mod life;
mod support;

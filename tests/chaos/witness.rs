//! Hears from the jobs themselves that they began and ended, whatever anybody else says.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A job that is stopped in the middle of its word says the rest later, or never.
const WORD_LIMIT: Duration = Duration::from_secs(30);

/// What one job said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) began: u32,
    pub(crate) ended: u32,
}

/// Listens until the test process ends.
pub(crate) struct Witness {
    port: u16,
    heard: Arc<Mutex<BTreeMap<u64, Heard>>>,
}

impl Witness {
    pub(crate) fn start() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = TcpListener::bind(any).expect("a port for the witness");
        let port = listener.local_addr().expect("the port has a number").port();
        let heard = Arc::new(Mutex::new(BTreeMap::<u64, Heard>::new()));
        let ears = Arc::clone(&heard);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let ears = Arc::clone(&ears);
                std::thread::spawn(move || {
                    let mut word = String::new();
                    let _ = stream.set_read_timeout(Some(WORD_LIMIT));
                    let _ = stream.read_to_string(&mut word);
                    let said = word.trim().split_once(' ');
                    let Some((word, Ok(job))) = said.map(|(word, id)| (word, id.parse())) else {
                        return;
                    };
                    let mut ears = ears.lock().unwrap_or_else(PoisonError::into_inner);
                    let heard = ears.entry(job).or_default();
                    match word {
                        "began" => heard.began += 1,
                        _ => heard.ended += 1,
                    }
                });
            }
        });
        Self { port, heard }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What a job said so far.
    pub(crate) fn of(&self, job: u64) -> Heard {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(&job).copied().unwrap_or_default()
    }
}

//! Frames: four bytes of length, big-endian, then the message. No IO.

use prost::Message;

/// Largest frame either side takes. Plans carry scripts and file variables; log frames
/// are far smaller.
const MAX_FRAME_BYTES: usize = 64 * 1024 * 1024;

/// A stream that is not one of frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A length that no frame has.
    #[error("a frame of {0} bytes: the other side does not speak the agent protocol")]
    TooLong(usize),
    /// A frame that does not decode.
    #[error("a frame does not decode: {0}")]
    Undecodable(#[from] prost::DecodeError),
}

/// `message` as a frame.
pub fn encode(message: &impl Message) -> Vec<u8> {
    let length = message.encoded_len();
    let mut frame = Vec::with_capacity(length + 4);
    frame.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    message.encode_raw(&mut frame);
    frame
}

/// Collects bytes and gives out the frames in them.
#[derive(Debug, Default)]
pub struct Frames {
    pending: Vec<u8>,
}

impl Frames {
    /// Takes bytes from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    pub fn take<M: Message + Default>(&mut self) -> Result<Option<M>, FrameError> {
        let Some((head, rest)) = self.pending.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*head) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(FrameError::TooLong(length));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let message = M::decode(&rest[..length])?;
        self.pending.drain(..4 + length);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Credit, ToAgent, to_agent};
    use super::*;

    #[test]
    fn frames_survive_any_split() {
        let frame = |until| encode(&ToAgent::from(to_agent::Message::Credit(Credit { until })));
        let stream: Vec<u8> = (0..3).flat_map(|n| frame(n * 1000)).collect();
        for split in 0..stream.len() {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for part in [&stream[..split], &stream[split..]] {
                frames.push(part);
                while let Some(message) = frames.take::<ToAgent>().expect("frames") {
                    let Some(to_agent::Message::Credit(credit)) = message.message else {
                        panic!("a credit was sent");
                    };
                    seen.push(credit.until);
                }
            }
            assert_eq!(seen, [0, 1000, 2000], "split at {split}");
        }
    }

    #[test]
    fn text_is_no_frame() {
        let mut frames = Frames::default();
        frames.push(b"bash: mayfly-agent: not found\n");
        assert!(matches!(frames.take::<ToAgent>(), Err(FrameError::TooLong(_))));
    }
}

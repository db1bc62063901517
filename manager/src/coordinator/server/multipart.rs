//! A multipart body, read as it comes: parts are never held in memory.
//!
//! Only what uploads need: the boundary of the content type, each part's name and file name,
//! its bytes. Anything that is not well formed ends the reading with an error.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

/// Largest head of a part, and largest preamble before the first one.
const HEAD_LIMIT: usize = 16 << 10;
/// Longest boundary: RFC 2046 allows 70.
const BOUNDARY_LIMIT: usize = 70;

/// Why a body could not be read on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MultipartError {
    #[error("the content type is not multipart/form-data with a boundary")]
    ContentType,
    #[error("the body is not well formed")]
    Malformed,
    #[error("the body is cut off")]
    CutOff,
}

/// A body under way.
pub(super) struct Multipart {
    body: Body,
    buffer: BytesMut,
    /// Line break, two dashes and the boundary: what ends a part.
    delimiter: Vec<u8>,
    is_ended: bool,
    place: Place,
}

/// What comes next in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Preamble,
    Part,
    /// A delimiter was read.
    Between,
}

/// The head of a part.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) file_name: Option<String>,
}

impl Multipart {
    pub(super) fn new(content_type: &str, body: Body) -> Result<Self, MultipartError> {
        let boundary = boundary(content_type).ok_or(MultipartError::ContentType)?;
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        // The first delimiter may stand at the very start, without a line break.
        let buffer = BytesMut::from(&b"\r\n"[..]);
        Ok(Self { body, buffer, delimiter, is_ended: false, place: Place::Preamble })
    }

    /// The next part; what is left of the one before is skipped.
    pub(super) async fn next_part(&mut self) -> Result<Option<Part>, MultipartError> {
        match self.place {
            Place::Preamble => self.skip_preamble().await?,
            Place::Part => while self.chunk().await?.is_some() {},
            Place::Between => {}
        }
        while self.buffer.len() < 2 {
            self.more().await?;
        }
        if self.buffer.starts_with(b"--") {
            return Ok(None);
        }
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head = self.buffer.split_to(end + 4);
                self.place = Place::Part;
                return part(&head).map(Some).ok_or(MultipartError::Malformed);
            }
            if self.buffer.len() > HEAD_LIMIT {
                return Err(MultipartError::Malformed);
            }
            self.more().await?;
        }
    }

    /// More bytes of the part; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, MultipartError> {
        if self.place != Place::Part {
            return Ok(None);
        }
        loop {
            if let Some(end) = find(&self.buffer, &self.delimiter) {
                let chunk = self.buffer.split_to(end).freeze();
                if chunk.is_empty() {
                    drop(self.buffer.split_to(self.delimiter.len()));
                    self.place = Place::Between;
                    return Ok(None);
                }
                return Ok(Some(chunk));
            }
            let safe = self.buffer.len().saturating_sub(self.delimiter.len() - 1);
            if safe > 0 {
                return Ok(Some(self.buffer.split_to(safe).freeze()));
            }
            self.more().await?;
        }
    }

    /// Reads what follows the last part, so that the connection can be used again.
    pub(super) async fn drain(mut self) -> Result<(), MultipartError> {
        let mut rest = self.buffer.len();
        while !self.is_ended {
            self.buffer.clear();
            self.more().await?;
            rest += self.buffer.len();
            if rest > HEAD_LIMIT {
                return Err(MultipartError::Malformed);
            }
        }
        Ok(())
    }

    async fn skip_preamble(&mut self) -> Result<(), MultipartError> {
        loop {
            if let Some(start) = find(&self.buffer, &self.delimiter) {
                drop(self.buffer.split_to(start + self.delimiter.len()));
                return Ok(());
            }
            if self.buffer.len() > HEAD_LIMIT {
                return Err(MultipartError::Malformed);
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<(), MultipartError> {
        if self.is_ended {
            return Err(MultipartError::CutOff);
        }
        match self.body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    self.buffer.extend_from_slice(&bytes);
                }
                Ok(())
            }
            Some(Err(_)) => Err(MultipartError::CutOff),
            None => {
                self.is_ended = true;
                Ok(())
            }
        }
    }
}

fn boundary(content_type: &str) -> Option<&str> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(parameters, "boundary")?;
    let is_sound = (1..=BOUNDARY_LIMIT).contains(&boundary.len())
        && boundary.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    is_sound.then_some(boundary)
}

/// A parameter of a header, out of its quotes.
fn parameter<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = text;
    loop {
        let (key, value) = rest.split_once('=')?;
        let key = key.trim_matches([' ', ';', '\t']);
        let (value, tail) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => value.split_once(';').unwrap_or((value, "")),
        };
        if key.eq_ignore_ascii_case(name) {
            return Some(value.trim());
        }
        rest = tail;
    }
}

fn part(head: &[u8]) -> Option<Part> {
    let head = std::str::from_utf8(head).ok()?;
    let lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
    let (_, disposition) = lines
        .into_iter()
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("content-disposition"))?;
    let (kind, parameters) = disposition.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return None;
    }
    let file_name = parameter(parameters, "filename").map(str::to_string);
    Some(Part { name: parameter(parameters, "name")?.to_string(), file_name })
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    let (first, rest) = wanted.split_first()?;
    let mut from = 0;
    while let Some(next) = text[from..].iter().position(|byte| byte == first) {
        let start = from + next;
        let end = start + wanted.len();
        if end > text.len() {
            return None;
        }
        if &text[start + 1..end] == rest {
            return Some(start);
        }
        from = start + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=XX";

    fn in_pieces(text: &[u8], size: usize) -> Body {
        let pieces: Vec<Result<Bytes, std::io::Error>> =
            text.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        Body::from_stream(tokio_stream::iter(pieces))
    }

    async fn read(
        text: &[u8],
        size: usize,
    ) -> Result<Vec<(String, Option<String>, Vec<u8>)>, MultipartError> {
        let mut multipart = Multipart::new(TYPE, in_pieces(text, size))?;
        let mut parts = Vec::new();
        while let Some(part) = multipart.next_part().await? {
            let mut bytes = Vec::new();
            while let Some(chunk) = multipart.chunk().await? {
                bytes.extend_from_slice(&chunk);
            }
            parts.push((part.name, part.file_name, bytes));
        }
        Ok(parts)
    }

    #[tokio::test]
    async fn parts_in_pieces_of_any_size() {
        let text = b"preamble\r\n--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n--XX\r\n\
            content-type: x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"o.zip\"\r\n\r\n\
            \r\n--X\r\n-\r--XX\r\n\r\n--XX--\r\n";
        let expected = vec![
            ("a".to_string(), None, b"".to_vec()),
            ("file".to_string(), Some("o.zip".to_string()), b"\r\n--X\r\n-\r--XX\r\n".to_vec()),
        ];
        for size in 1..text.len() {
            assert_eq!(read(text, size).await.as_ref(), Ok(&expected), "pieces of {size}");
        }
        for end in 0..text.len() - 4 {
            assert!(read(&text[..end], 7).await.is_err(), "cut at {end}");
        }
    }

    #[tokio::test]
    async fn hostile_bodies_end() {
        let endless = vec![b'x'; HEAD_LIMIT * 4];
        assert_eq!(read(&endless, 1000).await, Err(MultipartError::Malformed));
        let head = [b"--XX\r\n".to_vec(), endless].concat();
        assert_eq!(read(&head, 1000).await, Err(MultipartError::Malformed));
        let no_name = b"--XX\r\nContent-Disposition: form-data\r\n\r\nx\r\n--XX--\r\n";
        assert_eq!(read(no_name, 1000).await, Err(MultipartError::Malformed));
    }

    #[test]
    fn boundaries() {
        let table = [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("Multipart/Form-Data; charset=utf-8; boundary=\"a b;c\"", Some("a b;c")),
            ("multipart/mixed; boundary=abc", None),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("multipart/form-data; boundary=\"\r\n\"", None),
        ];
        for (content_type, expected) in table {
            assert_eq!(boundary(content_type), expected, "{content_type:?}");
        }
    }
}

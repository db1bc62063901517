//! Uploads archives, streamed: no archive is ever whole on the instance's disk.

use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use job::plan::{Archive, Upload};
use ureq::SendBody;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::files;
use super::http::{Attempt, Http, is_temporary, retry};
use crate::Error;

/// Separates the parts of the form. It need only not occur in the file's head.
const BOUNDARY: &str = "mayfly-b9f7a1c2d4e60358";

pub(super) fn run(http: &Http, project_dir: &str, upload: &Upload) -> Result<(), Error> {
    println!("Uploading artifacts...");
    for archive in &upload.archives {
        one(http, Path::new(project_dir), upload, archive)?;
    }
    Ok(())
}

fn one(http: &Http, project: &Path, upload: &Upload, archive: &Archive) -> Result<(), Error> {
    let selected = files::select(project, archive)?;
    if selected.is_empty() {
        println!("ERROR: No files to upload");
        return Ok(());
    }
    let kind = or(&archive.artifact_type, "archive");
    let format = Format::of(archive)?;
    let url = http.url(upload.job_id, &query(archive, format));
    let what = format!("Uploading artifacts as {kind:?} to coordinator...");
    retry(&what, || {
        let body = form(project, &selected, archive, format);
        let limit = Duration::from_millis(upload.timeout_ms);
        let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
        let sent = body.and_then(|body| {
            let body = (SendBody::from_owned_reader(body), limit);
            http.post(&url, &upload.job_token, &content_type, body)
                .map_err(|error| Error::new(error.to_string()))
        });
        let mut reply = match sent {
            Ok(reply) => reply,
            Err(error) => return Attempt::Again(error.to_string()),
        };
        let status = reply.status();
        if status.as_u16() == 201 {
            println!("{what} 201 Created id={}", upload.job_id);
            return Attempt::Done(());
        }
        let text = reply.body_mut().read_to_string().unwrap_or_default();
        let text: String = text.chars().take(200).collect();
        let why = format!("{status} {}", text.trim());
        match status.as_u16() {
            413 => Attempt::Never(format!("{status}: too large archive")),
            code if is_temporary(code) => Attempt::Again(why),
            _ => Attempt::Never(why),
        }
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Zip,
    Gzip,
    Raw,
}

impl Format {
    fn of(archive: &Archive) -> Result<Self, Error> {
        match archive.artifact_format.as_str() {
            "" | "zip" => Ok(Self::Zip),
            "gzip" => Ok(Self::Gzip),
            "raw" => Ok(Self::Raw),
            other => Err(Error::new(format!("artifact format {other:?} is not supported"))),
        }
    }
}

fn query(archive: &Archive, format: Format) -> String {
    let format = match format {
        Format::Zip => "zip",
        Format::Gzip => "gzip",
        Format::Raw => "raw",
    };
    let kind = or(&archive.artifact_type, "archive");
    let mut query = format!("artifacts?artifact_format={format}&artifact_type={}", escape(kind));
    if !archive.expire_in.is_empty() {
        query.push_str(&format!("&expire_in={}", escape(&archive.expire_in)));
    }
    query
}

/// Percent-encodes everything that is not plain in a query.
fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte: u8| match byte {
        byte if plain(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

fn file_name(archive: &Archive, format: Format) -> String {
    let name = or(&archive.name, or(&archive.artifact_type, "artifacts"));
    let name: String = name
        .chars()
        .map(|c| if c == '"' || c == '/' || c.is_control() { '_' } else { c })
        .collect();
    match format {
        Format::Zip => format!("{name}.zip"),
        Format::Gzip => format!("{name}.gz"),
        Format::Raw => name,
    }
}

/// The form with the archive in it, made while it is read.
fn form(
    project: &Path,
    selected: &[PathBuf],
    archive: &Archive,
    format: Format,
) -> Result<impl Read + 'static, Error> {
    let name = file_name(archive, format);
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    let tail = format!("\r\n--{BOUNDARY}--\r\n");
    let (reader, writer) = io::pipe().map_err(Error::io("cannot make a pipe"))?;
    let (project, selected) = (project.to_owned(), selected.to_vec());
    let making = thread::spawn(move || write_archive(writer, &project, &selected, format));
    let content = Checked { reader, making: Some(making) };
    Ok(io::Cursor::new(head).chain(content).chain(io::Cursor::new(tail)))
}

/// The archive's bytes; an error in making it is an error in reading it, so that a torn
/// archive is never sent as a whole one.
struct Checked {
    reader: PipeReader,
    making: Option<thread::JoinHandle<io::Result<()>>>,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        if read == 0
            && !buffer.is_empty()
            && let Some(making) = self.making.take()
        {
            making.join().map_err(|_| io::Error::other("making the archive failed"))??;
        }
        Ok(read)
    }
}

fn write_archive(
    writer: PipeWriter,
    project: &Path,
    selected: &[PathBuf],
    format: Format,
) -> io::Result<()> {
    match format {
        Format::Zip => write_zip(writer, project, selected),
        Format::Gzip => write_gzip(writer, project, selected),
        Format::Raw => {
            for (_, file) in files(project, selected) {
                io::copy(&mut file?, &mut { &writer })?;
            }
            Ok(())
        }
    }
}

/// One gzip stream per file, each with its name: the server reads reports one by one.
fn write_gzip(mut writer: PipeWriter, project: &Path, selected: &[PathBuf]) -> io::Result<()> {
    for (name, file) in files(project, selected) {
        let builder = flate2::GzBuilder::new().filename(name.as_os_str().as_encoded_bytes());
        let mut gzip = builder.write(&mut writer, flate2::Compression::default());
        io::copy(&mut file?, &mut gzip)?;
        gzip.finish()?;
    }
    writer.flush()
}

/// The regular files among the selected paths.
fn files<'a>(
    project: &'a Path,
    selected: &'a [PathBuf],
) -> impl Iterator<Item = (&'a Path, io::Result<fs::File>)> {
    let is_file = |path: &&PathBuf| {
        fs::symlink_metadata(project.join(path)).is_ok_and(|metadata| metadata.is_file())
    };
    selected.iter().filter(is_file).map(|path| (path.as_path(), fs::File::open(project.join(path))))
}

fn write_zip(writer: PipeWriter, project: &Path, selected: &[PathBuf]) -> io::Result<()> {
    let mut zip = ZipWriter::new_stream(writer);
    for relative in selected {
        let path = project.join(relative);
        // What vanished since it was selected is left out, as if it had been too early.
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        let name = relative.to_string_lossy();
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .large_file(metadata.len() >= u64::from(u32::MAX))
            .unix_permissions(metadata.permissions().mode() & 0o7777);
        if metadata.is_dir() {
            zip.add_directory(name, options)?;
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path)?;
            zip.add_symlink(name, target.to_string_lossy(), options)?;
        } else if metadata.is_file() {
            zip.start_file(name, options)?;
            io::copy(&mut fs::File::open(&path)?, &mut zip)?;
        }
    }
    zip.finish()?.into_inner().flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        let archive = Archive { expire_in: "1 week & more".into(), ..Archive::default() };
        assert_eq!(
            query(&archive, Format::Zip),
            "artifacts?artifact_format=zip&artifact_type=archive&expire_in=1%20week%20%26%20more"
        );
    }

    #[test]
    fn file_names_are_safe_in_a_header() {
        let named = |name: &str| Archive { name: name.into(), ..Archive::default() };
        assert_eq!(file_name(&named(""), Format::Zip), "artifacts.zip");
        assert_eq!(file_name(&named("a\"b/c\r\n"), Format::Gzip), "a_b_c__.gz");
    }
}

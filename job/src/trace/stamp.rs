//! The header that GitLab's log viewer reads before each line (FF_TIMESTAMPS):
//! `YYYY-MM-DDTHH:MM:SS.UUUUUUZ <stream><O|E><flag>`, flag `+` where the line goes on
//! from the last entry of its stream.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Whose line it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// The runner's own lines.
    Runner,
    /// What the job prints. stdout and stderr share one pipe, so that their order is
    /// that of the job.
    Work,
}

impl Stream {
    fn mark(self) -> &'static str {
        match self {
            Self::Runner => "00O",
            Self::Work => "01O",
        }
    }
}

/// Stamps the entries of both streams into one log.
#[derive(Debug, Default)]
pub(super) struct Stamper {
    /// The stream whose entry has no newline yet.
    open: Option<Stream>,
    /// Whether the next entry of a stream goes on from its last one.
    continues: [bool; 2],
}

impl Stamper {
    pub(super) fn push(
        &mut self,
        stream: Stream,
        bytes: &[u8],
        now: SystemTime,
        out: &mut Vec<u8>,
    ) {
        if bytes.is_empty() {
            return;
        }
        if self.open.is_some_and(|open| open != stream) {
            self.close_entry(out);
        }
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.open.is_none() {
                self.header(stream, now, out);
                self.open = Some(stream);
            }
            out.extend_from_slice(line);
            if line.ends_with(b"\n") {
                self.open = None;
                self.continues[stream as usize] = false;
            } else if line.contains(&b'\r') {
                // A progress bar: its states are entries of their own, to be seen live.
                self.close_entry(out);
            }
        }
    }

    /// Ends the entry that is open, so that another may begin.
    fn close_entry(&mut self, out: &mut Vec<u8>) {
        if let Some(stream) = self.open.take() {
            out.push(b'\n');
            self.continues[stream as usize] = true;
        }
    }

    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        self.close_entry(out);
    }

    fn header(&self, stream: Stream, now: SystemTime, out: &mut Vec<u8>) {
        let flag = if self.continues[stream as usize] { '+' } else { ' ' };
        let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let text = format!("{} {}{flag}", utc(since), stream.mark());
        out.extend_from_slice(text.as_bytes());
    }
}

/// A time since the epoch as `YYYY-MM-DDTHH:MM:SS.UUUUUUZ`.
fn utc(since: Duration) -> String {
    let seconds = since.as_secs();
    let (days, in_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (in_day / 3600, in_day / 60 % 60, in_day % 60);
    let micros = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Days since 1970-01-01 as year, month and day: whole 400-year eras, then years that
/// begin in March, so that the leap day is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_EPOCH_FROM_0000_03_01: u64 = 719_468;
    const DAYS_PER_ERA: u64 = 146_097;
    let days = days + DAYS_TO_EPOCH_FROM_0000_03_01;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(writes: &[(Stream, &str)]) -> String {
        let mut stamper = Stamper::default();
        let mut out = Vec::new();
        let start = UNIX_EPOCH + Duration::from_micros(1_609_459_200_020_010);
        for (n, (stream, text)) in writes.iter().enumerate() {
            let now = start + Duration::from_secs(3600 * (n as u64 + 1));
            stamper.push(*stream, text.as_bytes(), now, &mut out);
        }
        stamper.flush(&mut out);
        String::from_utf8(out).expect("text").replace("2021-01-01T", "")
    }

    #[test]
    fn lines_get_a_header_each() {
        use Stream::{Runner, Work};
        let cases: [(&[(Stream, &str)], &str); 6] = [
            (&[(Runner, "a\nb\n")], "01:00:00.020010Z 00O a\n01:00:00.020010Z 00O b\n"),
            (&[(Work, "a"), (Work, "b\n")], "01:00:00.020010Z 01O ab\n"),
            (
                &[(Work, "50%\r"), (Work, "100%\r\n"), (Work, "next\n")],
                "01:00:00.020010Z 01O 50%\r\n02:00:00.020010Z 01O+100%\r\n03:00:00.020010Z 01O next\n",
            ),
            (
                &[(Runner, "section_start:1:a\r\x1b[0K"), (Runner, "Title\n")],
                "01:00:00.020010Z 00O section_start:1:a\r\x1b[0K\n02:00:00.020010Z 00O+Title\n",
            ),
            (
                &[(Work, "half "), (Runner, "x\n"), (Work, "line\n")],
                "01:00:00.020010Z 01O half \n02:00:00.020010Z 00O x\n03:00:00.020010Z 01O+line\n",
            ),
            (&[(Work, "end")], "01:00:00.020010Z 01O end\n"),
        ];
        for (writes, expected) in cases {
            assert_eq!(stamp(writes), expected);
        }
    }

    #[test]
    fn dates_are_right() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000Z"),
            (1_795_564_800, "2026-11-25T00:00:00.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(utc(Duration::from_secs(seconds)), expected);
        }
    }
}

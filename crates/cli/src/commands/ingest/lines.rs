//! Reading lines from a file or a pipe in bounded memory: a line that is too long is passed over, and said.

use std::io::{BufRead, BufReader, Read};

use runledger_store::CONTENT_BYTES_MAX;

/// How a line of `export` begins.
const EXPORTED: &[u8] = b"{\"position\":";
/// The longest line of `export`: the largest event of a log, and what stands beside it.
const EXPORTED_BYTES_MAX: usize = CONTENT_BYTES_MAX + (64 << 20);
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Text(String),
    /// It cannot be taken, and why.
    Bad(String),
}

/// Numbered lines, from 1; blank ones are counted and left out.
pub(crate) struct Lines<R> {
    reader: R,
    bytes_max: usize,
    number: u64,
    bytes_read: u64,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R, bytes_max: usize) -> Self {
        Self { reader, bytes_max, number: 0, bytes_read: 0 }
    }

    /// Bytes read so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// The next line, its number, and whether it can be taken.
    pub(crate) fn next(&mut self) -> std::io::Result<Option<(u64, Line)>> {
        loop {
            let mut bytes = Vec::new();
            let mut read = self.read_up_to(self.bytes_max, &mut bytes)?;
            if read == 0 {
                return Ok(None);
            }
            let mut bytes_max = self.bytes_max;
            let is_cut = bytes.len() > bytes_max && bytes.last() != Some(&b'\n');
            if is_cut && bytes.starts_with(EXPORTED) {
                // A line of `export` holds an event that a log has taken, and some more.
                bytes_max = bytes_max.max(EXPORTED_BYTES_MAX);
                read += self.read_up_to(bytes_max - bytes.len(), &mut bytes)?;
            }
            self.number += 1;
            self.bytes_read += read as u64;
            if self.number == 1 && bytes.starts_with(BYTE_ORDER_MARK) {
                bytes.drain(..BYTE_ORDER_MARK.len());
            }
            if bytes.last() != Some(&b'\n') && bytes.len() > bytes_max {
                self.pass_over()?;
                let reason = format!("the line is longer than {} bytes; --line-bytes-max takes more", self.bytes_max);
                return Ok(Some((self.number, Line::Bad(reason))));
            }
            if bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let line = match String::from_utf8(bytes) {
                Ok(text) => Line::Text(text),
                Err(error) => {
                    Line::Bad(format!("no UTF-8 from byte {} of the line on", error.utf8_error().valid_up_to() + 1))
                }
            };
            return Ok(Some((self.number, line)));
        }
    }

    /// Reads on to the line's end, but one byte beyond `limit` at the most.
    fn read_up_to(&mut self, limit: usize, bytes: &mut Vec<u8>) -> std::io::Result<usize> {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        self.reader.by_ref().take(limit).read_until(b'\n', bytes)
    }

    /// Reads on to the line's end without keeping it.
    fn pass_over(&mut self) -> std::io::Result<()> {
        loop {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                return Ok(());
            }
            let (length, is_end) = match buffer.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (buffer.len(), false),
            };
            self.reader.consume(length);
            self.bytes_read += length as u64;
            if is_end {
                return Ok(());
            }
        }
    }
}

impl<R: Read> Lines<BufReader<R>> {
    /// Whether a whole line is in the buffer, so that reading it does not wait for a pipe.
    pub(crate) fn is_buffered(&self) -> bool {
        self.reader.buffer().contains(&b'\n')
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn long_blank_and_broken_lines_are_numbered_and_the_others_kept() {
        let text = b"one\n\n  \nfar too long a line\n\xff\xfe\nlast".to_vec();
        let mut lines = Lines::new(BufReader::with_capacity(4, &text[..]), 8);
        let mut found = Vec::new();
        while let Some((number, line)) = lines.next().expect("memory") {
            found.push((number, matches!(line, Line::Text(_))));
        }
        assert_eq!(found, [(1, true), (4, false), (5, false), (6, true)]);
        assert_eq!(lines.bytes_read(), text.len() as u64);
    }

    #[test]
    fn a_line_of_export_that_is_just_as_long_as_is_taken_ends_at_its_own_break() {
        let text = b"{\"position\":1}\n{\"position\":2}\n{\"position\":345}\nlast".to_vec();
        let mut lines = Lines::new(&text[..], 14);
        let mut found = Vec::new();
        while let Some((number, line)) = lines.next().expect("memory") {
            found.push((number, line));
        }
        let texts = ["{\"position\":1}\n", "{\"position\":2}\n", "{\"position\":345}\n", "last"];
        let texts = texts.map(|text| Line::Text(text.to_owned()));
        assert_eq!(found, (1..).zip(texts).collect::<Vec<_>>());
    }
}

//! Reading a file whole, up to a bound: one that is longer, or never ends, costs no more memory than that.

use std::fs::File;
use std::io::{Error, Read};
use std::path::Path;

/// The bytes of a file.
///
/// # Errors
/// The system's, or that the file is longer than `bytes_max`.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(read).is_ok_and(|read| read <= bytes_max) {
        return Ok(bytes);
    }
    Err(Error::other(format!("it is longer than {bytes_max} bytes, and no more are read; shorten it")))
}

/// The text of a file.
///
/// # Errors
/// As of [`read`], and where it is no UTF-8.
pub(crate) fn read_text(path: &Path, bytes_max: u64) -> Result<String, Error> {
    String::from_utf8(read(path, bytes_max)?).map_err(|error| Error::new(std::io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_file_of_the_bound_is_read_and_a_longer_or_endless_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "12345");
        for (path, bytes_max) in [(path.as_path(), 4), (Path::new("/dev/zero"), 1 << 16)] {
            let error = read(path, bytes_max).unwrap_err().to_string();
            assert!(error.contains(&format!("longer than {bytes_max} bytes")), "{error}");
        }
    }
}

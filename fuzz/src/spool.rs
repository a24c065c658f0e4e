//! Lines of a spool: whole, torn, and of any JSON behind the right checksum.

use runledger_events::content_digest;
use runledger_store::SpoolRecord;

/// Any bytes as a line, and as the JSON of one.
pub fn spool(bytes: &[u8]) {
    line(bytes);
    let checksum = content_digest(bytes).to_string();
    line(&[&checksum.as_bytes()[..16], b" ", bytes].concat());
}

fn line(bytes: &[u8]) {
    let record = match SpoolRecord::from_line(bytes) {
        Ok(record) => record,
        Err(reason) => return assert!((1..4096).contains(&reason.len()), "a reason is short"),
    };
    let written = record.to_line().expect("what was read can be written");
    let written = written.strip_suffix('\n').expect("a whole line").as_bytes();
    assert!(!written.contains(&b'\n'));
    assert_eq!(SpoolRecord::from_line(written).as_ref(), Ok(&record));
    for end in [0, 1, 16, 17, written.len() / 2, written.len() - 1] {
        assert!(SpoolRecord::from_line(&written[..end]).is_err(), "a torn line is refused");
    }
    let _ = record.into_append();
}

//! What a loss of power could leave of a database's files.
//!
//! Model: what was synced is on the disk. Of what was done to a file since its last sync any part may be, in any order, and
//! a write may be torn: some of its sectors are new, others are not. A file's length may have grown without the bytes, and
//! then holds zeros or noise there. Bytes outside of a write are not touched by it (SQLite's powersafe overwrite). With the
//! first sync of a new file SQLite syncs its folder: then it is on the disk which files there are. After a failed sync, what
//! it was about may be on the disk or not, whatever is synced later: Linux takes such pages for written, and tells
//! every handle of the file once that something failed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::random::Random;
use crate::watch::{Change, Entry};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// The files of a database after a loss of power.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// By what stands behind the database's name.
    files: BTreeMap<Arc<str>, Vec<u8>>,
}

impl Image {
    /// What is left if the power goes after these entries: the journal, up to any point. `random` decides where there is a
    /// choice.
    pub fn after(journal: &[Entry], random: &mut Random) -> Self {
        let mut files = BTreeMap::<Arc<str>, File<'_>>::new();
        for Entry { suffix, change } in journal {
            let file = files.entry(suffix.clone()).or_default();
            match change {
                Change::Found(bytes) => file.on_disk = Some(bytes.clone()),
                Change::Synced => {
                    let syncs_folder = file.is_new();
                    file.sync();
                    if syncs_folder {
                        files.values_mut().for_each(File::sync_name);
                    }
                }
                Change::SyncFailed => {
                    let created = file.pending.iter().copied().find(|change| **change == Change::Created);
                    file.settle(random);
                    // Its folder was not synced, and is with the next one.
                    file.pending.extend(created.filter(|_| file.on_disk.is_none()));
                }
                Change::Deleted { is_synced: true } => {
                    file.pending.clear();
                    file.on_disk = None;
                }
                change => file.pending.push(change),
            }
        }
        let settled = files.into_iter().filter_map(|(suffix, mut file)| {
            file.settle(random);
            Some((suffix, file.on_disk?))
        });
        Self { files: settled.collect() }
    }

    /// Writes the files, under the name of the database at `path`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        for (suffix, bytes) in &self.files {
            let mut name = path.as_os_str().to_owned();
            name.push(&**suffix);
            std::fs::write(name, bytes)?;
        }
        Ok(())
    }

    /// The bytes of the file with this behind the database's name, if it is there.
    pub fn file(&self, suffix: &str) -> Option<&[u8]> {
        self.files.get(suffix).map(Vec::as_slice)
    }
}

/// A file: what is on the disk, if it is there, and what is not yet.
#[derive(Default)]
struct File<'a> {
    on_disk: Option<Vec<u8>>,
    pending: Vec<&'a Change>,
}

impl<'a> File<'a> {
    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            self.apply(change);
        }
    }

    /// Whether its name is not yet sure to be on the disk.
    fn is_new(&self) -> bool {
        self.pending.contains(&&Change::Created)
    }

    /// Whether it is there is on the disk; what is in it is not.
    fn sync_name(&mut self) {
        if let Some(deleted) = self.pending.iter().rposition(|change| matches!(change, Change::Deleted { .. })) {
            self.pending.drain(..=deleted);
            self.on_disk = None;
        }
        if self.is_new() {
            self.on_disk.get_or_insert_default();
            self.pending.retain(|change| **change != Change::Created);
        }
    }

    /// Chance decides what of the pending changes comes to be on the disk; the rest is gone.
    fn settle(&mut self, random: &mut Random) {
        let mut pending = std::mem::take(&mut self.pending);
        match random.below(5) {
            0 => pending.clear(),
            1 => {}
            2 => {
                // The disk was in the middle of one.
                pending.truncate(random.below(pending.len() + 1));
                if let Some(last) = pending.pop() {
                    pending.into_iter().for_each(|change| self.apply(change));
                    self.tear(last, random);
                }
                return;
            }
            chaos => {
                let lost_once_in = 2 + random.below(6);
                pending.retain(|_| !random.once_in(lost_once_in));
                if chaos == 4 {
                    random.shuffle(&mut pending);
                }
                for change in pending {
                    if random.once_in(4) { self.tear(change, random) } else { self.apply(change) }
                }
                return;
            }
        }
        pending.into_iter().for_each(|change| self.apply(change));
    }

    fn apply(&mut self, change: &'a Change) {
        match (change, &mut self.on_disk) {
            (Change::Created, on_disk) => drop(on_disk.get_or_insert_default()),
            (Change::Deleted { .. }, on_disk) => *on_disk = None,
            (Change::Written { offset, bytes }, Some(file)) => put(file, *offset, bytes),
            // SQLite never makes a file longer by this.
            (Change::Truncated(length), Some(file)) => file.truncate(index(*length)),
            // Its name is not on the disk, or this was seen to before.
            _ => {}
        }
    }

    /// Some sectors of a write come to be on the disk; another change does or does not.
    fn tear(&mut self, change: &'a Change, random: &mut Random) {
        let Change::Written { offset, bytes } = change else {
            if random.once_in(2) {
                self.apply(change);
            }
            return;
        };
        let Some(file) = &mut self.on_disk else {
            return;
        };
        // Whether the length went first, with noise where the bytes are to come.
        let grows_with_noise = random.once_in(2);
        let mut at = 0;
        while at < bytes.len() {
            let position = offset + at as u64;
            let rest = index(SECTOR_BYTES - position % SECTOR_BYTES);
            let sector = &bytes[at..bytes.len().min(at + rest)];
            if random.once_in(2) {
                put(file, position, sector);
            } else if grows_with_noise && position >= file.len() as u64 {
                let noise: Vec<u8> = sector.iter().map(|_| random.number().to_le_bytes()[0]).collect();
                put(file, position, &noise);
            }
            at += sector.len();
        }
    }
}

/// Writes bytes into a file; what it does not have before them is zeros.
fn put(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (start, end) = (index(offset), index(offset) + bytes.len());
    if file.len() < end {
        file.resize(end, 0);
    }
    file[start..end].copy_from_slice(bytes);
}

/// Images are held in memory, so their offsets fit.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(change: Change) -> Entry {
        Entry { suffix: "".into(), change }
    }

    fn written(offset: u64, byte: u8, count: usize) -> Entry {
        entry(Change::Written { offset, bytes: vec![byte; count] })
    }

    /// What is left of the file in each of many images.
    fn left(journal: &[Entry]) -> Vec<Option<Vec<u8>>> {
        let mut random = Random::new(7);
        (0..500).map(|_| Image::after(journal, &mut random).file("").map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn what_was_synced_is_there_and_nothing_else_is_sure() {
        let journal = [
            entry(Change::Created),
            written(0, 1, 1024),
            entry(Change::Synced),
            written(0, 2, 512),
            written(512, 3, 512),
        ];
        let left = left(&journal);
        assert!(left.iter().flatten().all(|file| file.len() == 1024));
        let mut seen: Vec<(u8, u8)> = left.iter().flatten().map(|file| (file[0], file[512])).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [(1, 1), (1, 3), (2, 1), (2, 3)], "each of both writes may be there without the other");
    }

    #[test]
    fn a_write_may_be_torn_between_sectors_but_never_within_one() {
        let left = left(&[entry(Change::Found(vec![1; 1536])), written(256, 2, 1024)]);
        let files: Vec<Vec<u8>> = left.into_iter().flatten().collect();
        let sector = |file: &[u8], from: usize, to: usize| {
            assert!(file[from..to].iter().all(|byte| *byte == file[from]), "a sector is whole");
            file[from]
        };
        let mut seen: Vec<[u8; 3]> = files
            .iter()
            .map(|file| [sector(file, 256, 512), sector(file, 512, 1024), sector(file, 1024, 1280)])
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 8, "any of its sectors: {seen:?}");
        assert!(
            files.iter().all(|file| file[..256] == [1; 256] && file[1280..] == [1; 256]),
            "nothing else is touched"
        );
    }

    #[test]
    fn a_new_file_may_be_missing_and_a_removed_one_there_until_that_is_synced() {
        let unsure = left(&[entry(Change::Created), written(0, 1, 10)]);
        assert!(unsure.contains(&None) && unsure.contains(&Some(vec![1; 10])));
        let unsure = left(&[entry(Change::Found(vec![1])), entry(Change::Deleted { is_synced: false })]);
        assert!(unsure.contains(&None) && unsure.contains(&Some(vec![1])));
        let gone = left(&[entry(Change::Found(vec![1])), entry(Change::Deleted { is_synced: true })]);
        assert!(gone.iter().all(Option::is_none));
        let another = |change| Entry { suffix: "-wal".into(), change };
        let with_another = [
            entry(Change::Found(vec![1])),
            entry(Change::Deleted { is_synced: false }),
            another(Change::Created),
            another(Change::Synced),
        ];
        assert!(left(&with_another).iter().all(Option::is_none), "the folder was synced with the other one");
    }

    #[test]
    fn a_sync_after_a_failed_one_does_not_make_sure_of_what_that_one_was_about() {
        let journal = [
            entry(Change::Found(vec![1; 1024])),
            written(0, 2, 512),
            entry(Change::SyncFailed),
            written(512, 3, 512),
            entry(Change::Synced),
        ];
        let left = left(&journal);
        assert!(left.iter().flatten().all(|file| file[512] == 3));
        assert!(left.iter().flatten().any(|file| file[0] == 1) && left.iter().flatten().any(|file| file[0] == 2));
    }

    #[test]
    fn the_same_seed_gives_the_same_image() {
        let journal =
            [entry(Change::Created), written(0, 1, 9000), written(100, 2, 5000), entry(Change::Truncated(700))];
        let images = |seed| {
            let mut random = Random::new(seed);
            (0..20).map(|_| Image::after(&journal, &mut random)).collect::<Vec<_>>()
        };
        assert_eq!(images(1), images(1));
        assert_ne!(images(1), images(2));
    }
}

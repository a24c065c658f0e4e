//! The committed corpus, a bounded number of changes to it, and values that no harness writes, through every target.
//!
//! A finding is printed with its target, file and seed. `FUZZ_SEED=n` begins at another seed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use runledger_fuzz::mutate::{Random, changed, hostile_values, with_value, words};
use runledger_fuzz::{TARGETS, Target};

/// Colons of a file behind which hostile values are put, at the most.
const COLONS_MAX: usize = 5;
const SEED: u64 = 20_261_130;

/// The files of a target, by name.
fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("a corpus").map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no corpus", target.name);
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    paths.into_iter().map(|path| (name(&path), std::fs::read(&path).expect("a readable file"))).collect()
}

/// Runs one input; where it panics, says which it was.
fn run(target: &Target, what: &str, bytes: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).is_err() {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-finding", target.name));
        std::fs::write(&path, bytes).expect("a file");
        panic!("{} broke a promise on {what}; the input is {}", target.name, path.display());
    }
}

#[test]
fn every_target_has_a_program_and_a_small_corpus_of_its_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut bytes = 0;
    for target in &TARGETS {
        let program = std::fs::read_to_string(root.join("fuzz_targets").join(format!("{}.rs", target.name)));
        assert!(program.expect("a program").contains(&format!("runledger_fuzz::{}(", target.name)));
        bytes += corpus(target).iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    }
    assert!(bytes < 100 << 10, "the corpus has {bytes} bytes");
}

#[test]
fn the_corpus_and_changes_to_it_break_no_promise() {
    let words = words();
    let first_seed = std::env::var("FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    for target in &TARGETS {
        let files = corpus(target);
        for (at, (name, bytes)) in files.iter().enumerate() {
            run(target, name, bytes);
            for change in 0..target.changes {
                let mut random =
                    Random(first_seed.wrapping_add(change).wrapping_mul(1_000_003).wrapping_add(at as u64));
                let other = &files[random.below(files.len())].1;
                let input = changed(bytes, other, &words, &mut random);
                run(target, &format!("change {change} of {name}, seed {first_seed}"), &input);
            }
        }
    }
}

#[test]
fn values_deeper_longer_and_stranger_than_any_harness_writes_break_no_promise() {
    let values = hostile_values();
    // A ledger's choices are bytes, of which these are no more than others.
    for target in TARGETS.iter().filter(|target| target.name != "api") {
        for value in &values {
            run(target, "a hostile value alone", value);
        }
        for (name, bytes) in corpus(target) {
            for at in 0..COLONS_MAX {
                for (index, value) in values.iter().enumerate() {
                    if let Some(input) = with_value(&bytes, at, value) {
                        run(target, &format!("hostile value {index} at colon {at} of {name}"), &input);
                    }
                }
            }
        }
    }
}

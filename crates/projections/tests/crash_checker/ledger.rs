//! Everything that has to hold of a ledger after its processes have died.

use std::path::Path;

use runledger_store::{LogReader, OpenError};

use crate::acknowledged::{Acknowledged, Key};
use crate::support::{NAMES, all, assert_no_leftovers, assert_verifies, dump, fresh_dump, open};
use crate::workers::{is_on_servers, opened};

/// The log is whole and has what was acknowledged; the read models are whole where they stand, and catch up.
pub(crate) fn assert_whole(ledger: &Path, acknowledged: &mut Acknowledged, requests: &[Vec<Key>], when: &str) {
    let reader = match LogReader::open(ledger) {
        // They died before there was one.
        Err(OpenError::Missing { .. }) => {
            assert_eq!(acknowledged.count(), 0, "{when}: the ledger is gone");
            return;
        }
        reader => reader.unwrap(),
    };
    if is_on_servers(ledger) {
        opened(ledger).refresh().unwrap();
    }
    let faults = acknowledged.faults(&all(&reader), requests);
    assert!(
        faults.is_empty(),
        "{when}: {} faults, the first of them {:#?}",
        faults.len(),
        &faults[..faults.len().min(5)]
    );
    let report = reader.verify(|_| {}).unwrap();
    assert_eq!(report.findings, [], "{when}");

    let mut projections = open(ledger);
    for name in NAMES {
        if projections.checkpoint(name).unwrap().is_some() {
            let verified = projections.verify(name, &mut |_| {}).unwrap();
            assert_eq!(verified.differences, [], "{when}: {name} as it was left");
        }
    }
    projections.catch_up().unwrap();
    assert_verifies(&mut projections);
}

/// At the end: rows equal those of read models built from nothing, and the next rebuild leaves nothing of those that died.
pub(crate) fn assert_ends_well(ledger: &Path) {
    let mut projections = open(ledger);
    projections.rebuild(NAMES[0], &mut |_| {}).unwrap();
    projections.catch_up().unwrap();
    assert_eq!(dump(ledger), fresh_dump(ledger));
    assert_no_leftovers(ledger);
}

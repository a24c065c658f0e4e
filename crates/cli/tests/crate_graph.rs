//! The house, held by the crate graph: the two halves never meet below the program.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Everything of this workspace that each of its packages links, directly or not, outside its tests.
fn linked() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let direct: BTreeMap<String, BTreeSet<String>> = metadata
        .packages
        .iter()
        .map(|package| {
            let dependencies = package.dependencies.iter().filter(|found| found.kind != DependencyKind::Development);
            let ours = dependencies.map(|found| found.name.clone()).filter(|name| name.starts_with("runledger-"));
            (package.name.to_string(), ours.collect())
        })
        .collect();
    direct
        .keys()
        .map(|name| {
            let mut reached = BTreeSet::new();
            let mut open: Vec<String> = direct[name].iter().cloned().collect();
            while let Some(next) = open.pop() {
                if reached.insert(next.clone()) {
                    open.extend(direct[&next].iter().cloned());
                }
            }
            (name.clone(), reached)
        })
        .collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| format!("runledger-{name}")).collect()
}

#[test]
fn each_crate_links_those_below_it_and_no_others() {
    let linked = linked();
    assert_eq!(linked["runledger-events"], names(&[]));
    assert_eq!(linked["runledger-adapters"], names(&["events"]));
    assert_eq!(linked["runledger-store"], names(&["events"]));
    assert_eq!(linked["runledger-store-jetstream"], names(&["events", "store"]));
    assert_eq!(linked["runledger-projections"], names(&["events", "store"]));
    assert_eq!(linked["runledger-import"], names(&["events", "store"]));
    assert_eq!(linked["runledger-workflow"], names(&["adapters", "events", "store"]));
    assert_eq!(linked["runledger-web"], names(&["adapters", "events", "projections", "store", "workflow"]));
}

#[test]
fn commands_and_queries_never_import_each_other() {
    let linked = linked();
    for command_side in ["workflow", "import"] {
        assert!(!linked[&format!("runledger-{command_side}")].contains("runledger-projections"));
        assert!(!linked["runledger-projections"].contains(&format!("runledger-{command_side}")));
    }
    let sees = |linked: &BTreeSet<String>, half: &str| names(&[half, "projections"]).is_subset(linked);
    let composing: Vec<&String> = linked
        .iter()
        .filter(|(_, linked)| sees(linked, "workflow") || sees(linked, "import"))
        .map(|(name, _)| name)
        .collect();
    // The example is a program too.
    assert_eq!(
        composing,
        ["runledger-cli", "runledger-example-approver", "runledger-web"],
        "only programs and their pages see both halves"
    );
}

#[test]
fn the_examples_of_each_half_link_that_half_alone() {
    let linked = linked();
    assert_eq!(linked["runledger-example-writer"], names(&["events", "store"]));
    assert_eq!(linked["runledger-example-reader"], names(&["events", "projections", "store"]));
}

#[test]
fn nothing_links_the_failing_disk_outside_of_its_tests() {
    let linked = linked();
    assert_eq!(linked["runledger-faultfs"], names(&[]));
    assert!(linked.values().all(|linked| !linked.contains("runledger-faultfs")));
}

#[test]
fn no_program_that_is_built_for_use_has_failpoints() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let mut enabled_by_tests = 0;
    for package in &metadata.packages {
        for (feature, enables) in &package.features {
            let is_it = feature == "failpoints" && enables.is_empty();
            assert!(is_it || !enables.iter().any(|one| one.contains("failpoints")), "{}: {feature}", package.name);
        }
        for dependency in
            package.dependencies.iter().filter(|found| found.features.iter().any(|one| one == "failpoints"))
        {
            assert_eq!(dependency.kind, DependencyKind::Development, "{} on {}", package.name, dependency.name);
            enabled_by_tests += 1;
        }
    }
    assert_eq!(enabled_by_tests, 1, "the tests that need them have them");
}

#[test]
fn each_direct_dependency_of_each_workspace_stands_in_the_document() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let document = std::fs::read_to_string(format!("{root}/docs/dependencies.md")).unwrap();
    let rows: Vec<&str> = document.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).collect();
    for workspace in [".", "bench", "fuzz"] {
        let manifest = format!("{root}/{workspace}/Cargo.toml");
        let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().unwrap();
        let direct = metadata.packages.iter().flat_map(|package| &package.dependencies);
        for name in direct.map(|dependency| &dependency.name).filter(|name| !name.starts_with("runledger-")) {
            let names_it = |row: &&str| row.split(", ").any(|one| one.split(' ').next() == Some(name));
            assert!(rows.iter().any(names_it), "{workspace}: {name} has no row in docs/dependencies.md");
        }
    }
}

//! The table of weaknesses in `docs/worker-weaknesses.md` names tests that exist, and leaves out none of its numbers.

use std::collections::BTreeSet;
use std::path::Path;

use dockframe_tests::checkout;

use super::items;

/// All functions below a folder that a test runner would find: `#[test]`, or `#[tokio::test…]`, then the function.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
                if let Some((name, _)) = name.and_then(|rest| rest.split_once('(')) {
                    if std::mem::take(&mut is_test) {
                        found.insert(name.to_owned());
                    }
                } else {
                    is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                }
            }
        }
    }
}

/// Rows as number and names.
fn rows(text: &str) -> Vec<(u32, Vec<&str>)> {
    let mut rows = Vec::new();
    for line in text.lines() {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let Some(number) = cells.next().and_then(|cell| cell.strip_prefix('W')?.parse().ok()) else {
            continue;
        };
        let names = cells.nth(1).unwrap_or_default().split('`').skip(1).step_by(2);
        rows.push((number, names.collect()));
    }
    rows
}

#[test]
fn every_weakness_names_tests_that_exist() {
    let text = std::fs::read_to_string(checkout("docs/worker-weaknesses.md")).unwrap();
    let rows = rows(&text);
    let numbers: Vec<u32> = rows.iter().map(|(number, _)| *number).collect();
    let wanted: Vec<u32> = (1..=80).filter(|number| ![63, 72].contains(number)).collect();
    assert_eq!(numbers, wanted);

    let mut found = BTreeSet::new();
    for folder in ["worker/src", "worker/tests", "shared/src", "cli/src", "cli/tests", "tests/scenarios"] {
        let folder = checkout(folder);
        if folder.is_dir() {
            functions(&folder, &mut found);
        }
    }
    let shown: Vec<&str> = items::all()
        .iter()
        .map(|item| item.about)
        .filter(|about| about.is_shown)
        .map(|about| about.id)
        .collect();
    let mut missing = Vec::new();
    for (number, names) in rows {
        assert!(!names.is_empty(), "W{number} names no test");
        for name in names {
            let exists = match name.strip_prefix("conformance ") {
                Some(id) => shown.contains(&id),
                None => found.contains(name),
            };
            if !exists {
                missing.push(format!("W{number}: {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

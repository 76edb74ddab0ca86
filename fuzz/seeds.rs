//! The seeds of a fuzz target, for the tests that try each: included by the crates whose promises these are.

/// The contents of `fuzz/seeds/TARGET/*`.
pub(super) fn of(target: &str) -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds");
    let files = std::fs::read_dir(format!("{folder}/{target}")).unwrap();
    let seeds: Vec<_> = files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(!seeds.is_empty(), "no seeds in {folder}/{target}");
    seeds
}

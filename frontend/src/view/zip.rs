//! An archive of all outputs: the stored form of ZIP, without compression, which every program reads.
//!
//! Written here because it is a page of code and a dependency would weigh more than the whole outputs panel.

/// Files by name; names are relative, whatever they were.
#[must_use]
pub fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for (name, bytes) in files {
        let name = name.trim_start_matches('/').as_bytes();
        let offset = size(out.len());
        let sum = crc32(bytes);
        // Version 2.0, names in UTF-8, stored, no date.
        let mut entry = Vec::new();
        put(&mut entry, &[20, 1 << 11, 0, 0, (1 << 5) | 1]);
        put_wide(&mut entry, &[sum, size(bytes.len()), size(bytes.len())]);
        put(&mut entry, &[u16::try_from(name.len()).unwrap_or(u16::MAX), 0]);
        out.extend_from_slice(b"PK\x03\x04");
        out.extend_from_slice(&entry);
        out.extend_from_slice(name);
        out.extend_from_slice(bytes);
        directory.extend_from_slice(b"PK\x01\x02\x14\x00");
        directory.extend_from_slice(&entry);
        put(&mut directory, &[0, 0, 0]);
        put_wide(&mut directory, &[0, offset]);
        directory.extend_from_slice(name);
    }
    let start = size(out.len());
    let count = u16::try_from(files.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&directory);
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    put(&mut out, &[count, count]);
    put_wide(&mut out, &[size(directory.len()), start]);
    put(&mut out, &[0]);
    out
}

/// Sizes of this form end at 4 GiB, far above what a page can hold.
fn size(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn put(out: &mut Vec<u8>, numbers: &[u16]) {
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

fn put_wide(out: &mut Vec<u8>, numbers: &[u32]) {
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(
            sum ^ u32::from(*byte),
            |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0xEDB8_8320 } else { sum >> 1 },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_standards() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_real_unzip_reads_the_archive() {
        let files = [("a.txt".to_owned(), b"hello".to_vec()), ("/dir/ü.bin".to_owned(), vec![0, 255, 1])];
        let path = std::env::temp_dir().join(format!("dockframe-zip-{}.zip", std::process::id()));
        std::fs::write(&path, archive(&files)).unwrap();
        let script = "import sys,zipfile; z=zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; \
                      print([(n, z.read(n)) for n in z.namelist()])";
        let output = std::process::Command::new("python3").args(["-c", script]).arg(&path).output();
        std::fs::remove_file(&path).unwrap();
        let output = output.unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            "[('a.txt', b'hello'), ('dir/ü.bin', b'\\x00\\xff\\x01')]",
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

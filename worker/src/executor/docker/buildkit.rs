//! What BuildKit tells of a build, made into lines. Pure.
//!
//! Its progress is a protobuf message (`moby.buildkit.v1.StatusResponse`) in base64, of which three fields matter:
//! the steps (*vertexes*), and what their commands write. A reader of these few fields is smaller than a code
//! generator.

use std::collections::HashMap;

use base64::Engine as _;

/// Longest name of a step that is shown.
const MAX_NAME_CHARS: usize = 300;

/// A build's steps so far, numbered as they begin.
#[derive(Debug, Default)]
pub(super) struct Progress {
    steps: HashMap<Vec<u8>, Step>,
    /// Text of commands that has no end of line yet.
    unfinished: HashMap<usize, Vec<u8>>,
}

#[derive(Debug)]
struct Step {
    number: usize,
    is_over: bool,
}

/// A field of a message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Progress {
    /// The lines that a piece of progress adds; what cannot be read adds none.
    pub(super) fn read(&mut self, base64: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let Ok(message) = base64::engine::general_purpose::STANDARD.decode(base64) else { return lines };
        for (number, field) in fields(&message) {
            match (number, field) {
                (1, Field::Bytes(vertex)) => self.vertex(vertex, &mut lines),
                (3, Field::Bytes(log)) => self.log(log, &mut lines),
                _ => {}
            }
        }
        lines
    }

    /// What commands wrote last, without an end of line.
    pub(super) fn finish(self) -> Vec<String> {
        let mut rest: Vec<_> = self.unfinished.into_iter().filter(|(_, text)| !text.is_empty()).collect();
        rest.sort_unstable_by_key(|(number, _)| *number);
        rest.into_iter()
            .map(|(number, text)| format!("#{number} {}", String::from_utf8_lossy(&text)))
            .collect()
    }

    fn vertex(&mut self, message: &[u8], lines: &mut Vec<String>) {
        let (mut digest, mut name, mut error) = (&[][..], &[][..], &[][..]);
        let (mut is_cached, mut has_begun, mut has_ended) = (false, false, false);
        for (number, field) in fields(message) {
            match (number, field) {
                (1, Field::Bytes(bytes)) => digest = bytes,
                (3, Field::Bytes(bytes)) => name = bytes,
                (4, Field::Number(flag)) => is_cached = flag != 0,
                (5, Field::Bytes(_)) => has_begun = true,
                (6, Field::Bytes(_)) => has_ended = true,
                (7, Field::Bytes(bytes)) => error = bytes,
                _ => {}
            }
        }
        if !has_begun && !is_cached {
            return;
        }
        let next = self.steps.len() + 1;
        let step = self.steps.entry(digest.to_vec()).or_insert_with(|| {
            let name: String = String::from_utf8_lossy(name).chars().take(MAX_NAME_CHARS).collect();
            lines.push(format!("#{next} {}", name.replace('\n', " ")));
            Step { number: next, is_over: false }
        });
        if step.is_over || !(has_ended || is_cached) {
            return;
        }
        step.is_over = true;
        if !error.is_empty() {
            lines.push(format!("#{} ERROR: {}", step.number, String::from_utf8_lossy(error)));
        } else if is_cached {
            lines.push(format!("#{} CACHED", step.number));
        } else {
            lines.push(format!("#{} DONE", step.number));
        }
    }

    fn log(&mut self, message: &[u8], lines: &mut Vec<String>) {
        let (mut digest, mut text) = (&[][..], &[][..]);
        for (number, field) in fields(message) {
            match (number, field) {
                (1, Field::Bytes(bytes)) => digest = bytes,
                (4, Field::Bytes(bytes)) => text = bytes,
                _ => {}
            }
        }
        let number = self.steps.get(digest).map_or(0, |step| step.number);
        let unfinished = self.unfinished.entry(number).or_default();
        unfinished.extend_from_slice(text);
        while let Some(end) = unfinished.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unfinished.drain(..=end).collect();
            lines.push(format!("#{number} {}", String::from_utf8_lossy(&line).trim_end()));
        }
    }
}

/// The fields of a protobuf message, as far as it can be read.
fn fields(message: &[u8]) -> impl Iterator<Item = (u64, Field<'_>)> {
    let mut rest = message;
    std::iter::from_fn(move || {
        let key = varint(&mut rest)?;
        let field = match key & 7 {
            0 => Field::Number(varint(&mut rest)?),
            1 => Field::Bytes(take(&mut rest, 8)?),
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                Field::Bytes(take(&mut rest, length)?)
            }
            5 => Field::Bytes(take(&mut rest, 4)?),
            _ => return None,
        };
        Some((key >> 3, field))
    })
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As an Engine sent it: a step is known, begins, and ends.
    const KNOWN: &str = "Cm8KR3NoYTI1Njo0MzY2MmM1YTNmODkxY2ZiZDNjZmQ5OGRiNjVhMzVmYTlkZjczYjFiYjE0N2VhYjdlM2Y3ZjYzNTE0ZDg1OThiGiRbaW50ZXJuYWxdIGxvYWQgcmVtb3RlIGJ1aWxkIGNvbnRleHQ=";
    const BEGUN: &str = "CnwKR3NoYTI1Njo0MzY2MmM1YTNmODkxY2ZiZDNjZmQ5OGRiNjVhMzVmYTlkZjczYjFiYjE0N2VhYjdlM2Y3ZjYzNTE0ZDg1OThiGiRbaW50ZXJuYWxdIGxvYWQgcmVtb3RlIGJ1aWxkIGNvbnRleHQqCwim6ZXYBhCRtfcS";
    const ENDED: &str = "CokBCkdzaGEyNTY6NDM2NjJjNWEzZjg5MWNmYmQzY2ZkOThkYjY1YTM1ZmE5ZGY3M2IxYmIxNDdlYWI3ZTNmN2Y2MzUxNGQ4NTk4YhokW2ludGVybmFsXSBsb2FkIHJlbW90ZSBidWlsZCBjb250ZXh0KgsIpumV2AYQkbX3EjILCKbpldgGELaUxBU=";

    #[test]
    fn a_step_is_told_when_it_begins_and_when_it_ends() {
        let mut progress = Progress::default();
        assert!(progress.read(KNOWN).is_empty());
        assert_eq!(progress.read(BEGUN), ["#1 [internal] load remote build context"]);
        assert_eq!(progress.read(ENDED), ["#1 DONE"]);
        assert!(progress.read(ENDED).is_empty(), "once");
    }

    #[test]
    fn what_commands_write_comes_in_whole_lines() {
        let log = |text: &str| {
            let mut message = vec![0x22, u8::try_from(text.len()).unwrap()];
            message.extend_from_slice(text.as_bytes());
            let mut response = vec![0x1a, u8::try_from(message.len()).unwrap()];
            response.extend(message);
            base64::engine::general_purpose::STANDARD.encode(response)
        };
        let mut progress = Progress::default();
        assert_eq!(progress.read(&log("a\nb")), ["#0 a"]);
        assert_eq!(progress.read(&log("c\n")), ["#0 bc"]);
        assert!(progress.read(&log("rest")).is_empty());
        assert_eq!(progress.finish(), ["#0 rest"]);
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_surprise(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = base64::engine::general_purpose::STANDARD.encode(bytes);
            Progress::default().read(&text);
        }
    }
}

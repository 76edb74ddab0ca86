//! The value of `--gpus` (`worker` 2.4): which GPUs a worker may hand to jobs.
//!
//! Existing start scripts keep their meaning; what was silently taken for "none" is refused.

use std::fmt;
use std::str::FromStr;

/// The GPUs that a worker offers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum GpuOffer {
    /// No GPU.
    #[default]
    None,
    /// The first so many of the machine, in its order; at least one.
    Count(u32),
    /// All that the driver or the Engine lists.
    All,
    /// Exactly these, in this order; at least one, none twice.
    Devices(Vec<GpuDevice>),
}

/// One GPU of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuDevice {
    /// Its number on the host.
    Index(u32),
    /// `GPU-…` or `MIG-…`, as the driver names it.
    Uuid(String),
}

/// A text that names no GPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid GPUs \"{text}\": {why} (write a number, `all`, `none`, `device=0,2` or `device=GPU-<uuid>`)"
)]
pub struct InvalidGpus {
    /// What was given, shortened to 100 characters.
    pub text: String,
    why: &'static str,
}

/// Most GPUs that can be asked for: no machine has more, and a typing error should not go unnoticed.
pub const MAX_GPUS: u32 = 1024;

impl FromStr for GpuOffer {
    type Err = InvalidGpus;

    fn from_str(text: &str) -> Result<Self, InvalidGpus> {
        let refuse = |why| InvalidGpus { text: text.chars().take(100).collect(), why };
        let bare = text.trim_matches(['\'', '"']);
        if let Some((_, list)) = bare.rsplit_once("device=") {
            return devices(list).map_err(refuse);
        }
        match bare {
            "" => Err(refuse("it is empty")),
            "all" => Ok(Self::All),
            "none" => Ok(Self::None),
            _ => {
                let digits = bare.strip_prefix("count=").unwrap_or(bare);
                match index(digits) {
                    Some(0) => Ok(Self::None),
                    Some(count) if count <= MAX_GPUS => Ok(Self::Count(count)),
                    Some(_) => Err(refuse("more than any machine has")),
                    None => Err(refuse("neither a number nor a list of devices")),
                }
            }
        }
    }
}

fn devices(list: &str) -> Result<GpuOffer, &'static str> {
    let mut devices = Vec::new();
    for item in list.split(',') {
        let device = device(item)?;
        if devices.contains(&device) {
            return Err("a device is named twice");
        }
        devices.push(device);
    }
    Ok(GpuOffer::Devices(devices))
}

fn device(item: &str) -> Result<GpuDevice, &'static str> {
    if item.is_empty() {
        return Err("an item of the list of devices is empty");
    }
    if let Some(index) = index(item) {
        return if index < MAX_GPUS {
            Ok(GpuDevice::Index(index))
        } else {
            Err("no machine has such a device")
        };
    }
    let named = item.strip_prefix("GPU-").or_else(|| item.strip_prefix("MIG-")).unwrap_or_default();
    let plausible = !named.is_empty() && named.len() <= 128;
    if plausible && named.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'/')) {
        return Ok(GpuDevice::Uuid(item.to_owned()));
    }
    Err("a device must be a number, GPU-<uuid> or MIG-<uuid>, without spaces")
}

fn index(digits: &str) -> Option<u32> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // A number too long for the type is a number all the same, and larger than allowed.
    all_digits.then(|| digits.parse().unwrap_or(u32::MAX))
}

impl fmt::Display for GpuDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => index.fmt(f),
            Self::Uuid(uuid) => uuid.fmt(f),
        }
    }
}

impl fmt::Display for GpuOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Count(count) => count.fmt(f),
            Self::All => f.write_str("all"),
            Self::Devices(devices) => {
                f.write_str("device=")?;
                for (place, device) in devices.iter().enumerate() {
                    write!(f, "{}{device}", if place == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_documented_form_is_read() {
        let read = |text: &str| text.parse::<GpuOffer>();
        assert_eq!(read("2"), Ok(GpuOffer::Count(2)));
        assert_eq!(read("count=2"), Ok(GpuOffer::Count(2)));
        assert_eq!(read("'\"all\"'"), Ok(GpuOffer::All));
        assert_eq!(read("0"), Ok(GpuOffer::None));
        let devices = GpuOffer::Devices(vec![GpuDevice::Index(3), GpuDevice::Uuid("GPU-1a-2b".into())]);
        assert_eq!(read("\"capabilities=compute,device=3,GPU-1a-2b\""), Ok(devices));
    }

    #[test]
    fn everything_else_is_refused_with_a_reason() {
        for text in [
            "",
            "two",
            "-1",
            "1.5",
            " 2",
            "device=",
            "device=1,,3",
            "device=1, 3",
            "device=0,0",
            "device=a",
            "GPU-1",
            "5000",
            "99999999999",
        ] {
            let error = text.parse::<GpuOffer>().unwrap_err();
            assert!(error.to_string().contains("device=0,2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_the_same(text in "('?\"?(device=)?[0-9]{1,3}(,[0-9]{1,2}){0,3}|all|none|\\PC*)'?") {
            if let Ok(offer) = text.parse::<GpuOffer>() {
                prop_assert_eq!(offer.to_string().parse(), Ok(offer));
            }
        }
    }
}

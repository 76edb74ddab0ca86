//! A [`ContainerSpec`] in the Engine's words (`worker` 8, 22.1). Pure.
//!
//! What is not written here is not asked of the Engine: no privileges, no host namespaces, no devices but GPUs, no
//! mounts of a job's choice.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount,
    MountType, ResourcesUlimits,
};

use super::paths::Sharing;
use crate::config::{Network, Sandbox};
use crate::executor::ContainerSpec;

/// Name of the jobs' network, known to other programs.
pub(super) const NETWORK: &str = "metaframe-container-worker-network";
/// Of the one that leads nowhere.
pub(super) const INTERNAL_NETWORK: &str = "metaframe-container-worker-network-internal";

/// The Engine's default set less raw sockets and device nodes.
const COMPAT_CAPABILITIES: [&str; 12] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SYS_CHROOT",
    "AUDIT_WRITE",
];
const MEBIBYTE: u64 = 1 << 20;
/// The Engine refuses less than 6 MiB.
const MIN_MEMORY: u64 = 16 * MEBIBYTE;
/// What a job's limit leaves for the host.
const HOST_MEMORY: u64 = 512 * MEBIBYTE;
/// Least that the kernel takes, in billionths of a cpu.
const MIN_NANO_CPUS: i64 = 10_000_000;

/// How the owner of the machine wants jobs to run.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// Such as `runsc`; the Engine's own when missing.
    pub(super) runtime: Option<String>,
    pub(super) sandbox: Sandbox,
    pub(super) user: Option<String>,
    pub(super) inputs_readonly: bool,
    pub(super) enforce_cpus: bool,
}

/// Kind of NVIDIA's devices, as the Container Device Interface names them.
pub(super) const CDI_GPU: &str = "nvidia.com/gpu";

/// How an Engine gives GPUs to containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GpuWay {
    /// By NVIDIA's own runtime.
    Runtime,
    /// By the Container Device Interface.
    Cdi,
}

/// What the Engine's host can do (`GET /info`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Abilities {
    pub(super) memory_bytes: Option<u64>,
    pub(super) cpus: Option<u32>,
    pub(super) limits_memory: bool,
    pub(super) limits_swap: bool,
    pub(super) limits_pids: bool,
    pub(super) limits_cpus: bool,
    /// Whether containers may have more open files than the Engine itself.
    pub(super) raises_open_files: bool,
    /// Binds need a label.
    pub(super) has_selinux: bool,
    pub(super) gpus: GpuWay,
}

pub(super) fn create_body(
    spec: &ContainerSpec,
    rules: &Rules,
    abilities: &Abilities,
    sharing: &Sharing,
) -> ContainerCreateBody {
    let mut host = HostConfig {
        network_mode: Some(
            match spec.network {
                Network::Nat => NETWORK,
                Network::Internal => INTERNAL_NETWORK,
                Network::None => "none",
            }
            .to_owned(),
        ),
        shm_size: spec
            .shm_bytes
            .map(|bytes| signed(spec.memory_bytes.map_or(bytes, |limit| bytes.min(limit)))),
        device_requests: (!spec.gpus.is_empty()).then(|| vec![gpus(&spec.gpus, abilities.gpus)]),
        runtime: rules.runtime.clone(),
        ..HostConfig::default()
    };
    mount(&mut host, spec, rules, abilities, sharing);
    confine(&mut host, rules.sandbox, abilities);
    limit(&mut host, spec, rules, abilities);

    ContainerCreateBody {
        image: Some(spec.image.reference.clone()),
        cmd: spec.command.clone(),
        entrypoint: spec.entrypoint.clone(),
        working_dir: spec.workdir.clone(),
        env: Some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        labels: Some(spec.labels.iter().cloned().collect()),
        user: match rules.sandbox {
            Sandbox::Strict if rules.user.as_deref() == Some("0:0") => Some("65534:65534".to_owned()),
            _ => rules.user.clone(),
        },
        tty: Some(false),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

fn gpus(ids: &[String], way: GpuWay) -> DeviceRequest {
    match way {
        GpuWay::Runtime => DeviceRequest {
            driver: Some("nvidia".to_owned()),
            device_ids: Some(ids.to_vec()),
            capabilities: Some(vec![vec!["gpu".to_owned()]]),
            ..DeviceRequest::default()
        },
        GpuWay::Cdi => DeviceRequest {
            driver: Some("cdi".to_owned()),
            device_ids: Some(ids.iter().map(|id| format!("{CDI_GPU}={id}")).collect()),
            ..DeviceRequest::default()
        },
    }
}

fn mount(
    host: &mut HostConfig,
    spec: &ContainerSpec,
    rules: &Rules,
    abilities: &Abilities,
    sharing: &Sharing,
) {
    let files = [(&spec.inputs, "/inputs", rules.inputs_readonly), (&spec.outputs, "/outputs", false)];
    let mounted = spec.mounted.iter().map(|(file, target)| (file, target.as_str(), false));
    let binds: Option<Vec<_>> = files
        .into_iter()
        .chain(mounted)
        .map(|(path, target, readonly)| Some((sharing.to_host(path)?, target, readonly)))
        .collect();
    let volume = |name: Option<&String>, target: &str| Mount {
        typ: Some(MountType::VOLUME),
        source: name.cloned(),
        target: Some(target.to_owned()),
        ..Mount::default()
    };
    let cache = spec.cache_volume.iter().map(|name| volume(Some(name), "/job-cache"));
    let Some(binds) = binds else {
        // Volumes without a name are the container's own and go with it. They are filled before the start.
        host.mounts =
            Some([volume(None, "/inputs"), volume(None, "/outputs")].into_iter().chain(cache).collect());
        return;
    };
    if abilities.has_selinux {
        // `Mounts` cannot carry the label. The shared volume gets none, so that running jobs keep theirs.
        let labelled = binds.into_iter().map(|(source, target, readonly)| {
            format!("{}:{target}:{}", source.display(), if readonly { "ro,Z" } else { "Z" })
        });
        let cache = spec.cache_volume.iter().map(|name| format!("{name}:/job-cache"));
        host.binds = Some(labelled.chain(cache).collect());
        return;
    }
    // A missing source of a `Mount` is an error, where that of a `Bind` silently becomes an empty directory.
    let binds = binds.into_iter().map(|(source, target, readonly)| Mount {
        typ: Some(MountType::BIND),
        source: Some(source.display().to_string()),
        target: Some(target.to_owned()),
        read_only: readonly.then_some(true),
        ..Mount::default()
    });
    host.mounts = Some(binds.chain(cache).collect());
}

fn confine(host: &mut HostConfig, sandbox: Sandbox, abilities: &Abilities) {
    if sandbox == Sandbox::Off {
        return;
    }
    let strict = sandbox == Sandbox::Strict;
    host.security_opt = Some(vec!["no-new-privileges".to_owned()]);
    host.cap_drop = Some(vec!["ALL".to_owned()]);
    host.cap_add = (!strict).then(|| COMPAT_CAPABILITIES.map(str::to_owned).to_vec());
    host.pids_limit = abilities.limits_pids.then_some(if strict { 256 } else { 4096 });
    host.oom_score_adj = Some(500);
    host.ipc_mode = Some("private".to_owned());
    host.cgroupns_mode = Some(HostConfigCgroupnsModeEnum::PRIVATE);
    host.log_config = Some(HostConfigLogConfig {
        typ: Some("local".to_owned()),
        config: Some(HashMap::from([
            ("max-size".to_owned(), "10m".to_owned()),
            ("max-file".to_owned(), "2".to_owned()),
        ])),
    });
    let limit = |name: &str, soft, hard| ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(soft),
        hard: Some(hard),
    };
    let files = match (strict, abilities.raises_open_files) {
        (true, _) => Some(limit("nofile", 1024, 4096)),
        (false, true) => Some(limit("nofile", 1_048_576, 1_048_576)),
        (false, false) => None,
    };
    host.ulimits = Some(files.into_iter().chain([limit("core", 0, 0)]).collect());
    if strict {
        host.readonly_rootfs = Some(true);
        host.init = Some(true);
        let tmpfs = ["/tmp", "/run", "/var/tmp"].map(|path| (path.to_owned(), "size=67108864".to_owned()));
        host.tmpfs = Some(HashMap::from(tmpfs));
    }
}

fn limit(host: &mut HostConfig, spec: &ContainerSpec, rules: &Rules, abilities: &Abilities) {
    #[expect(clippy::cast_possible_truncation, reason = "checked numbers of cpus; the cast saturates")]
    {
        host.cpu_shares = Some(((spec.cpus * 1024.0) as i64).clamp(2, 262_144));
        if rules.enforce_cpus && abilities.limits_cpus {
            let all = abilities.cpus.map_or(i64::MAX, |cpus| i64::from(cpus) * 1_000_000_000);
            host.nano_cpus = Some(((spec.cpus * 1e9) as i64).clamp(MIN_NANO_CPUS, all.max(MIN_NANO_CPUS)));
        }
    }
    if let Some(bytes) = spec.memory_bytes.filter(|_| abilities.limits_memory) {
        let most = abilities.memory_bytes.map_or(u64::MAX, |all| all.saturating_sub(HOST_MEMORY));
        let bytes = bytes.min(most).max(MIN_MEMORY);
        host.memory = Some(signed(bytes));
        host.memory_swap = abilities.limits_swap.then(|| signed(bytes));
        host.memory_reservation = Some(signed(bytes / 5 * 4));
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::super::paths::HostPaths;
    use super::*;
    use crate::executor::Image;

    const ABLE: Abilities = Abilities {
        memory_bytes: Some(8 << 30),
        cpus: Some(4),
        limits_memory: true,
        limits_swap: true,
        limits_pids: true,
        limits_cpus: true,
        raises_open_files: true,
        has_selinux: false,
        gpus: GpuWay::Runtime,
    };

    fn spec() -> ContainerSpec {
        ContainerSpec {
            name: "dockframe-1".into(),
            image: Image { reference: "busybox:test".into(), ..Image::default() },
            command: Some(vec!["echo".into(), "hi".into()]),
            entrypoint: None,
            env: vec![("JOB_ID".into(), "1".into())],
            workdir: None,
            labels: vec![("container.mtfm.io".into(), "true".into())],
            shm_bytes: None,
            cpus: 1.0,
            memory_bytes: None,
            gpus: Vec::new(),
            network: Network::Nat,
            inputs: PathBuf::from("/data/j/1/inputs"),
            outputs: PathBuf::from("/data/j/1/outputs"),
            mounted: vec![(PathBuf::from("/data/j/1/mounted/0"), "/etc/a:b.conf".into())],
            cache_volume: Some("cache".into()),
        }
    }

    fn rules(sandbox: Sandbox) -> Rules {
        Rules {
            runtime: None,
            sandbox,
            user: Some("0:0".into()),
            inputs_readonly: false,
            enforce_cpus: false,
        }
    }

    fn body(spec: &ContainerSpec, rules: &Rules, abilities: &Abilities) -> serde_json::Value {
        let sharing = Sharing::Paths(HostPaths::given(Path::new("/data"), Path::new("/host/data")));
        let mut value = serde_json::to_value(create_body(spec, rules, abilities, &sharing)).unwrap();
        value.sort_all_objects();
        value
    }

    #[test]
    fn the_create_body_is_as_documented() {
        let body = body(&spec(), &rules(Sandbox::Compat), &ABLE);
        let expected = serde_json::json!({
            "Image": "busybox:test", "Cmd": ["echo", "hi"], "Env": ["JOB_ID=1"], "User": "0:0", "Tty": false,
            "AttachStdout": true, "AttachStderr": true, "Labels": {"container.mtfm.io": "true"},
            "HostConfig": {
                "NetworkMode": NETWORK, "CapDrop": ["ALL"], "CapAdd": COMPAT_CAPABILITIES,
                "SecurityOpt": ["no-new-privileges"], "PidsLimit": 4096, "OomScoreAdj": 500, "IpcMode": "private",
                "CgroupnsMode": "private", "CpuShares": 1024,
                "LogConfig": {"Type": "local", "Config": {"max-size": "10m", "max-file": "2"}},
                "Ulimits": [{"Name": "nofile", "Soft": 1_048_576, "Hard": 1_048_576}, {"Name": "core", "Soft": 0, "Hard": 0}],
                "Mounts": [
                    {"Type": "bind", "Source": "/host/data/j/1/inputs", "Target": "/inputs"},
                    {"Type": "bind", "Source": "/host/data/j/1/outputs", "Target": "/outputs"},
                    {"Type": "bind", "Source": "/host/data/j/1/mounted/0", "Target": "/etc/a:b.conf"},
                    {"Type": "volume", "Source": "cache", "Target": "/job-cache"},
                ],
            },
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn gpus_are_requested_by_id() {
        let spec = ContainerSpec { gpus: vec!["1".into(), "3".into()], ..spec() };
        let body = body(&spec, &rules(Sandbox::Compat), &ABLE);
        assert_eq!(
            body["HostConfig"]["DeviceRequests"],
            serde_json::json!([{"Driver": "nvidia", "DeviceIDs": ["1", "3"], "Capabilities": [["gpu"]]}])
        );
    }

    #[test]
    fn where_devices_have_an_interface_of_their_own_gpus_are_named_by_it() {
        let spec = ContainerSpec { gpus: vec!["0".into(), "GPU-5a".into()], ..spec() };
        let body = body(&spec, &rules(Sandbox::Compat), &Abilities { gpus: GpuWay::Cdi, ..ABLE });
        assert_eq!(
            body["HostConfig"]["DeviceRequests"],
            serde_json::json!([{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-5a"]}])
        );
    }

    #[test]
    fn limits_are_set_only_where_asked_for_and_possible() {
        let spec =
            ContainerSpec { memory_bytes: Some(100 << 20), cpus: 0.5, shm_bytes: Some(1 << 30), ..spec() };
        let strict_cpus = Rules { enforce_cpus: true, ..rules(Sandbox::Compat) };
        let host = body(&spec, &strict_cpus, &ABLE)["HostConfig"].clone();
        assert_eq!(
            (host["Memory"].as_u64(), host["MemorySwap"].as_u64()),
            (Some(100 << 20), Some(100 << 20))
        );
        assert_eq!((host["NanoCpus"].as_u64(), host["CpuShares"].as_u64()), (Some(500_000_000), Some(512)));
        assert_eq!(host["ShmSize"].as_u64(), Some(100 << 20), "no more than the memory");
        let unable = Abilities { limits_memory: false, limits_pids: false, limits_cpus: false, ..ABLE };
        let host = body(&spec, &strict_cpus, &unable)["HostConfig"].clone();
        assert!(
            host.get("Memory").is_none() && host.get("PidsLimit").is_none() && host.get("NanoCpus").is_none()
        );
        let tiny = ContainerSpec { memory_bytes: Some(1), ..spec.clone() };
        assert_eq!(body(&tiny, &strict_cpus, &ABLE)["HostConfig"]["Memory"].as_u64(), Some(MIN_MEMORY));
        let huge = ContainerSpec { memory_bytes: Some(64 << 30), ..spec };
        assert_eq!(
            body(&huge, &strict_cpus, &ABLE)["HostConfig"]["Memory"].as_u64(),
            Some((8 << 30) - HOST_MEMORY)
        );
    }

    #[test]
    fn with_selinux_binds_are_labelled_but_the_shared_volume_is_not() {
        let selinux = Abilities { has_selinux: true, ..ABLE };
        let host = body(&spec(), &rules(Sandbox::Compat), &selinux)["HostConfig"].clone();
        assert!(host.get("Mounts").is_none());
        assert_eq!(host["Binds"][0], "/host/data/j/1/inputs:/inputs:Z");
        assert_eq!(host["Binds"][3], "cache:/job-cache");
    }

    #[test]
    fn files_that_the_host_does_not_see_get_volumes_of_the_containers_own() {
        let body = create_body(&spec(), &rules(Sandbox::Compat), &ABLE, &Sharing::Copies);
        let mounts = body.host_config.unwrap().mounts.unwrap();
        let seen: Vec<_> =
            mounts.iter().map(|mount| (mount.source.as_deref(), mount.target.as_deref())).collect();
        assert_eq!(
            seen,
            [(None, Some("/inputs")), (None, Some("/outputs")), (Some("cache"), Some("/job-cache"))]
        );
        assert!(mounts.iter().all(|mount| mount.typ == Some(MountType::VOLUME)));
    }

    #[test]
    fn strict_takes_away_more_and_off_nothing() {
        let host = body(&spec(), &rules(Sandbox::Strict), &ABLE)["HostConfig"].clone();
        assert_eq!((host["ReadonlyRootfs"].as_bool(), host["Init"].as_bool()), (Some(true), Some(true)));
        assert!(host.get("CapAdd").is_none());
        let host = body(&spec(), &rules(Sandbox::Off), &ABLE)["HostConfig"].clone();
        assert!(host.get("CapDrop").is_none() && host.get("SecurityOpt").is_none());
    }
}

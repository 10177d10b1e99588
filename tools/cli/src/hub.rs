//! Files of the Hugging Face hub, or of a mirror that HF_ENDPOINT names.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};
use ureq::http::{HeaderMap, StatusCode};

use crate::download::{CopyError, beside, copy, hex, keep, partial, progress};
use crate::output;

/// The hub, unless HF_ENDPOINT names another.
const HUB: &str = "https://huggingface.co";
/// Redirects that are followed.
const MAX_REDIRECTS: usize = 10;
/// Times that a download that was cut off goes on by itself, as long as each brings it forward.
const MAX_RESUMES: u32 = 5;

/// A model on the hub: `hf:OWNER/REPO/FILE.gguf`.
#[derive(Clone)]
pub struct HubFile {
    /// `OWNER/REPO`
    pub repo: String,
    /// The path in the repository.
    pub path: String,
}

impl HubFile {
    /// Reads `OWNER/REPO/FILE.gguf`.
    pub fn parse(name: &str) -> anyhow::Result<HubFile> {
        let parts: Vec<&str> = name.splitn(3, '/').collect();
        // It becomes a path in the store, and must stay in it on every system.
        let odd = |p: &str| {
            p.contains(['\\', ':', '\0'])
                || p.split('/').any(|s| s.is_empty() || s.starts_with('.'))
        };
        match parts[..] {
            [owner, repo, path]
                if !odd(owner) && !odd(repo) && !odd(path) && path.ends_with(".gguf") =>
            {
                Ok(HubFile { repo: format!("{owner}/{repo}"), path: path.to_string() })
            }
            _ => bail!("`hf:{name}` is not hf:OWNER/REPO/FILE.gguf"),
        }
    }

    /// Where the store keeps it.
    pub fn target(&self, root: &Path) -> PathBuf {
        root.join("hf").join(&self.repo).join(&self.path)
    }

    fn url(&self, endpoint: &str) -> String {
        let mut url = format!("{endpoint}/");
        for byte in format!("{}/resolve/main/{}", self.repo, self.path).bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                    url.push(byte.into());
                }
                _ => url += &format!("%{byte:02X}"),
            }
        }
        url
    }
}

/// What a file must be.
#[derive(Clone, Default)]
pub struct Known {
    /// Its SHA-256.
    pub sha256: Option<String>,
    /// Its bytes.
    pub bytes: Option<u64>,
}

/// Why a file was not fetched.
enum Failure {
    /// The connection ended early. What came is kept.
    CutOff(anyhow::Error),
    /// Anything else.
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Other(error.into())
    }
}

/// Fetches a file. A part that is here already is gone on with, if the hub's file is still the
/// same.
pub fn fetch(file: &HubFile, target: &Path, known: &Known) -> anyhow::Result<()> {
    let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| HUB.to_string());
    let endpoint = endpoint.trim_end_matches('/');
    if origin(endpoint).is_none() {
        bail!("HF_ENDPOINT={endpoint}: no address that begins with https:// or http://");
    }
    let fetch = Fetch {
        agent: ureq::Agent::config_builder()
            .http_status_as_error(false)
            // Followed here: the hub's own answer tells the file's SHA-256, and the token is for
            // the hub alone.
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .build()
            .new_agent(),
        endpoint: endpoint.to_string(),
        url: file.url(endpoint),
        part: partial(target),
        known: known.clone(),
    };
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fetch.whole()?;
    keep(&fetch.part, target)?;
    // Of no use without its part.
    let _ = fs::remove_file(fetch.etag_path());
    Ok(())
}

struct Fetch {
    agent: ureq::Agent,
    /// The hub's address.
    endpoint: String,
    url: String,
    /// Where the file stands until it is whole.
    part: PathBuf,
    known: Known,
}

/// The last answer on the way of redirects, and what the hub said of the file.
struct Answer {
    response: ureq::http::Response<ureq::Body>,
    known: Known,
}

impl Fetch {
    /// Where the ETag of the file that the part belongs to stands.
    fn etag_path(&self) -> PathBuf {
        beside(&self.part, ".etag")
    }

    fn have(&self) -> u64 {
        fs::metadata(&self.part).map_or(0, |m| m.len())
    }

    /// Removes the part: what is wrong in it would stay wrong.
    fn discard(&self) -> anyhow::Result<()> {
        if self.part.exists() {
            fs::remove_file(&self.part).with_context(|| self.part.display().to_string())?;
        }
        // Without a part it says nothing.
        let _ = fs::remove_file(self.etag_path());
        Ok(())
    }

    /// Fetches all of the file, in several goes if the connection is cut off.
    fn whole(&self) -> anyhow::Result<()> {
        let mut resumes = 0;
        loop {
            let before = self.have();
            let error = match self.go_on() {
                Ok(()) => return Ok(()),
                Err(Failure::Other(error)) => return Err(error),
                Err(Failure::CutOff(error)) => error,
            };
            resumes += 1;
            if self.have() <= before || resumes > MAX_RESUMES {
                return Err(error.context("the same command goes on from there"));
            }
            output::note(&format!("{error:#}; going on"));
            std::thread::sleep(Duration::from_millis(200) * resumes);
        }
    }

    fn go_on(&self) -> Result<(), Failure> {
        let etag = fs::read_to_string(self.etag_path()).ok();
        let have = match etag {
            Some(_) => self.have(),
            None => 0,
        };
        let Answer { response, known } = self.request(etag.as_deref(), have)?;
        let header = |name| text(response.headers(), name);
        let length = header("content-length").and_then(|l| l.parse::<u64>().ok());
        let url = &self.url;
        let (start, total) = match response.status().as_u16() {
            200 => (0, length),
            206 => match header("content-range").and_then(content_range) {
                Some((Some(start), total)) if start == have => {
                    (start, total.or(length.map(|l| start + l)))
                }
                _ => return Err(anyhow!("{url}: the server sends another part than asked").into()),
            },
            416 if have > 0 => {
                let total = header("content-range").and_then(content_range).and_then(|r| r.1);
                if total != Some(have) {
                    self.discard()?;
                    return self.go_on();
                }
                // The part was whole, and only its name is missing.
                let mut digest = Sha256::new();
                self.digest_part(&mut digest)?;
                return Ok(self.check(digest, &known)?);
            }
            status => return Err(refusal(url, status, token().is_some()).into()),
        };
        if let (Some(total), Some(bytes)) = (total, known.bytes)
            && total != bytes
        {
            self.discard()?;
            return Err(anyhow!("{url} has {total} bytes, not {bytes}").into());
        }
        match header("etag").filter(|etag| !etag.starts_with("W/")) {
            Some(etag) => fs::write(self.etag_path(), etag)?,
            // A file that cannot be recognized cannot be gone on with.
            None => drop(fs::remove_file(self.etag_path())),
        }

        let name = || self.part.display().to_string();
        let bar = progress(total)?;
        bar.set_position(start);
        let mut digest = Sha256::new();
        if start > 0 {
            self.digest_part(&mut digest)?;
        }
        let mut out = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(start == 0)
            .append(start > 0)
            .open(&self.part)
            .with_context(name)?;
        let mut body = response.into_body().into_reader();
        let copied = copy(&mut body, &mut out, &mut digest, &bar);
        bar.finish_and_clear();
        out.sync_all().with_context(name)?;
        let got = self.have();
        let cut_off = || match total {
            Some(total) => format!("{url} was cut off at {got} of {total} bytes"),
            None => format!("{url} was cut off at {got} bytes"),
        };
        match copied {
            Ok(()) if total.is_none_or(|total| got == total) => {}
            Ok(()) => return Err(Failure::CutOff(anyhow!(cut_off()))),
            Err(CopyError::Source(e)) => {
                return Err(Failure::CutOff(anyhow!(e).context(cut_off())));
            }
            Err(CopyError::Target(e)) => return Err(anyhow!(e).context(name()).into()),
        }
        Ok(self.check(digest, &known)?)
    }

    /// Asks for what is missing, and follows redirects.
    fn request(&self, etag: Option<&str>, have: u64) -> anyhow::Result<Answer> {
        let hub = origin(&self.endpoint);
        let mut known = self.known.clone();
        let mut at = self.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.get(&at);
            let at_hub = origin(&at) == hub;
            if let (true, Some(token)) = (at_hub, token()) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            if let (Some(etag), true) = (etag, have > 0) {
                request =
                    request.header("Range", format!("bytes={have}-")).header("If-Range", etag);
            }
            let response = request.call().with_context(|| format!("{at} cannot be reached"))?;
            let headers = response.headers();
            if at_hub {
                // Not the other servers' ETags, which look the same and are other digests.
                let linked = text(headers, "x-linked-etag").map(|e| e.trim_matches('"'));
                known.sha256 = known.sha256.or(linked.filter(is_sha256).map(str::to_lowercase));
                let linked = text(headers, "x-linked-size").and_then(|l| l.parse().ok());
                known.bytes = known.bytes.or(linked);
            }
            match text(headers, "location") {
                Some(location) if is_redirect(response.status()) => {
                    at = join(&at, location)
                        .with_context(|| format!("{at} leads to `{location}`"))?;
                }
                _ => return Ok(Answer { response, known }),
            }
        }
        bail!("{}: more than {MAX_REDIRECTS} redirects", self.url)
    }

    fn digest_part(&self, digest: &mut Sha256) -> anyhow::Result<()> {
        let name = || self.part.display().to_string();
        let mut old = File::open(&self.part).with_context(name)?;
        copy(&mut old, &mut std::io::sink(), digest, &ProgressBar::hidden())
            .map_err(std::io::Error::from)
            .with_context(name)
    }

    /// Holds the part, which is whole, to what is known.
    fn check(&self, digest: Sha256, known: &Known) -> anyhow::Result<()> {
        let url = &self.url;
        let (bytes, sha256) = (self.have(), hex(digest));
        let error = match known {
            Known { bytes: Some(want), .. } if *want != bytes => {
                anyhow!("{url} has {bytes} bytes, not {want}")
            }
            Known { sha256: Some(want), .. } if *want != sha256 => {
                anyhow!("{url} has SHA-256 {sha256}, not {want}: nothing of it was kept")
            }
            _ => return Ok(()),
        };
        self.discard()?;
        Err(error)
    }
}

/// An environment variable, if it is set and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|v| v.trim().to_string()).filter(|v| !v.is_empty())
}

fn token() -> Option<String> {
    variable("HF_TOKEN")
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

fn is_sha256(text: &&str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let host = rest.split(['/', '?', '#']).next().filter(|h| !h.is_empty())?;
    matches!(&*scheme, "http" | "https")
        .then(|| format!("{scheme}://{}", host.to_ascii_lowercase()))
}

/// The address that `location`, given by the server of `base`, names.
fn join(base: &str, location: &str) -> anyhow::Result<String> {
    if let Some(rest) = location.strip_prefix("//") {
        let scheme = base.split("://").next().unwrap_or("https");
        return Ok(format!("{scheme}://{rest}"));
    }
    if location.starts_with('/') {
        return Ok(format!("{}{location}", origin(base).context("no address")?));
    }
    origin(location).context("not an address that begins with https:// or http://")?;
    Ok(location.to_string())
}

/// First byte and length of the whole, of `bytes 5-9/10` or `bytes */10`.
fn content_range(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-').and_then(|(start, _)| start.trim().parse().ok());
    Some((start, total.trim().parse().ok()))
}

fn refusal(url: &str, status: u16, token: bool) -> anyhow::Error {
    match (status, token) {
        // The hub answers so for repositories that do not exist, too.
        (401 | 403, false) => anyhow!(
            "{url}: access denied: there is no such repository, or HF_TOKEN must be set to a token \
             that may read it"
        ),
        (401 | 403, true) => anyhow!(
            "{url}: access denied: there is no such repository, or the token in HF_TOKEN may not \
             read it"
        ),
        (404, _) => anyhow!("{url}: there is no such file"),
        (429 | 500..=599, _) => anyhow!("{url}: the server answers {status}; try again later"),
        _ => anyhow!("{url}: the server answers {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_names_have_an_owner_a_repository_and_a_file() {
        let file = HubFile::parse("a/b/c/d.gguf").unwrap();
        assert_eq!((file.repo.as_str(), file.path.as_str()), ("a/b", "c/d.gguf"));
        for bad in ["a/b", "a", "", "a//c", "../b/c", "a/b/../../c", "a/b/c"] {
            assert!(HubFile::parse(bad).is_err(), "{bad}");
        }
        for bad in ["a/b/../../c.gguf", "a/b/c\\..\\d.gguf", "a/b/C:x.gguf", "a/b/.gguf"] {
            assert!(HubFile::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_escaped() {
        let file = HubFile::parse("a/b/c d/é#1?.gguf").unwrap();
        let url = file.url("https://hub");
        assert_eq!(url, "https://hub/a/b/resolve/main/c%20d/%C3%A9%231%3F.gguf");
    }

    #[test]
    fn redirects_may_be_relative() {
        let base = "https://hub/a/b";
        assert_eq!(join(base, "/c").unwrap(), "https://hub/c");
        assert_eq!(join(base, "//other/c").unwrap(), "https://other/c");
        assert_eq!(join(base, "http://x/c").unwrap(), "http://x/c");
        assert!(join(base, "file:///etc/passwd").is_err());
    }

    #[test]
    fn ranges_name_their_first_byte_and_the_whole() {
        assert_eq!(content_range("bytes 5-9/10"), Some((Some(5), Some(10))));
        assert_eq!(content_range("bytes */10"), Some((None, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((Some(5), None)));
        assert_eq!(content_range("5-9"), None);
    }
}

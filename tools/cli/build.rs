//! Names the commit that is built, for the results of `siskin bench`.

use std::process::Command;

/// What git prints, without the line's end.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Sources that lie in another project's repository are not built from its commits.
    let ours = git(&["rev-parse", "--show-prefix"]).is_some_and(|prefix| prefix == "tools/cli/");
    let of_git = |args| git(args).filter(|_| ours);
    // Written to by whatever changes the commit.
    if let Some(log) = of_git(&["rev-parse", "--git-path", "logs/HEAD"])
        && std::path::Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
    // A tree without git, such as a source archive, is known by its version.
    let commit = of_git(&["rev-parse", "--short", "HEAD"]);
    let commit = commit.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_string());
    let number = of_git(&["rev-list", "--count", "HEAD"]).unwrap_or_else(|| "0".to_string());
    println!("cargo::rustc-env=SISKIN_COMMIT={commit}");
    println!("cargo::rustc-env=SISKIN_BUILD_NUMBER={number}");
}

//! Tells the program the commit it is built from.
//!
//! `FLOWSHIFT_COMMIT` in the environment wins (the image has no repository beside it); else git is asked, in release
//! builds only, so that a commit does not rebuild what a developer tries out. Without either it is `unknown`. Never
//! fails a build.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=FLOWSHIFT_COMMIT");
    let given = std::env::var("FLOWSHIFT_COMMIT").ok().filter(|text| is_name(text));
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = given.or_else(|| if release { of_repository() } else { None });
    println!("cargo:rustc-env=FLOWSHIFT_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}

/// What may stand in a version: one word, so that it adds no line to what cargo reads.
fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// The commit that is checked out; looked up anew when another one is.
fn of_repository() -> Option<String> {
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    // A worktree has its HEAD elsewhere, and a branch may be packed away.
    let branch = git(&["rev-parse", "--symbolic-full-name", "HEAD"]);
    for name in [Some("HEAD".to_owned()), branch, Some("packed-refs".to_owned())].into_iter().flatten() {
        // A path that does not exist would be looked at as changed by every build.
        if let Some(path) = git(&["rev-parse", "--git-path", &name]).filter(|path| std::path::Path::new(path).exists())
        {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    Some(commit).filter(|text| is_name(text))
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

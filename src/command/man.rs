//! `flowshift man`: the manual, from the same words as `--help`.

use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;

use super::{Failure, print_line};
use crate::cli::Cli;

pub(super) fn run(out: Option<&Path>) -> Result<(), Failure> {
    let mut command = Cli::command();
    // The first line of the long version is the version; a page's footer has room for no more.
    command = command.version(env!("CARGO_PKG_VERSION"));
    match out {
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| format!("--out {}", folder.display()))?;
            clap_mangen::generate_to(command, folder).with_context(|| format!("--out {}", folder.display()))?;
        }
        None => {
            let mut page = Vec::new();
            command.build();
            clap_mangen::Man::new(command).render(&mut page).context("the page cannot be written")?;
            print_line(String::from_utf8_lossy(&page).trim_end());
        }
    }
    Ok(())
}

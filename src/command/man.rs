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
            command = command.disable_help_subcommand(true);
            command.build();
            pages(&command, folder).with_context(|| format!("--out {}", folder.display()))?;
        }
        None => {
            let mut page = Vec::new();
            command.build();
            page_of(&command).render(&mut page).context("the page cannot be written")?;
            print_line(String::from_utf8_lossy(&page).trim_end());
        }
    }
    Ok(())
}

/// A command's page; its footer names the program, whichever command it is of.
fn page_of(command: &clap::Command) -> clap_mangen::Man {
    clap_mangen::Man::new(command.clone()).source(concat!("flowshift ", env!("CARGO_PKG_VERSION"))).manual("flowshift")
}

fn pages(command: &clap::Command, folder: &Path) -> std::io::Result<()> {
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        pages(inner, folder)?;
    }
    page_of(command).generate_to(folder).map(drop)
}

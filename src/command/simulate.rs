//! `flowshift simulate`: a simulated region's traffic as files, with the truth beside it.

use super::{Failure, print_line};
use crate::cli::Simulate;
use crate::simulate::{Region, write_files};

pub(super) fn run(args: &Simulate) -> Result<(), Failure> {
    let region = Region::demo(args.seed);
    let written = write_files(&region, &args.out, args.minutes).map_err(Failure::start)?;
    let folder = args.out.display().to_string();
    print_line(&if args.json {
        serde_json::json!({"out": folder, "reports": written.reports, "flows": written.flows}).to_string()
    } else {
        format!("wrote {} reports with {} flow records to {folder}", written.reports, written.flows)
    });
    Ok(())
}

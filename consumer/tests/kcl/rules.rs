//! KCL's rules for what changes together: the counter with every write, the switches with owners and checkpoints.

use super::rows::{Row, Versions, text};

/// What a run did to its rows.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Changes that break a rule.
    pub(crate) broken: Vec<String>,
    /// Rows whose owner changed from one worker to another.
    pub(crate) switches: usize,
    /// Rows whose checkpoint moved.
    pub(crate) checkpoints: usize,
}

/// Judges each change from a version of a row to the next.
pub(crate) fn judge(versions: &Versions) -> Verdict {
    let mut verdict = Verdict::default();
    for (key, rows) in versions {
        for pair in rows.windows(2) {
            change(&pair[0], &pair[1], &mut verdict).unwrap_or_else(|rule| {
                verdict.broken.push(format!("{key}: {rule}: {:?} then {:?}", pair[0], pair[1]));
            });
        }
    }
    verdict
}

fn change(before: &Row, after: &Row, verdict: &mut Verdict) -> Result<(), &'static str> {
    let number = |row: &Row, name: &str| text(row, name).parse::<i64>().unwrap_or_default();
    let steps = number(after, "leaseCounter") - number(before, "leaseCounter");
    // Without the counter KCL names children and begins a hand-over, which only whoever is in charge may end.
    let free = ["childShardIds", "leaseOwner", "checkpointOwner"];
    let fenced = |row: &Row| {
        let kept = row.iter().filter(|(name, _)| !name.starts_with("fs_") && !free.contains(&name.as_str()));
        let kept: Row = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        (kept, in_charge(row).to_owned())
    };
    match steps {
        0 if fenced(before) == fenced(after) => return Ok(()),
        0 => return Err("a write without the counter"),
        1 => {}
        // Whoever looked missed a version.
        2.. => return Ok(()),
        _ => return Err("the counter fell"),
    }
    let moved = text(before, "checkpoint") != text(after, "checkpoint");
    let owners = (in_charge(before), in_charge(after));
    let switched = !owners.0.is_empty() && !owners.1.is_empty() && owners.0 != owners.1;
    let known = number(before, "ownerSwitchesSinceCheckpoint");
    let (wanted, rule) = if moved {
        (0, "a checkpoint sets the switches to 0")
    } else if switched {
        (known + 1, "an owner after another adds a switch")
    } else {
        (known, "nothing else changes the switches")
    };
    verdict.switches += usize::from(switched);
    verdict.checkpoints += usize::from(moved);
    if number(after, "ownerSwitchesSinceCheckpoint") == wanted { Ok(()) } else { Err(rule) }
}

/// Who may write the row: during a hand-over the old owner.
fn in_charge(row: &Row) -> &str {
    let name = if row.contains_key("checkpointOwner") { "checkpointOwner" } else { "leaseOwner" };
    text(row, name)
}

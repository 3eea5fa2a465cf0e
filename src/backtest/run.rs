//! Lines into panes, panes into the job's lanes, events into the log.
//!
//! A window is judged as soon as a line of a later one is read: a line that comes after that is late, refused by the
//! lane as in the job, and counted. Not here: files' names and progress; those are the command's. Invariant: every line
//! is counted once: taken, repeated or late.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use flowshift_consumer::exchange::Lanes;
use flowshift_detector::{MergeOutcome, Settings};
use flowshift_proto::anomaly::{AnomalyEvent, EventType};
use serde::{Deserialize, Serialize};

use super::window::Line;
use super::{BacktestError, Input, PairTable};
use crate::stage::direct::Direct;

/// What became of the lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Lines read.
    pub lines: u64,
    /// Lines whose window was judged before they came, left out.
    pub late: u64,
    /// Lines whose pair and window were there before, left out.
    pub repeated: u64,
    /// Windows with at least one line.
    pub windows: u64,
    /// Events written.
    pub events: u64,
    /// Incidents opened, also again.
    pub opened: u64,
    /// Incidents open at the end.
    pub open: u64,
}

/// A backtest of one recording.
#[derive(Debug)]
pub struct Backtest {
    pairs: PairTable,
    window_s: i64,
    direct: Direct,
    /// Pair and start of the lines in windows that are not judged yet.
    seen: HashSet<(u32, i64)>,
    now_s: Option<i64>,
    account: Account,
}

impl Backtest {
    /// For windows of as many seconds as the settings' panes.
    pub fn new(settings: &Settings, lanes: Lanes, topology_hash: [u8; 16], pairs: PairTable) -> Self {
        Self {
            pairs,
            window_s: i64::from(settings.pane_s()),
            direct: Direct::new(settings, lanes, topology_hash),
            seen: HashSet::new(),
            now_s: None,
            account: Account::default(),
        }
    }

    /// Reads the recording to its end and writes the event log.
    ///
    /// # Errors
    /// A line that cannot be read, does not fit the pairs or the length of a window; the log cannot be written.
    pub fn run(mut self, input: &mut Input, log: &mut impl Write) -> Result<Account, BacktestError> {
        while let Some(bytes) = input.next_line()? {
            let line: Result<Line, _> = serde_json::from_slice(bytes);
            let line = line.map_err(|error| input.no_object(&error))?;
            self.line(&line, input, log)?;
        }
        if self.account.lines == 0 {
            return Err(input.empty());
        }
        self.judge(i64::MAX, log)?;
        Ok(self.account)
    }

    fn line(&mut self, line: &Line, input: &Input, log: &mut impl Write) -> Result<(), BacktestError> {
        self.account.lines += 1;
        if line.t < 0 || line.t.rem_euclid(self.window_s) != 0 || line.t > i64::from(u32::MAX) {
            return Err(input.wrong(format!("t {} is no start of a window of {} s", line.t, self.window_s)));
        }
        if self.now_s.is_none_or(|now| line.t > now) {
            self.judge(line.t.saturating_mul(1_000), log)?;
            self.account.windows += 1;
            self.now_s = Some(line.t);
            let oldest_s = self.judged_until_s();
            self.seen.retain(|(_, t)| *t >= oldest_s);
        }
        let Some(pair) = self.pairs.get(&line.pair) else {
            return Err(input.wrong(format!("pair {} is not in the file of pairs", line.pair)));
        };
        for (told, known) in [(&line.src, &pair.src.id), (&line.dst, &pair.dst.id)] {
            if let Some(told) = told.as_deref().filter(|told| *told != &**known) {
                return Err(input.wrong(format!("pair {} ends at {told}, the file of pairs says {known}", line.pair)));
            }
        }
        if line.t >= self.judged_until_s() && !self.seen.insert((line.pair, line.t)) {
            self.account.repeated += 1;
            return Ok(());
        }
        if self.direct.merge(pair, line.t, &line.cell())? != MergeOutcome::Accepted {
            self.account.late += 1;
        }
        Ok(())
    }

    /// End of the last judged step, epoch s.
    fn judged_until_s(&self) -> i64 {
        let step_s = self.direct.step_s();
        self.now_s.map_or(i64::MIN, |now| now.div_euclid(step_s).saturating_mul(step_s))
    }

    fn judge(&mut self, mark_ms: i64, log: &mut impl Write) -> Result<(), BacktestError> {
        for event in self.direct.judge(mark_ms)? {
            writeln!(log, "{}", event.to_json()?).map_err(BacktestError::Write)?;
            self.count(&event);
        }
        Ok(())
    }

    fn count(&mut self, event: &AnomalyEvent) {
        self.account.events += 1;
        match event.kind {
            EventType::Opened => {
                self.account.opened += 1;
                self.account.open += 1;
            }
            EventType::Resolved => self.account.open = self.account.open.saturating_sub(1),
            EventType::Updated => {}
        }
    }
}

/// Length of a window in seconds as the `config.json` beside a recording says it; `None` without such a file. Nothing
/// else in that file is read.
///
/// # Errors
/// The file is there and says no whole number of seconds.
pub fn window_length(windows: &Path) -> Result<Option<u32>, BacktestError> {
    #[derive(Deserialize)]
    struct Recording {
        window_s: u32,
    }
    let path = windows.with_file_name("config.json");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(BacktestError::Read { path, source }),
    };
    let wrong = |error: serde_json::Error| BacktestError::Line {
        path: path.clone(),
        line: error.line() as u64,
        what: error.to_string(),
    };
    serde_json::from_str::<Recording>(&text).map(|recording| Some(recording.window_s)).map_err(wrong)
}

//! What was done, how long it took and how it ended.

use std::time::Duration;

use crate::process::Ending;
use cxr_terminal::tell;

/// Wall time and ending of each part, in order.
#[derive(Default)]
pub(super) struct Parts(Vec<(String, Duration, Ending)>);

impl Parts {
    pub(super) fn add(&mut self, name: &str, time: Duration, ending: Ending) {
        self.0.push((name.to_owned(), time, ending));
    }

    pub(super) fn failed(&self) -> Vec<&str> {
        let failed = self
            .0
            .iter()
            .filter(|(_, _, ending)| *ending == Ending::Failed);
        failed.map(|(name, _, _)| name.as_str()).collect()
    }

    /// Prints them. `together` is the wall time of all: less than the sum where parts ran at once.
    pub(super) fn print(&self, together: Duration) {
        let of_names = self.0.iter().map(|(name, _, _)| name.len());
        let width = of_names.max().unwrap_or(0).max("together".len());
        tell!("\nwall time");
        for (name, time, ending) in &self.0 {
            let ending = match ending {
                Ending::Done => "",
                Ending::Failed => "  failed",
                Ending::Interrupted => "  interrupted",
            };
            tell!("  {name:<width$} {:>9.1} s{ending}", time.as_secs_f64());
        }
        tell!("  {:<width$} {:>9.1} s", "together", together.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_parts_are_named_in_order() {
        let mut parts = Parts::default();
        parts.add("build", Duration::ZERO, Ending::Done);
        parts.add("focal", Duration::ZERO, Ending::Failed);
        parts.add("zlpr", Duration::ZERO, Ending::Done);
        parts.add("report", Duration::ZERO, Ending::Failed);
        assert_eq!(parts.failed(), ["focal", "report"]);
    }
}

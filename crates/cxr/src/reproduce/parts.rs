//! What was done, how long it took and how it ended.

use std::time::Duration;

use cxr_terminal::Ending;

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

    /// A line for each. `together` is the wall time of all: less than the sum where parts ran at once.
    pub(super) fn table(&self, together: Duration) -> String {
        let of_names = self.0.iter().map(|(name, _, _)| name.len());
        let width = of_names.max().unwrap_or(0).max("together".len());
        let mut text = "\nwall time\n".to_owned();
        for (name, time, ending) in &self.0 {
            let ending = match ending {
                Ending::Done => "",
                Ending::Failed => "  failed",
                Ending::Interrupted => "  interrupted",
            };
            text += &format!("  {name:<width$} {:>9.1} s{ending}\n", time.as_secs_f64());
        }
        text + &format!(
            "  {:<width$} {:>9.1} s\n",
            "together",
            together.as_secs_f64()
        )
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

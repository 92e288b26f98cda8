//! Several readers of one image: their answers, and the rules that make one of them.

use std::fmt;
use std::str::FromStr;

use crate::{DatasetError, LabelState};

/// How the answers of several readers of one image become one label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReaderRule {
    /// Positive where one reader says yes; else uncertain where one is unsure; else negative.
    Any,
    /// Positive where more than half of the readers say yes, negative where more than half say no, else uncertain.
    #[default]
    Majority,
    /// Positive where all readers say yes; negative where one says no; else uncertain.
    All,
}

impl FromStr for ReaderRule {
    type Err = DatasetError;

    fn from_str(text: &str) -> Result<Self, DatasetError> {
        match text {
            "any" => Ok(Self::Any),
            "majority" => Ok(Self::Majority),
            "all" => Ok(Self::All),
            _ => Err(DatasetError::Format {
                problem: format!(
                    "`{}` is no rule for several readers",
                    cxr_table::excerpt(text)
                ),
                repair: "take `any`, `majority` or `all`".to_owned(),
            }),
        }
    }
}

impl fmt::Display for ReaderRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Any => "any",
            Self::Majority => "majority",
            Self::All => "all",
        })
    }
}

/// What the readers of one image say of one label. A reader who says nothing is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Votes {
    yes: u32,
    no: u32,
    unsure: u32,
}

impl Votes {
    pub(crate) fn add(&mut self, answer: LabelState) {
        match answer {
            LabelState::Positive => self.yes += 1,
            LabelState::Negative => self.no += 1,
            LabelState::Uncertain => self.unsure += 1,
            LabelState::Blank | LabelState::Unknown => {}
        }
    }

    pub(crate) fn joined(self, rule: ReaderRule) -> LabelState {
        let Self { yes, no, unsure } = self;
        let n_readers = yes + no + unsure;
        if n_readers == 0 {
            return LabelState::Unknown;
        }
        let (is_yes, is_no) = match rule {
            ReaderRule::Any => (yes > 0, unsure == 0),
            ReaderRule::Majority => (2 * yes > n_readers, 2 * no > n_readers),
            ReaderRule::All => (yes == n_readers, no > 0),
        };
        match (is_yes, is_no) {
            (true, _) => LabelState::Positive,
            (false, true) => LabelState::Negative,
            (false, false) => LabelState::Uncertain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_joined_by_the_rule_that_is_named() {
        use LabelState::{Negative, Positive, Uncertain, Unknown};
        // Yes, no, unsure; then what any, majority and all make of them.
        for (yes, no, unsure, expected) in [
            (0, 0, 0, [Unknown, Unknown, Unknown]),
            (3, 0, 0, [Positive, Positive, Positive]),
            (2, 1, 0, [Positive, Positive, Negative]),
            (1, 2, 0, [Positive, Negative, Negative]),
            (0, 3, 0, [Negative, Negative, Negative]),
            (1, 1, 0, [Positive, Uncertain, Negative]),
            (1, 1, 1, [Positive, Uncertain, Negative]),
            (2, 0, 1, [Positive, Positive, Uncertain]),
            (0, 2, 1, [Uncertain, Negative, Negative]),
            (0, 0, 1, [Uncertain, Uncertain, Uncertain]),
        ] {
            let votes = Votes { yes, no, unsure };
            let rules = [ReaderRule::Any, ReaderRule::Majority, ReaderRule::All];
            assert_eq!(
                rules.map(|rule| votes.joined(rule)),
                expected,
                "{yes} {no} {unsure}"
            );
        }
    }
}

//! Test sets made of numbers: patients with few or many films, findings that stay with a patient,
//! and scores that resemble each other within one.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::normal::{cumulative, quantile};

/// A stream of random numbers that depends on its name alone.
pub(crate) struct Random {
    bits: ChaCha8Rng,
    spare: Option<f64>,
}

impl Random {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut bits = ChaCha8Rng::seed_from_u64(seed);
        bits.set_stream(stream);
        Self { bits, spare: None }
    }

    /// Uniform in (0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        ((self.bits.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Standard normal, by the polar method (Marsaglia & Bray 1964).
    pub(crate) fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let (x, y) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let square = x * x + y * y;
            if square < 1.0 && square > 0.0 {
                let scale = (-2.0 * square.ln() / square).sqrt();
                self.spare = Some(y * scale);
                return x * scale;
            }
        }
    }
}

/// How many films a patient has.
#[derive(Clone, Copy)]
pub(crate) enum Films {
    /// Half have one, the others about nine, up to 184, as in ChestX-ray14's test list: there 49 % have
    /// one, and the quartile, the ninth decile and the largest are 9, 26 and 184.
    Skewed,
    /// Two to 184, all orders of magnitude as likely.
    TwoTo184,
    /// One each.
    One,
}

impl Films {
    fn draw(self, random: &mut Random) -> usize {
        match self {
            Self::Skewed if random.uniform() < 0.49 => 1,
            Self::Skewed => (9.0 * (1.15 * random.normal()).exp())
                .round()
                .clamp(2.0, 184.0) as usize,
            Self::TwoTo184 => (2.0 * 92.0_f64.powf(random.uniform())).round() as usize,
            Self::One => 1,
        }
    }
}

/// Who has a finding.
#[derive(Clone, Copy)]
pub(crate) enum Finding {
    /// A patient has it with this probability, then in 1, 2, 3, … films with probabilities that fall
    /// by a factor of 0.63: 2.7 on average, as Hernia in ChestX-ray14's test list.
    Rare { patients: f64 },
    /// A film has it with this probability; films of a patient share half of the liability.
    Common { films: f64 },
}

/// The positives' scores: normal, or a mixture of an easy and a hard half. Negatives' are standard
/// normal.
#[derive(Clone, Copy)]
pub(crate) struct Scores {
    /// Share, distance from the negatives, and standard deviation of each kind of positive.
    pub(crate) kinds: [(f64, f64, f64); 2],
    /// The share of the scores' variance that a patient's films have in common.
    pub(crate) within_patient: f64,
    /// Scores are rounded to multiples of this; 0 for none.
    pub(crate) step: f64,
}

impl Scores {
    /// Two normal distributions with this AUC; `spread` is the positives' standard deviation.
    pub(crate) fn normal(auc: f64, spread: f64) -> Self {
        let distance = quantile(auc) * (1.0 + spread * spread).sqrt();
        Self {
            kinds: [(1.0, distance, spread), (0.0, distance, spread)],
            within_patient: 0.5,
            step: 0.0,
        }
    }

    /// 70 % of the positives are easy, the others half as far from the negatives.
    pub(crate) fn mixture(auc: f64) -> Self {
        let at = |distance: f64| Self {
            kinds: [(0.7, distance, 1.0), (0.3, distance / 2.0, 1.0)],
            within_patient: 0.5,
            step: 0.0,
        };
        let (mut low, mut high) = (0.0, 10.0);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            if at(middle).auc() < auc {
                low = middle;
            } else {
                high = middle;
            }
        }
        at(low)
    }

    /// P(a positive's score ≤ x).
    fn positive_below(&self, x: f64) -> f64 {
        let kinds = self.kinds.iter();
        kinds
            .map(|&(share, distance, spread)| share * cumulative((x - distance) / spread))
            .sum()
    }

    /// The AUC of a positive and a negative of different patients, exactly.
    pub(crate) fn auc(&self) -> f64 {
        if self.step == 0.0 {
            let kinds = self.kinds.iter();
            return kinds
                .map(|&(share, distance, spread)| {
                    share * cumulative(distance / (1.0 + spread * spread).sqrt())
                })
                .sum();
        }
        let cells = (-12.0 / self.step) as i32..=(20.0 / self.step) as i32;
        cells
            .map(|cell| {
                let (low, high) = (
                    (f64::from(cell) - 0.5) * self.step,
                    (f64::from(cell) + 0.5) * self.step,
                );
                let here = self.positive_below(high) - self.positive_below(low);
                here * (cumulative(low) + cumulative(high)) / 2.0
            })
            .sum()
    }

    /// P(score ≥ threshold) of a positive and of a negative; for scores without rounding.
    pub(crate) fn called(&self, threshold: f64) -> (f64, f64) {
        (1.0 - self.positive_below(threshold), cumulative(-threshold))
    }

    /// The average precision of an endless test set in which this share of the films is positive.
    pub(crate) fn average_precision(&self, prevalence: f64) -> f64 {
        let n = 40_000;
        let edge = |at: i32| 14.0 - 26.0 * f64::from(at) / f64::from(n);
        let mut area = 0.0;
        for at in 0..n {
            let middle = (edge(at) + edge(at + 1)) / 2.0;
            let (sensitivity, false_alarms) = self.called(middle);
            let gained = self.called(edge(at + 1)).0 - self.called(edge(at)).0;
            let (found, wrong) = (prevalence * sensitivity, (1.0 - prevalence) * false_alarms);
            if found > 0.0 {
                area += gained * found / (found + wrong);
            }
        }
        area
    }

    fn output(&self, x: f64) -> f32 {
        if self.step > 0.0 {
            ((x / self.step).round() * self.step) as f32
        } else {
            x as f32
        }
    }
}

/// A label with two models' scores for it.
#[derive(Clone, Copy)]
pub(crate) struct Label {
    pub(crate) finding: Finding,
    pub(crate) scores: Scores,
    /// The second model's, all of whose random parts are correlated with the first's.
    pub(crate) other: Option<(Scores, f64)>,
}

/// Patients, labels and scores, film by film and label by label.
pub(crate) struct TestSet {
    pub(crate) patients: Vec<u64>,
    pub(crate) labels: Vec<bool>,
    pub(crate) scores: Vec<f32>,
    pub(crate) other: Vec<f32>,
}

/// Two correlated draws: the first model's and the second's.
fn pair(random: &mut Random, correlation: Option<f64>) -> [f64; 2] {
    let first = random.normal();
    let second = correlation.map_or(0.0, |c| c * first + (1.0 - c * c).sqrt() * random.normal());
    [first, second]
}

/// Half of `own`, half of `common`, in variance.
fn mix(common: [f64; 2], own: [f64; 2]) -> [f64; 2] {
    let half = 0.5_f64.sqrt();
    [half * (common[0] + own[0]), half * (common[1] + own[1])]
}

impl TestSet {
    /// Draws patients with their films. A patient's effect on positives and on negatives is correlated
    /// by 1/2; with several labels, half of every random part is common to all.
    pub(crate) fn draw(
        n_patients: usize,
        films: Films,
        labels: &[Label],
        random: &mut Random,
    ) -> Self {
        let mut set = Self {
            patients: Vec::new(),
            labels: Vec::new(),
            scores: Vec::new(),
            other: Vec::new(),
        };
        let correlation = labels[0].other.map(|(_, correlation)| correlation);
        let several = labels.len() > 1;
        let mut positives: Vec<Vec<bool>> = vec![Vec::new(); labels.len()];
        let limits: Vec<f64> = labels
            .iter()
            .map(|label| match label.finding {
                Finding::Rare { .. } => f64::NAN,
                Finding::Common { films } => quantile(films),
            })
            .collect();
        for patient in 0..n_patients {
            let mut n_films = films.draw(random);
            for ((label, positives), &limit) in labels.iter().zip(&mut positives).zip(&limits) {
                positives.clear();
                match label.finding {
                    Finding::Rare { patients } => {
                        if random.uniform() < patients {
                            let mut with = 1;
                            while random.uniform() < 0.63 {
                                with += 1;
                            }
                            if matches!(films, Films::One) {
                                with = 1;
                            }
                            n_films = n_films.max(with);
                            positives.resize(with, true);
                        }
                    }
                    Finding::Common { .. } => {
                        let half = 0.5_f64.sqrt();
                        let own = half * random.normal();
                        positives
                            .extend((0..n_films).map(|_| own + half * random.normal() < limit));
                    }
                }
            }
            let common = [pair(random, correlation), pair(random, correlation)];
            let effects: Vec<[[f64; 2]; 2]> = labels
                .iter()
                .map(|_| {
                    let mut own = [pair(random, correlation), pair(random, correlation)];
                    if several {
                        own = [mix(common[0], own[0]), mix(common[1], own[1])];
                    }
                    let of_positives =
                        [0, 1].map(|model| 0.5 * own[0][model] + 0.75_f64.sqrt() * own[1][model]);
                    [own[0], of_positives]
                })
                .collect();
            for film in 0..n_films {
                let of_film = if several {
                    pair(random, correlation)
                } else {
                    [0.0; 2]
                };
                for ((label, positives), effects) in labels.iter().zip(&positives).zip(&effects) {
                    let positive = positives.get(film).copied().unwrap_or(false);
                    let mut noise = pair(random, correlation);
                    if several {
                        noise = mix(of_film, noise);
                    }
                    let kind = usize::from(positive && random.uniform() >= label.scores.kinds[0].0);
                    let score = |scores: &Scores, model: usize| {
                        let share = scores.within_patient;
                        let effect = effects[usize::from(positive)][model];
                        let x = share.sqrt() * effect + (1.0 - share).sqrt() * noise[model];
                        let (_, distance, spread) = scores.kinds[kind];
                        scores.output(if positive { distance + spread * x } else { x })
                    };
                    set.labels.push(positive);
                    set.scores.push(score(&label.scores, 0));
                    if let Some((other, _)) = &label.other {
                        set.other.push(score(other, 1));
                    }
                }
                set.patients.push(patient as u64);
            }
        }
        set
    }
}

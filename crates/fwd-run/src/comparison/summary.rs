//! Mean and confidence interval of a measure over seeds.
//!
//! The interval is Student's: `mean ± t · s / √n`, s the standard deviation with n − 1 in the denominator and t the quantile that
//! encloses [`CONFIDENCE`] with `ν = n − 1` degrees of freedom. For a whole ν the distribution has a closed form (Abramowitz and
//! Stegun 1964, 26.7.3 and 26.7.4) in `θ = arctan(t / √ν)`, which is inverted by bisection; no table is needed.

use serde::Serialize;
use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};

/// What the intervals enclose.
pub const CONFIDENCE: f64 = 0.95;

/// Values of one measure over runs, as their mean and its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// How many values there are.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Half the width of the interval; none for one value.
    pub half_width: Option<f64>,
    /// The largest value.
    pub max: f64,
}

impl Summary {
    /// That of some values; none of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        let max = values.iter().copied().reduce(f64::max)?;
        let mean = values.iter().sum::<f64>() / n as f64;
        let half_width = (n > 1).then(|| {
            let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
            t_quantile(n - 1) * (squares / (n - 1) as f64).sqrt() / (n as f64).sqrt()
        });
        Some(Self { n, mean, half_width, max })
    }

    /// The lower end of the interval; of one value the value.
    pub fn low(&self) -> f64 {
        self.mean - self.half_width.unwrap_or(0.0)
    }

    /// The upper end of the interval; of one value the value.
    pub fn high(&self) -> f64 {
        self.mean + self.half_width.unwrap_or(0.0)
    }
}

impl Summary {
    /// The ends of the interval where the values are scores: no score is below 0, and none above 100 unless one of the values is
    /// (CIDEr-D in percent reaches 1000).
    pub fn score_interval(&self) -> (f64, f64) {
        let top = if self.max > 100.0 { f64::INFINITY } else { 100.0 };
        (self.low().max(0.0), self.high().min(top))
    }
}

/// The t with `P(|T| ≤ t) =` [`CONFIDENCE`] for `df ≥ 1` degrees of freedom.
fn t_quantile(df: usize) -> f64 {
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    // Each step halves the bracket: 64 reach the last bit.
    for _ in 0..64 {
        let middle = 0.5 * (low + high);
        if central_probability(middle, df) < CONFIDENCE {
            low = middle;
        } else {
            high = middle;
        }
    }
    (df as f64).sqrt() * (0.5 * (low + high)).tan()
}

/// `P(|T| ≤ √ν tan θ)` for ν degrees of freedom.
fn central_probability(theta: f64, df: usize) -> f64 {
    let (sin, cos) = theta.sin_cos();
    let is_odd = df % 2 == 1;
    // ν odd: cos θ + 2/3 cos³ θ + 2·4/(3·5) cos⁵ θ + …; ν even: 1 + 1/2 cos² θ + 1·3/(2·4) cos⁴ θ + …; up to cos^(ν−2).
    let (mut term, mut sum) = (if is_odd { cos } else { 1.0 }, 0.0);
    let mut k = if is_odd { 1 } else { 0 };
    while k + 2 <= df {
        sum += term;
        k += 2;
        term *= (k - 1) as f64 / k as f64 * cos * cos;
    }
    if is_odd { FRAC_2_PI * (theta + sin * sum) } else { sin * sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_printed_tables() {
        let table = [
            (1, 12.7062),
            (2, 4.3027),
            (3, 3.1824),
            (4, 2.7764),
            (5, 2.5706),
            (9, 2.2622),
            (10, 2.2281),
            (30, 2.0423),
            (120, 1.9799),
        ];
        for (df, t) in table {
            assert!((t_quantile(df) - t).abs() < 6e-5, "{df}: {} is not {t}", t_quantile(df));
        }
    }

    #[test]
    fn a_mean_and_its_interval_by_hand() {
        // Mean 40, deviations −2, 0, 2: s² = 8 / 2 = 4; 4.3027 · 2 / √3 = 4.9683.
        let summary = Summary::of(&[38.0, 40.0, 42.0]).unwrap();
        assert_eq!((summary.n, summary.mean, summary.max), (3, 40.0, 42.0));
        assert!((summary.half_width.unwrap() - 4.9683).abs() < 1e-4, "{summary:?}");
        assert!((summary.low() - 35.0317).abs() < 1e-4 && (summary.high() - 44.9683).abs() < 1e-4);
        // Two values: s = √2, 12.7062 · √2 / √2.
        let summary = Summary::of(&[1.0, 3.0]).unwrap();
        assert!((summary.half_width.unwrap() - 12.7062).abs() < 1e-4);
    }

    #[test]
    fn an_interval_of_scores_holds_no_impossible_score() {
        // Mean 98, half width 12.7062 · 1.
        let high = Summary::of(&[97.0, 99.0]).unwrap().score_interval();
        assert!((high.0 - 85.2938).abs() < 1e-4 && high.1 == 100.0, "{high:?}");
        let low = Summary::of(&[1.0, 3.0]).unwrap().score_interval();
        assert!(low.0 == 0.0 && (low.1 - 14.7062).abs() < 1e-4, "{low:?}");
        // CIDEr-D in percent may be larger.
        assert!(Summary::of(&[150.0, 152.0]).unwrap().score_interval().1 > 163.0);
        assert_eq!(Summary::of(&[40.0]).unwrap().score_interval(), (40.0, 40.0));
    }

    #[test]
    fn one_value_has_no_interval_and_none_no_mean() {
        let one = Summary::of(&[-7.0]).unwrap();
        assert_eq!((one.mean, one.half_width, one.low(), one.max), (-7.0, None, -7.0, -7.0));
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[5.0; 4]).unwrap().half_width, Some(0.0));
    }
}

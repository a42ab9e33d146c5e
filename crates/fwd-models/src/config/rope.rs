//! The frequencies of rotary positions (Su et al. 2021): position `p` turns pair `i` of a head by `p·θ^(−2i/d_head)`, scaled or not.

use serde::Deserialize;

/// How the frequencies of rotary positions are made: `rope_parameters` of transformers 5, or `rope_scaling` of transformers 4.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "Fields")]
pub struct RopeConfig {
    /// `default`, `linear` or `llama3`; `default` if absent. Other types are refused.
    pub rope_type: Option<String>,
    /// The base θ of the frequencies; 10000 if absent.
    pub rope_theta: Option<f64>,
    /// By what positions are divided: all of them (`linear`), or those of low frequencies (`llama3`).
    pub factor: Option<f64>,
    /// `llama3`: wavelengths above the original length over this are scaled in full.
    pub low_freq_factor: Option<f64>,
    /// `llama3`: wavelengths below the original length over this are not scaled.
    pub high_freq_factor: Option<f64>,
    /// `llama3`: the length that the model was trained for before it was made longer.
    pub original_max_position_embeddings: Option<usize>,
}

/// The fields as a file has them.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Fields {
    rope_type: Option<String>,
    /// The key of old files. Those of transformers 4.43 and later have both, of which `rope_type` counts.
    r#type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
}

impl From<Fields> for RopeConfig {
    fn from(fields: Fields) -> Self {
        Self {
            rope_type: fields.rope_type.or(fields.r#type),
            rope_theta: fields.rope_theta,
            factor: fields.factor,
            low_freq_factor: fields.low_freq_factor,
            high_freq_factor: fields.high_freq_factor,
            original_max_position_embeddings: fields.original_max_position_embeddings,
        }
    }
}

impl RopeConfig {
    /// The angle in radians by which one position turns each pair `(i, i + d_head/2)`, for `i` in `0..d_head/2`.
    ///
    /// # Source
    /// `llama3` as transformers does it: `modeling_rope_utils.py`, after Meta's own code for LLaMA 3.1.
    pub(crate) fn inv_freq(
        &self,
        d_head: usize,
        max_positions: usize,
    ) -> std::result::Result<Vec<f64>, String> {
        if !d_head.is_multiple_of(2) {
            return Err(format!("head_dim {d_head} is odd; rotary positions turn pairs"));
        }
        let theta = positive("rope_theta", Some(self.rope_theta.unwrap_or(10_000.0)))?;
        let plain = (0..d_head / 2).map(|i| theta.powf(-2.0 * i as f64 / d_head as f64));
        match self.kind() {
            "default" => Ok(plain.collect()),
            "linear" => {
                let factor = positive("factor", self.factor)?;
                Ok(plain.map(|angle| angle / factor).collect())
            }
            "llama3" => {
                let factor = positive("factor", self.factor)?;
                let low = positive("low_freq_factor", self.low_freq_factor)?;
                let high = positive("high_freq_factor", self.high_freq_factor)?;
                if high <= low {
                    return Err(format!("rope: high_freq_factor {high} must be above low_freq_factor {low}"));
                }
                let length = self.original_max_position_embeddings.unwrap_or(max_positions) as f64;
                let scaled = |angle: f64| {
                    let turns = length * angle / std::f64::consts::TAU;
                    // The share of the unscaled frequency: 0 below `low` turns within the original length, 1 above `high`.
                    let share = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    angle * (share + (1.0 - share) / factor)
                };
                Ok(plain.map(scaled).collect())
            }
            other => Err(format!(
                "rope type `{}` is not supported; default, linear and llama3 are",
                other.chars().take(40).collect::<String>().escape_debug()
            )),
        }
    }

    /// By what factor a model reads longer sequences than its configuration says.
    pub(crate) fn stretch(&self) -> f64 {
        match (self.kind(), self.factor) {
            ("linear", Some(factor)) if factor.is_finite() => factor.clamp(1.0, 1e4),
            _ => 1.0,
        }
    }

    fn kind(&self) -> &str {
        self.rope_type.as_deref().unwrap_or("default")
    }
}

fn positive(name: &str, value: Option<f64>) -> std::result::Result<f64, String> {
    match value {
        Some(value) if value > 0.0 && value.is_finite() => Ok(value),
        Some(value) => Err(format!("rope: {name} {value} must be above 0")),
        None => Err(format!("rope: {name} is missing")),
    }
}

#[cfg(test)]
mod tests {
    use super::RopeConfig;

    fn rope(json: &str) -> RopeConfig {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn linear_scaling_divides_every_frequency() {
        let plain = rope(r#"{"rope_theta": 100.0}"#).inv_freq(4, 64).unwrap();
        assert_eq!(plain, [1.0, 0.1]);
        let linear = rope(r#"{"type": "linear", "factor": 4.0, "rope_theta": 100.0}"#);
        assert_eq!(linear.inv_freq(4, 64).unwrap(), [0.25, 0.025]);
        assert_eq!(linear.stretch(), 4.0);
    }

    #[test]
    fn a_file_may_say_the_type_under_both_keys() {
        let both = rope(r#"{"type": "dynamic", "rope_type": "linear", "factor": 2.0}"#);
        assert_eq!((both.kind(), both.stretch()), ("linear", 2.0));
    }

    #[test]
    fn llama3_scaling_leaves_fast_pairs_divides_slow_ones_and_mixes_between() {
        let json = r#"{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64, "rope_theta": 10000.0}"#;
        let (scaled, plain) = (rope(json).inv_freq(8, 512).unwrap(), rope("{}").inv_freq(8, 512).unwrap());
        assert_eq!(scaled[0], plain[0]);
        // The second pair turns 64·0.1/2π = 1.02 times: just above low_freq_factor.
        let share = (6.4 / std::f64::consts::TAU - 1.0) / 3.0;
        assert!((scaled[1] - 0.1 * (share + (1.0 - share) / 8.0)).abs() < 1e-15);
        assert!((scaled[2] - plain[2] / 8.0).abs() < 1e-15);
    }

    #[test]
    fn what_cannot_be_computed_is_named() {
        let error = |json: &str| rope(json).inv_freq(8, 64).unwrap_err();
        assert_eq!(
            error(r#"{"rope_type": "yarn"}"#),
            "rope type `yarn` is not supported; default, linear and llama3 are"
        );
        assert_eq!(error(r#"{"rope_type": "linear"}"#), "rope: factor is missing");
        assert_eq!(error(r#"{"rope_theta": 0.0}"#), "rope: rope_theta 0 must be above 0");
        assert!(rope("{}").inv_freq(7, 64).unwrap_err().contains("head_dim 7 is odd"));
    }
}

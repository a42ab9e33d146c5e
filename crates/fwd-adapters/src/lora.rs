//! The factors of all adapted maps of a model.

use crate::config::LoraConfig;
use crate::module::Module;
use fwd_continual::stream;
use rand::Rng;

/// `s·B·A` for each of some linear maps.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    parts: Vec<Part>,
    values: Vec<f32>,
}

/// Where the factors of a map lie among the values: `A (rank, n_in)` from `start` on, and `B (n_out, rank)` behind it, both row-major.
#[derive(Debug, Clone, PartialEq)]
struct Part {
    module: Module,
    rank: usize,
    scale: f64,
    start: usize,
}

/// The factors of a map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Factors<'a> {
    /// `(rank, n_in)`.
    pub a: &'a [f32],
    /// `(n_out, rank)`.
    pub b: &'a [f32],
    /// Rows of `A`.
    pub rank: usize,
    /// The factor of `B·A`.
    pub scale: f64,
}

impl Part {
    fn n_of_a(&self) -> usize {
        self.rank * self.module.n_in
    }

    fn len(&self) -> usize {
        self.rank * (self.module.n_in + self.module.n_out)
    }
}

impl Lora {
    /// Adapters that change nothing yet, as PEFT begins them: `A` uniform within `±1/√n_in`, `B` zero. Adapter `number` of a run with this
    /// seed has streams of its own.
    pub fn new(modules: &[Module], config: &LoraConfig, seed: u64, number: u64) -> Self {
        let of = |(i, module): (usize, &Module)| {
            let bound = (module.n_in as f32).sqrt().recip();
            let mut rng = stream(seed, "lora", [number, i as u64]);
            let a = (0..config.rank * module.n_in).map(|_| rng.random_range(-bound..bound)).collect();
            let b = vec![0.0; module.n_out * config.rank];
            (module.clone(), config.rank, config.scale(), a, b)
        };
        Self::of_factors(modules.iter().enumerate().map(of))
    }

    /// Adapters of given factors: the map, the rank, the scale, `A` and `B`.
    pub(crate) fn of_factors(
        factors: impl Iterator<Item = (Module, usize, f64, Vec<f32>, Vec<f32>)>,
    ) -> Self {
        let (mut parts, mut values) = (Vec::new(), Vec::new());
        for (module, rank, scale, a, b) in factors {
            parts.push(Part { module, rank, scale, start: values.len() });
            values.extend(a);
            values.extend(b);
        }
        Self { parts, values }
    }

    /// The adapted maps, in the order of the values.
    pub fn modules(&self) -> impl Iterator<Item = &Module> {
        self.parts.iter().map(|part| &part.module)
    }

    /// All factors one after another: of each map `A` and then `B`, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The same, to be changed.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// The factors of the map of a name; none if it is not adapted.
    pub fn factors(&self, module: &str) -> Option<Factors<'_>> {
        let part = self.parts.iter().find(|part| part.module.name == module)?;
        Some(self.factors_of(part))
    }

    /// The factors of all maps, with their places among the values: where `A` begins, and where `B` ends.
    pub(crate) fn all_factors(&self) -> impl Iterator<Item = (&Module, std::ops::Range<usize>, Factors<'_>)> {
        self.parts
            .iter()
            .map(|part| (&part.module, part.start..part.start + part.len(), self.factors_of(part)))
    }

    /// `A` and `B` of each map, to be changed.
    pub(crate) fn factors_mut(&mut self) -> impl Iterator<Item = [&mut [f32]; 2]> {
        let mut rest = &mut self.values[..];
        self.parts.iter().map(move |part| {
            let (a, behind) = std::mem::take(&mut rest).split_at_mut(part.n_of_a());
            let (b, behind) = behind.split_at_mut(part.len() - part.n_of_a());
            rest = behind;
            [a, b]
        })
    }

    /// `A` of each map, to be changed.
    pub(crate) fn rows_of_a(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.factors_mut().map(|[a, _]| a)
    }

    fn factors_of(&self, part: &Part) -> Factors<'_> {
        let (a, b) = self.values[part.start..][..part.len()].split_at(part.n_of_a());
        Factors { a, b, rank: part.rank, scale: part.scale }
    }
}
